//! What the processor could do at best.

use std::time::Instant;

use kernels_cpu::{Isa, byte_dots};

/// Multiply-adds of bytes a second that the registers of one core can do, best of several tries.
pub(crate) fn peak_macs() -> f64 {
    const ROUNDS: usize = 2_000_000;
    let isa = Isa::detect();
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        std::hint::black_box(byte_dots(isa, ROUNDS));
        best = best.min(start.elapsed().as_secs_f64());
    }
    (ROUNDS * kernels_cpu::BYTE_DOTS_MACS) as f64 / best
}
