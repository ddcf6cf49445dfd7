//! What the tests of this crate share: repeatable numbers, and the instruction sets to try.

use half::f16;

use crate::{Isa, Scales};

/// The instruction sets that this machine has.
pub(crate) fn isas() -> impl Iterator<Item = Isa> + Clone {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

/// The next number of a counter-based generator (Steele et al., "SplitMix", OOPSLA 2014).
pub(crate) fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `len` floats in `-2..2`.
pub(crate) fn floats(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    (0..len).map(|_| (next(&mut state) >> 40) as f32 / (1 << 22) as f32 - 2.0).collect()
}

/// `[rows, groups]` scales that are exact in a form.
pub(crate) fn exact_scales(scales: Scales, rows: usize, groups: usize, seed: u64) -> Vec<f32> {
    let mut out = floats(rows * groups, seed);
    match scales {
        Scales::F32 => {}
        Scales::F16 => out.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32()),
        Scales::Product { groups: run } => {
            let factors = floats(rows * groups, seed + 7);
            for (row, out) in out.chunks_exact_mut(groups.max(1)).enumerate() {
                for (i, x) in out.iter_mut().enumerate() {
                    let factor = f16::from_f32(factors[row * groups + i / run] / 64.0).to_f32();
                    // No negative zero: integers have none.
                    *x = factor * f32::from((*x * 63.0) as i8);
                }
            }
        }
    }
    out
}

/// `len` codes of `bits` bits.
pub(crate) fn codes(len: usize, bits: u8, seed: u64) -> Vec<u8> {
    let mut state = seed;
    (0..len).map(|_| (next(&mut state) >> 32) as u8 >> (8 - bits)).collect()
}

/// The bits of floats, for comparisons in which NaN equals itself and 0 is not -0.
pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Fails unless each number is within `bound` of the expected one, relative to its magnitude or 1.
pub(crate) fn assert_near(found: &[f32], expected: &[f64], bound: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        let is_near = error <= bound * expected.abs().max(1.0);
        assert!(is_near, "{what}: [{i}] is {found}, not {expected}");
    }
}

/// The same numbers in double precision.
pub(crate) fn doubles(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}
