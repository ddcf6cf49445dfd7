//! Attention over a cache of `f16`: operations per second for the tokens of a prompt, bytes per
//! second for one token.
//!
//! Compare within one run only: machines differ, ratios travel. One product and one sum are two
//! operations (`items`); `limit_floats` is what their shares are of.

use std::fmt;

use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};
use half::f16;
use kernels_cpu::{
    AttendShape, AttendSpec, FLOAT_DOTS_MACS, Isa, SequenceBlocks, attend, float_dots,
};

fn main() {
    divan::main();
}

#[derive(Clone, Copy)]
struct Case {
    shape: AttendShape,
    context: usize,
    isa: Isa,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AttendShape { heads, kv_heads, head_dim } = self.shape;
        let Self { context, isa, .. } = self;
        write!(f, "{heads}/{kv_heads} heads of {head_dim}, {context} positions, {isa:?}")
    }
}

fn cases() -> impl Iterator<Item = Case> {
    let shapes = [(14, 2, 64), (9, 3, 64), (4, 1, 256)];
    shapes.into_iter().flat_map(|(heads, kv_heads, head_dim)| {
        let shape = AttendShape { heads, kv_heads, head_dim };
        [512, 8192].into_iter().flat_map(move |context| {
            let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available() && *isa != Isa::Scalar);
            isas.map(move |isa| Case { shape, context, isa })
        })
    })
}

const BLOCK_SIZE: usize = 16;

/// One key-value head of the last `tokens` tokens of a context.
fn run(bencher: Bencher<'_, '_>, case: Case, tokens: usize) {
    let Case { shape, context, isa } = case;
    let AttendShape { heads, kv_heads, head_dim } = shape;
    let spec = AttendSpec::plain(0.125);
    let stored: Vec<f16> = (0..context * kv_heads * head_dim)
        .map(|i| f16::from_f32((i * 37 % 251) as f32 / 128.0 - 1.0))
        .collect();
    let q: Vec<f32> = (0..tokens * heads * head_dim).map(|i| (i % 13) as f32 / 16.0).collect();
    let positions: Vec<u32> = (context - tokens..context).map(|p| p as u32).collect();
    let blocks: Vec<u32> = (0..context.div_ceil(BLOCK_SIZE) as u32).rev().collect();
    let mut out = vec![0.0; q.len()];
    let seen: usize = positions.iter().map(|p| *p as usize + 1).sum();
    bencher
        .counter(ItemsCount::new(2 * 2 * seen * (heads / kv_heads) * head_dim))
        .counter(BytesCount::new(2 * context * head_dim * size_of::<f16>()))
        .bench_local(|| {
            let sequence = SequenceBlocks { blocks: &blocks, block_size: BLOCK_SIZE };
            let kv = [&*stored, &*stored];
            attend(isa, spec, shape, 0, black_box(&q), &[], &positions, sequence, kv, &mut out);
        });
}

#[divan::bench(args = Isa::ALL.into_iter().filter(|isa| isa.is_available()))]
fn limit_floats(bencher: Bencher<'_, '_>, isa: Isa) {
    const ROUNDS: usize = 10_000;
    bencher
        .counter(ItemsCount::new(2 * ROUNDS * FLOAT_DOTS_MACS))
        .bench_local(|| float_dots(isa, black_box(ROUNDS)));
}

#[divan::bench(args = cases(), sample_count = 20)]
fn one_token(bencher: Bencher<'_, '_>, case: Case) {
    run(bencher, case, 1);
}

#[divan::bench(args = cases(), sample_count = 10)]
fn tokens_64(bencher: Bencher<'_, '_>, case: Case) {
    run(bencher, case, 64);
}
