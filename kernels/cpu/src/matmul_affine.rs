//! Matrix product of quantized activations with affine-quantized weights.
//!
//! One output is, for each segment along `k` in order, with exact integer sums inside:
//! `acc = fma(dot - zero_point * sum, scale * x_scale, acc)`, then with mins
//! `acc = fma(min, x_scale * sum, acc)`. A segment is 32 elements, one block of activations, where
//! groups are whole blocks, else 16. The order is that of the format, never of the tile.

use crate::{
    affine_panels::AffinePanels,
    code_layout::{CodeLayout, PLANE_BYTES, QUAD_BYTES, segment_len},
    isa::{Isa, Kernel, dispatch, dispatch_amx},
    lanes::{LANES, Lanes},
    matmul_tiles::{self, TileProduct},
    output_columns::{OutputColumns, PANEL_ROWS},
    quantize_rows::{ACT_BLOCK, BLOCK_BYTES, QuantizedRows, word},
    scale_reader::ScaleReader,
};

/// Writes `out[r, j] = sum over i of x[r, i] * w[j, i]` for the columns `j` of `out`.
///
/// | argument | shape       | dtype                                         |
/// |----------|-------------|-----------------------------------------------|
/// | `w`      | `[n, k]`    | see [`crate::pack_affine`]                    |
/// | `x`      | `[rows, k]` | see [`crate::quantize_rows`]                  |
/// | `out`    | `[rows, n]` | `f32`; the view's columns are written         |
///
/// Callers divide the work over threads by columns. An output's bits depend on its row of `x` and
/// its row of `w` only, and are the same on every instruction set.
///
/// # Panics
///
/// If the shapes do not fit, or the view begins or ends inside a panel of [`PANEL_ROWS`] columns
/// (the last one may be short).
pub fn matmul_affine(
    isa: Isa,
    w: AffinePanels<'_>,
    x: QuantizedRows<'_>,
    out: &mut OutputColumns<'_>,
) {
    assert_eq!(w.k, x.k(), "matmul_affine: weights and activations differ in k");
    out.assert_fits("matmul_affine", x.rows(), w.n);
    let is_paired = w.desc.group.is_multiple_of(ACT_BLOCK);
    match (w.desc.bits, is_paired) {
        (..=4, true) => product::<4, true>(isa, w, x, out),
        (..=4, false) => product::<4, false>(isa, w, x, out),
        (5, true) => product::<5, true>(isa, w, x, out),
        (5, false) => product::<5, false>(isa, w, x, out),
        (6, true) => product::<6, true>(isa, w, x, out),
        (6, false) => product::<6, false>(isa, w, x, out),
        (_, true) => product::<8, true>(isa, w, x, out),
        (_, false) => product::<8, false>(isa, w, x, out),
    }
}

/// The product for codes of 4 bits or less, 5, 6, or 8; `PAIRED` says that a segment is two
/// halves of a block.
fn product<const BITS: u8, const PAIRED: bool>(
    isa: Isa,
    w: AffinePanels<'_>,
    x: QuantizedRows<'_>,
    out: &mut OutputColumns<'_>,
) {
    let quantized_rows = x.rows() * x.terms();
    #[cfg(target_arch = "x86_64")]
    let first = if isa == Isa::Amx && matmul_tiles::takes(w.desc) {
        let rows = quantized_rows / matmul_tiles::TILE_ROWS * matmul_tiles::TILE_ROWS;
        if rows > 0 {
            dispatch_amx(TileProduct::<BITS, PAIRED> { w, x, out, rows });
        }
        rows
    } else {
        0
    };
    #[cfg(not(target_arch = "x86_64"))]
    let first = 0;
    if first < quantized_rows {
        dispatch(isa, Product::<BITS, PAIRED> { w, x, out, first });
    }
}

/// The product from quantized row `first` on.
struct Product<'a, 'b, const BITS: u8, const PAIRED: bool> {
    w: AffinePanels<'a>,
    x: QuantizedRows<'a>,
    out: &'a mut OutputColumns<'b>,
    first: usize,
}

impl<const BITS: u8, const PAIRED: bool> Kernel for Product<'_, '_, BITS, PAIRED> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self) {
        let columns = self.out.columns();
        for panel in columns.start / PANEL_ROWS..columns.end.div_ceil(PANEL_ROWS) {
            let quantized_rows = self.x.rows() * self.x.terms();
            // A row of two terms needs both in one tile.
            let tile_rows = L::TILE_ROWS.max(self.x.terms());
            let mut row = self.first;
            while row < quantized_rows {
                let left = quantized_rows - row;
                row += if left >= 8 && tile_rows >= 8 {
                    self.tile::<L, 8>(panel, row)
                } else if left >= 4 && tile_rows >= 4 {
                    self.tile::<L, 4>(panel, row)
                } else if left >= 2 && tile_rows >= 2 {
                    self.tile::<L, 2>(panel, row)
                } else {
                    self.tile::<L, 1>(panel, row)
                };
            }
        }
    }
}

impl<const BITS: u8, const PAIRED: bool> Product<'_, '_, BITS, PAIRED> {
    /// Computes `R` quantized rows of one panel's columns and adds the terms of each row; returns
    /// `R`.
    #[inline(always)]
    fn tile<L: Lanes, const R: usize>(&mut self, panel: usize, row: usize) -> usize {
        let desc = self.w.desc;
        let (codes, scales) = self.w.panel(panel);
        // One length for all: an index is checked once, not for each row.
        let width = self.x.k().div_ceil(ACT_BLOCK);
        let x: [_; R] = std::array::from_fn(|r| &self.x.row(row + r)[..width]);
        let mut sums = [L::splat(0.0); R];
        let mut segment = 0;
        let mut scales = ScaleReader::<L>::new(desc.scales(), scales);
        for codes in codes.chunks_exact(desc.code_bytes(desc.group)) {
            let (scale, min) = scales.next();
            for codes in codes.chunks_exact(Segments::<BITS, PAIRED>::LAYOUT.segment_bytes()) {
                let block = if PAIRED { segment } else { segment / 2 };
                // Which of the block's sums: that of both halves, or of one.
                let part = if PAIRED { 2 } else { segment % 2 };
                let mut at = [&EMPTY; R];
                for r in 0..R {
                    at[r] = &x[r][block];
                }
                let x = at;
                let dots = Self::dots::<L, R>(desc.zero_point, codes, x, part);
                for r in 0..R {
                    let factor = scale.mul(L::splat(float(x[r], word::SCALE)));
                    sums[r] = L::from_ints(dots[r]).fma(factor, sums[r]);
                }
                if let Some(min) = min {
                    for r in 0..R {
                        let sum = L::splat(float(x[r], word::SCALED_SUMS[part]));
                        sums[r] = min.fma(sum, sums[r]);
                    }
                }
                segment += 1;
            }
        }
        let terms = self.x.terms();
        for (r, terms_of_row) in sums.chunks(terms).enumerate() {
            let mut sum = terms_of_row[0];
            for term in &terms_of_row[1..] {
                sum = sum.add(*term);
            }
            store_row(self.out, self.w.n, panel, row / terms + r, sum);
        }
        R
    }

    /// The integer sums of one segment: `dot(codes - zero_point, x)` for `R` rows of `x`.
    #[inline(always)]
    fn dots<L: Lanes, const R: usize>(
        zero_point: u8,
        codes: &[u8],
        x: [&[u8; BLOCK_BYTES]; R],
        part: usize,
    ) -> [L::Ints; R] {
        let bias = if BITS == 8 { L::BYTE_BIAS } else { 0 };
        let correction = bias - i32::from(zero_point);
        let mut dots: [_; R] = [L::ints(0); R];
        for r in 0..R {
            let sum = i32::from_le_bytes(four(x[r], word::SUMS[part]));
            dots[r] = L::ints(if correction == 0 { 0 } else { correction * sum });
        }
        let first = if part == 1 { LANES } else { 0 };
        let (low, planes) = codes.split_at(Segments::<BITS, PAIRED>::LAYOUT.low_bytes());
        let planes = planes.as_chunks::<PLANE_BYTES>().0;
        for (vector, codes) in low.as_chunks::<QUAD_BYTES>().0.iter().enumerate() {
            let packed = L::codes(codes);
            if BITS > 6 {
                for r in 0..R {
                    let x = four(x[r], first + vector * 4);
                    dots[r] = L::dot_bytes(dots[r], packed, x);
                }
                continue;
            }
            let (quad, at) = (vector * 2, first + vector * 8);
            let low =
                Segments::<BITS, PAIRED>::with_planes::<L>(L::low_nibbles(packed), planes, quad);
            let high = Segments::<BITS, PAIRED>::with_planes::<L>(
                L::high_nibbles(packed),
                planes,
                quad + 1,
            );
            for r in 0..R {
                dots[r] = L::dot_small(dots[r], low, four(x[r], at));
            }
            for r in 0..R {
                dots[r] = L::dot_small(dots[r], high, four(x[r], at + 4));
            }
        }
        dots
    }
}

/// How the codes of a segment lie, and how they are read.
pub(crate) struct Segments<const BITS: u8, const PAIRED: bool>;

impl<const BITS: u8, const PAIRED: bool> Segments<BITS, PAIRED> {
    /// How codes lie.
    pub(crate) const LAYOUT: CodeLayout = CodeLayout::new(BITS, segment_len(PAIRED));

    /// Writes the codes of a segment less the zero point as bytes, `[quads]`.
    #[inline(always)]
    pub(crate) fn widen<L: Lanes>(zero_point: u8, codes: &[u8], out: &mut [[u8; QUAD_BYTES]]) {
        let (low, planes) = codes.split_at(Self::LAYOUT.low_bytes());
        let planes = planes.as_chunks::<PLANE_BYTES>().0;
        for (vector, codes) in low.as_chunks::<QUAD_BYTES>().0.iter().enumerate() {
            let packed = L::codes(codes);
            if BITS > 6 {
                L::store_codes(packed, zero_point, &mut out[vector]);
                continue;
            }
            let quad = vector * 2;
            let low = Self::with_planes::<L>(L::low_nibbles(packed), planes, quad);
            let high = Self::with_planes::<L>(L::high_nibbles(packed), planes, quad + 1);
            L::store_codes(low, zero_point, &mut out[quad]);
            L::store_codes(high, zero_point, &mut out[quad + 1]);
        }
    }

    /// The codes of a quad, from their nibbles and the planes of the segment.
    #[inline(always)]
    fn with_planes<L: Lanes>(
        nibbles: L::Codes,
        planes: &[[u8; PLANE_BYTES]],
        quad: usize,
    ) -> L::Codes {
        match BITS {
            5 => L::add_where(nibbles, planes[quad], 16),
            6 => {
                let fifth = L::add_where(nibbles, planes[quad * 2], 16);
                L::add_where(fifth, planes[quad * 2 + 1], 32)
            }
            _ => nibbles,
        }
    }
}

/// Writes one row of a panel's columns, of `n` in all.
#[inline(always)]
pub(crate) fn store_row<L: Lanes>(
    out: &mut OutputColumns<'_>,
    n: usize,
    panel: usize,
    row: usize,
    sums: L,
) {
    let first = panel * PANEL_ROWS;
    let out = out.row_mut(row, first..(first + PANEL_ROWS).min(n));
    match out.first_chunk_mut() {
        Some(out) => sums.store(out),
        None => sums.store_part(out),
    }
}

/// The word that starts at byte `at`, a multiple of four.
#[inline(always)]
fn four(block: &[u8; BLOCK_BYTES], at: usize) -> [u8; 4] {
    // Not byte by byte: that is four loads.
    block.as_chunks().0[at / 4]
}

#[inline(always)]
fn float(block: &[u8; BLOCK_BYTES], at: usize) -> f32 {
    f32::from_le_bytes(four(block, at))
}

const EMPTY: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

#[cfg(test)]
mod tests {
    use kernels_reference as reference;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        AffineDesc, AffineRows, Scales, pack_affine, quantize_rows, quantized_row_bytes,
        testing::{bits, codes, exact_scales, floats, isas},
    };

    /// Canonical weights and activations of one product, and their packed forms.
    struct Case {
        desc: AffineDesc,
        shape: [usize; 3],
        codes: Vec<u8>,
        scales: Vec<f32>,
        mins: Vec<f32>,
        x: Vec<f32>,
        panels: Vec<u8>,
        acts: Vec<u8>,
    }

    impl Case {
        fn new(desc: AffineDesc, [rows, n, k]: [usize; 3], seed: u64) -> Self {
            let groups = k / desc.group;
            let codes = codes(n * k, desc.bits, seed);
            let scales = exact_scales(desc.scales, n, groups, seed + 1);
            let mins_len = if desc.has_min { groups } else { 0 };
            let mins = exact_scales(desc.scales, n, mins_len, seed + 2);
            let x = floats(rows * k, seed + 3);
            let mut panels = vec![0; desc.packed_bytes(n, k)];
            let canonical = AffineRows { codes: &codes, scales: &scales, mins: &mins };
            pack_affine(desc, canonical, n, k, &mut panels).unwrap();
            let mut acts = vec![0; rows * quantized_row_bytes(k)];
            quantize_rows(Isa::Scalar, &x, k, &mut acts);
            Self { desc, shape: [rows, n, k], codes, scales, mins, x, panels, acts }
        }

        fn run(&self, isa: Isa, rows: std::ops::Range<usize>, splits: &[usize]) -> Vec<f32> {
            let [_, n, k] = self.shape;
            let w = AffinePanels::new(self.desc, n, k, &self.panels);
            let x = QuantizedRows::new(&self.acts, k).select(rows.clone());
            let mut out = vec![f32::NAN; rows.len() * n];
            let mut rest = OutputColumns::new(&mut out, n);
            for &split in splits {
                let (mut part, right) = rest.split_at(split);
                matmul_affine(isa, w, x, &mut part);
                rest = right;
            }
            matmul_affine(isa, w, x, &mut rest);
            out
        }

        /// Checks against the decoded product in double precision, relative to the terms' sum.
        fn check(&self, isa: Isa) {
            let [rows, n, k] = self.shape;
            let blocks = k.div_ceil(ACT_BLOCK);
            let (mut x_codes, mut x_scales) = (vec![0; rows * k], vec![0.0; rows * blocks]);
            reference::quantize_rows(&self.x, k, &mut x_codes, &mut x_scales);
            let w = reference::AffineRef {
                codes: &self.codes,
                scales: &self.scales,
                mins: self.desc.has_min.then_some(&self.mins),
                zero_point: self.desc.zero_point,
                group: self.desc.group,
            };
            let mut expected = vec![0.0_f64; rows * n];
            reference::matmul_affine(&x_codes, &x_scales, &w, self.shape, &mut expected);
            for (at, found) in self.run(isa, 0..rows, &[]).into_iter().enumerate() {
                let (row, column) = (at / n, at % n);
                let terms: f64 = (0..k)
                    .map(|i| {
                        let scale = f64::from(x_scales[row * blocks + i / ACT_BLOCK]);
                        let x = scale * f64::from(x_codes[row * k + i]);
                        (x * w.weight::<f64>(column * k + i)).abs()
                    })
                    .sum();
                let error = (f64::from(found) - expected[at]).abs();
                assert!(error <= 1e-5 * terms, "{isa:?} {:?} {:?}: {found}", self.desc, self.shape);
            }
        }
    }

    /// The formats of the project: bits, group, zero point, min, scales.
    fn formats() -> impl Iterator<Item = AffineDesc> {
        use Scales::{F16, F32, Product};
        #[rustfmt::skip]
        let rows = [
            (4, 32,   8, false, F16),
            (4, 32,   0, true,  F16),
            (4, 32,   0, true,  F32),
            (2, 16,   0, true,  F32),
            (5, 32,  16, false, F16),
            (5, 32,   0, true,  F32),
            (6, 16,  32, false, F32),
            (6, 64,   0, true,  F16),
            (5, 16,  16, false, F16),
            (8, 32, 128, false, F16),
            (8, 16,   0, true,  F32),
            (4, 64,   8, false, F16),
            (4, 48,   8, true,  F16),
            (7, 128, 64, false, F32),
            (4, 32,   0, true,  Product { groups: 8 }),
            (6, 16,  32, false, Product { groups: 16 }),
            (5, 32,   0, true,  Product { groups: 2 }),
        ];
        rows.into_iter().map(|(bits, group, zero_point, has_min, scales)| AffineDesc {
            bits,
            group,
            zero_point,
            has_min,
            scales,
        })
    }

    #[test]
    fn is_the_decoded_product_with_equal_bits_on_every_isa() {
        for desc in formats() {
            for (rows, n, groups) in [
                (0, 16, 1),
                (1, 1, 1),
                (1, 7, 3),
                (2, 16, 2),
                (9, 63, 5),
                (17, 40, 3),
                (33, 90, 10),
                (150, 17, 3),
            ] {
                let case = Case::new(desc, [rows, n, groups * desc.group], 11);
                case.check(Isa::Scalar);
                let first = case.run(Isa::Scalar, 0..rows, &[]);
                for isa in isas() {
                    let found = case.run(isa, 0..rows, &[]);
                    assert_eq!(bits(&found), bits(&first), "{isa:?} {desc:?} {:?}", case.shape);
                }
            }
        }
    }

    #[test]
    fn two_terms_are_nearly_the_unrounded_product() {
        for desc in formats() {
            let (rows, n, k) = (21, 40, desc.group * 3);
            let case = Case::new(desc, [rows, n, k], 5);
            let mut acts = vec![0; 2 * rows * quantized_row_bytes(k)];
            crate::quantize_rows_twice(Isa::Scalar, &case.x, k, &mut acts);
            let w = AffinePanels::new(desc, n, k, &case.panels);
            let x = QuantizedRows::twice(&acts, k);
            let product = |isa: Isa, x: QuantizedRows<'_>| {
                let mut out = vec![f32::NAN; x.rows() * n];
                matmul_affine(isa, w, x, &mut OutputColumns::new(&mut out, n));
                out
            };
            let canonical = reference::AffineRef {
                codes: &case.codes,
                scales: &case.scales,
                mins: desc.has_min.then_some(&case.mins),
                zero_point: desc.zero_point,
                group: desc.group,
            };
            let found = product(Isa::Scalar, x);
            for (at, &found) in found.iter().enumerate() {
                let (row, column) = (at / n, at % n);
                let term = |i: usize| {
                    f64::from(case.x[row * k + i]) * canonical.weight::<f64>(column * k + i)
                };
                let expected: f64 = (0..k).map(term).sum();
                let largest: f64 = (0..k).map(|i| term(i).abs()).sum();
                let error = (f64::from(found) - expected).abs();
                assert!(error <= 1e-4 * largest, "{desc:?}: {found} for {expected}");
            }
            for isa in isas() {
                assert_eq!(bits(&product(isa, x)), bits(&found), "{isa:?} {desc:?}");
                let alone = product(isa, x.select(3..4));
                assert_eq!(bits(&alone), bits(&found[3 * n..][..n]), "{isa:?} {desc:?}");
            }
        }
    }

    #[test]
    fn extreme_codes_do_not_saturate() {
        for desc in formats() {
            let (rows, n, k) = (2, 16, desc.group * 2);
            let mut case = Case::new(desc, [rows, n, k], 1);
            case.codes.fill(u8::MAX >> (8 - desc.bits));
            case.x.iter_mut().enumerate().for_each(|(i, x)| *x = if i < k { 1.0 } else { -1.0 });
            let canonical =
                AffineRows { codes: &case.codes, scales: &case.scales, mins: &case.mins };
            pack_affine(desc, canonical, n, k, &mut case.panels).unwrap();
            quantize_rows(Isa::Scalar, &case.x, k, &mut case.acts);
            isas().for_each(|isa| case.check(isa));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_row_has_the_same_bits_alone_and_among_others(
            seed in any::<u64>(), format in 0..17_usize, rows in 1..40_usize, n in 1..150_usize,
            groups in 1..6_usize, split in 0..6_usize,
        ) {
            let desc = formats().nth(format).unwrap();
            let case = Case::new(desc, [rows, n, groups * desc.group], seed >> 8);
            let splits = [(split * PANEL_ROWS).min(n / PANEL_ROWS * PANEL_ROWS)];
            for isa in isas() {
                let together = case.run(isa, 0..rows, &splits);
                for row in 0..rows {
                    let alone = case.run(isa, row..row + 1, &[]);
                    prop_assert_eq!(bits(&alone), bits(&together[row * n..][..n]));
                }
            }
        }
    }
}
