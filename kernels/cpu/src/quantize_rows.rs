//! Activations as signed bytes: what a quantized matrix product multiplies with.
//!
//! A row is a list of 64-byte blocks, one cache line for 32 elements, so that a tile of the product
//! finds codes, scale and sums at constant offsets.

use std::ops::Range;

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
};

/// Consecutive elements that share a scale.
pub const ACT_BLOCK: usize = 32;

/// Bytes of a block: 32 codes (`i8`), then the words below, then 4 unused zeros.
pub(crate) const BLOCK_BYTES: usize = 64;

/// Where the words of a block lie. Words are little-endian `f32` or `i32`.
pub(crate) mod word {
    /// `f32`: elements are `scale * code`.
    pub(crate) const SCALE: usize = 32;
    /// `i32`: sum of codes `0..16`, of `16..32`, of all.
    pub(crate) const SUMS: [usize; 3] = [36, 40, 44];
    /// `f32`: the same sums times the scale.
    pub(crate) const SCALED_SUMS: [usize; 3] = [48, 52, 56];
}

/// Rows of quantized activations.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedRows<'a> {
    blocks: &'a [[u8; BLOCK_BYTES]],
    k: usize,
    /// Quantized rows whose sum is one row: 1, or 2 as [`quantize_rows_twice`] writes them.
    terms: usize,
}

impl<'a> QuantizedRows<'a> {
    /// Rows of `k` elements as [`quantize_rows`] wrote them.
    ///
    /// # Panics
    ///
    /// If `bytes` are not whole rows.
    pub fn new(bytes: &'a [u8], k: usize) -> Self {
        assert!(k > 0, "QuantizedRows: k is 0");
        assert!(bytes.len().is_multiple_of(quantized_row_bytes(k)), "QuantizedRows: partial row");
        Self { blocks: bytes.as_chunks().0, k, terms: 1 }
    }

    /// Rows of `k` elements as [`quantize_rows_twice`] wrote them.
    ///
    /// # Panics
    ///
    /// If `bytes` are not whole pairs of rows.
    pub fn twice(bytes: &'a [u8], k: usize) -> Self {
        let rows = Self::new(bytes, k);
        assert!(rows.rows().is_multiple_of(2), "QuantizedRows: half a pair");
        Self { terms: 2, ..rows }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.blocks.len() / self.k.div_ceil(ACT_BLOCK) / self.terms
    }

    /// Quantized rows that make one row.
    pub(crate) fn terms(&self) -> usize {
        self.terms
    }

    /// Elements of a row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Some of the rows.
    ///
    /// # Panics
    ///
    /// If `rows` are not within these.
    pub fn select(&self, rows: Range<usize>) -> Self {
        let width = self.k.div_ceil(ACT_BLOCK) * self.terms;
        Self { blocks: &self.blocks[rows.start * width..rows.end * width], ..*self }
    }

    /// The blocks of `count` quantized rows, row after row.
    #[inline(always)]
    pub(crate) fn rows_from(&self, first: usize, count: usize) -> &'a [[u8; BLOCK_BYTES]] {
        let width = self.k.div_ceil(ACT_BLOCK);
        &self.blocks[first * width..][..count * width]
    }

    /// The blocks of one quantized row: of term `i % terms` of row `i / terms`.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &'a [[u8; BLOCK_BYTES]] {
        let width = self.k.div_ceil(ACT_BLOCK);
        &self.blocks[row * width..(row + 1) * width]
    }
}

/// Bytes that one quantized row of `k` elements takes.
pub fn quantized_row_bytes(k: usize) -> usize {
    k.div_ceil(ACT_BLOCK) * BLOCK_BYTES
}

/// Rounds each block of [`ACT_BLOCK`] elements to `-127..=127` steps of `scale = amax / 127`.
///
/// A code is `x * (1 / scale)` rounded to nearest, ties to even, all in `f32`, on every instruction
/// set. A block whose scale is below the least normal `f32` becomes zeros. A block with a NaN or an
/// infinity gets a NaN scale and zero codes: the products show it instead of hiding it. The tail of
/// the last block is zeros.
///
/// | argument | shape                           | dtype                        |
/// |----------|---------------------------------|------------------------------|
/// | `x`      | `[rows, k]`                     | `f32`                        |
/// | `out`    | `[rows, quantized_row_bytes(k)]`| bytes, best 64-byte aligned  |
///
/// Rows are independent: callers may divide both slices by rows.
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn quantize_rows(isa: Isa, x: &[f32], k: usize, out: &mut [u8]) {
    assert!(k > 0 && x.len().is_multiple_of(k), "quantize_rows: x is not [rows, k]");
    let len = x.len() / k * quantized_row_bytes(k);
    assert_eq!(out.len(), len, "quantize_rows: out is not [rows, row bytes]");
    dispatch(isa, QuantizeRows { x, k, out: out.as_chunks_mut().0 });
}

/// Rounds each row twice: to codes, and what that left over to codes of its own.
///
/// Row `r` of `x` becomes the rows `2r` and `2r + 1` of `out`, whose sum is `x` to about 16 bits.
/// Products are linear, so the product of `x` is the sum of the products of both.
///
/// | argument | shape                               | dtype                        |
/// |----------|-------------------------------------|------------------------------|
/// | `x`      | `[rows, k]`                         | `f32`                        |
/// | `out`    | `[2 rows, quantized_row_bytes(k)]`  | bytes, best 64-byte aligned  |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn quantize_rows_twice(isa: Isa, x: &[f32], k: usize, out: &mut [u8]) {
    assert!(k > 0 && x.len().is_multiple_of(k), "quantize_rows_twice: x is not [rows, k]");
    let len = x.len() / k * quantized_row_bytes(k) * 2;
    assert_eq!(out.len(), len, "quantize_rows_twice: out is not [2 rows, row bytes]");
    dispatch(isa, QuantizeRowsTwice { x, k, out: out.as_chunks_mut().0 });
}

struct QuantizeRows<'a> {
    x: &'a [f32],
    k: usize,
    out: &'a mut [[u8; BLOCK_BYTES]],
}

struct QuantizeRowsTwice<'a> {
    x: &'a [f32],
    k: usize,
    out: &'a mut [[u8; BLOCK_BYTES]],
}

impl Kernel for QuantizeRowsTwice<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let width = self.k.div_ceil(ACT_BLOCK);
        for (x, out) in self.x.chunks_exact(self.k).zip(self.out.chunks_exact_mut(2 * width)) {
            let (coarse, fine) = out.split_at_mut(width);
            for ((x, coarse), fine) in x.chunks(ACT_BLOCK).zip(coarse).zip(fine) {
                let halves = load_block::<L>(x);
                quantize_block(halves, coarse);
                quantize_block(left_over(halves, coarse), fine);
            }
        }
    }
}

/// What the codes of a block miss of `x`.
#[inline(always)]
fn left_over<L: Lanes>(x: [L; 2], block: &[u8; BLOCK_BYTES]) -> [L; 2] {
    let at = word::SCALE;
    let scale = f32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    // Plain loops: lane operations in a closure may become calls.
    let mut left = x;
    for half in 0..2 {
        let mut codes = [0.0; LANES];
        for (code, byte) in codes.iter_mut().zip(&block[half * LANES..]) {
            *code = f32::from(byte.cast_signed());
        }
        left[half] = L::load(&codes).fma(L::splat(-scale), x[half]);
    }
    left
}

#[inline(always)]
fn load_block<L: Lanes>(x: &[f32]) -> [L; 2] {
    if x.len() == ACT_BLOCK {
        let (lanes, _) = x.as_chunks();
        [L::load(&lanes[0]), L::load(&lanes[1])]
    } else {
        let (low, high) = x.split_at(x.len().min(LANES));
        [L::load_part(low, 0.0), L::load_part(high, 0.0)]
    }
}

impl Kernel for QuantizeRows<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let width = self.k.div_ceil(ACT_BLOCK);
        for (x, out) in self.x.chunks_exact(self.k).zip(self.out.chunks_exact_mut(width)) {
            for (x, out) in x.chunks(ACT_BLOCK).zip(out) {
                quantize_block(load_block::<L>(x), out);
            }
        }
    }
}

#[inline(always)]
fn quantize_block<L: Lanes>(x: [L; 2], out: &mut [u8; BLOCK_BYTES]) {
    let amax = x[0].abs().max(x[1].abs()).peak();
    // Zero times a finite number is zero, times anything else NaN.
    let zero = L::splat(0.0);
    let alarm = x[0].mul(zero).add(x[1].mul(zero)).sum();
    let mut scale = amax / 127.0;
    let mut sums = [0_i32; 2];
    *out = [0; BLOCK_BYTES];
    if !alarm.is_nan() && scale >= f32::MIN_POSITIVE {
        let inverse = L::splat(1.0 / scale);
        let (codes, _) = out.as_chunks_mut();
        for (half, codes) in codes[..2].iter_mut().enumerate() {
            x[half].mul(inverse).store_i8(codes);
            sums[half] = codes.iter().map(|c| i32::from(c.cast_signed())).sum();
        }
    } else {
        scale = if alarm.is_nan() { f32::NAN } else { 0.0 };
    }
    out[word::SCALE..][..4].copy_from_slice(&scale.to_le_bytes());
    for (i, sum) in [sums[0], sums[1], sums[0] + sums[1]].into_iter().enumerate() {
        out[word::SUMS[i]..][..4].copy_from_slice(&sum.to_le_bytes());
        let scaled = scale * sum as f32;
        out[word::SCALED_SUMS[i]..][..4].copy_from_slice(&scaled.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{floats, isas};

    #[test]
    fn equals_the_reference_on_every_isa() {
        for k in [1, 7, 8, 9, 16, 31, 32, 63, 257] {
            let rows = 3;
            let mut x = floats(rows * k, k as u64);
            x[k - 1] = -1e-40;
            let (mut codes, width) = (vec![0; rows * k], k.div_ceil(ACT_BLOCK));
            let mut scales = vec![0.0; rows * width];
            kernels_reference::quantize_rows(&x, k, &mut codes, &mut scales);
            for isa in isas() {
                let mut out = vec![1; rows * quantized_row_bytes(k)];
                quantize_rows(isa, &x, k, &mut out);
                let found = QuantizedRows::new(&out, k);
                for (at, &code) in codes.iter().enumerate() {
                    let (row, c) = (at / k, at % k);
                    let block = &found.row(row)[c / ACT_BLOCK];
                    assert_eq!(block[c % ACT_BLOCK].cast_signed(), code, "{isa:?} {k} {at}");
                    let scale = scales[row * width + c / ACT_BLOCK];
                    assert_eq!(block[word::SCALE..][..4], scale.to_le_bytes(), "{isa:?} {k}");
                }
            }
        }
    }

    #[test]
    fn twice_leaves_a_65000th_of_the_peak() {
        for k in [1, 9, 32, 63, 257] {
            let x = floats(2 * k, k as u64 + 7);
            let mut first = None;
            for isa in isas() {
                let mut out = vec![1; 4 * quantized_row_bytes(k)];
                quantize_rows_twice(isa, &x, k, &mut out);
                let rows = QuantizedRows::new(&out, k);
                let value = |row: usize, c: usize| {
                    let block = &rows.row(row)[c / ACT_BLOCK];
                    let at = word::SCALE;
                    let scale = [block[at], block[at + 1], block[at + 2], block[at + 3]];
                    f32::from_le_bytes(scale) * f32::from(block[c % ACT_BLOCK].cast_signed())
                };
                for (at, &expected) in x.iter().enumerate() {
                    let (row, c) = (at / k, at % k);
                    let block = c / ACT_BLOCK * ACT_BLOCK;
                    let of_block = &x[row * k + block..][..ACT_BLOCK.min(k - block)];
                    let peak = of_block.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
                    let error = (value(2 * row, c) + value(2 * row + 1, c) - expected).abs();
                    // Half a step of a step: 1 / (4 * 127 * 127), and the rounding of the sum.
                    assert!(error <= peak * 1.6e-5, "{isa:?} {k} {at}: {error} of {peak}");
                }
                assert_eq!(first.get_or_insert_with(|| out.clone()), &out, "{isa:?}");
            }
        }
    }

    #[test]
    fn nan_and_infinity_poison_their_block_only() {
        for isa in isas() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = vec![1.0; 64];
                x[17] = bad;
                let mut out = vec![0; quantized_row_bytes(64)];
                quantize_rows(isa, &x, 64, &mut out);
                let scale =
                    |at| f32::from_le_bytes([out[at], out[at + 1], out[at + 2], out[at + 3]]);
                assert!(scale(word::SCALE).is_nan(), "{isa:?} {bad}");
                assert_eq!(scale(BLOCK_BYTES + word::SCALE), 1.0 / 127.0, "{isa:?} {bad}");
            }
        }
    }
}
