//! Affine-quantized weights in panels of sixteen rows.
//!
//! A panel is `[codes][scales and mins]`, padded to 64 bytes: the codes as [`CodeLayout`] has them,
//! the rest as [`ScaleLayout`]. Rows beyond `n` are zeros.

use std::fmt;

use crate::{
    code_layout::CodeLayout,
    output_columns::PANEL_ROWS,
    scale_layout::{RUN_MAX, ScaleLayout, Scales},
};

/// How an affine format is computed: `y = scale * (code - zero_point) + min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffineDesc {
    /// Bits of a code, `1..=8`: packed as four, five, six or eight.
    pub bits: u8,
    /// Consecutive elements along `k` that share a scale: a multiple of 16.
    pub group: usize,
    /// The code that means zero where there is no min.
    pub zero_point: u8,
    /// Whether groups have a min.
    pub has_min: bool,
    /// What scales and mins are stored as.
    pub scales: Scales,
}

impl AffineDesc {
    /// Bytes of one panel: sixteen rows of `k` codes with their scales.
    pub fn panel_bytes(&self, k: usize) -> usize {
        (self.code_bytes(k) + self.scale_bytes(k)).next_multiple_of(64)
    }

    /// Bytes of `[n, k]` weights: as many panels as `n` rows need.
    pub fn packed_bytes(&self, n: usize, k: usize) -> usize {
        n.div_ceil(PANEL_ROWS) * self.panel_bytes(k)
    }

    /// How codes lie.
    pub(crate) fn codes(&self) -> CodeLayout {
        CodeLayout::new(self.bits, self.group)
    }

    /// Bytes that `k` codes of sixteen rows take.
    pub(crate) fn code_bytes(&self, k: usize) -> usize {
        self.codes().bytes(k)
    }

    /// How scales and mins lie.
    pub(crate) fn scales(&self) -> ScaleLayout {
        ScaleLayout { scales: self.scales, has_min: self.has_min }
    }

    /// Bytes of the scales and mins of `k` elements of sixteen rows.
    pub(crate) fn scale_bytes(&self, k: usize) -> usize {
        self.scales().bytes(k / self.group)
    }

    fn assert_is_sound(&self, k: usize) {
        assert!((1..=8).contains(&self.bits), "AffineDesc: {} bits, not 1 to 8", self.bits);
        let is_whole = self.group > 0 && self.group.is_multiple_of(16);
        assert!(is_whole, "AffineDesc: a group of {} is no multiple of 16", self.group);
        assert!(k > 0 && k.is_multiple_of(self.group), "AffineDesc: k = {k} is not whole groups");
        if let Scales::Product { groups } = self.scales {
            assert!((1..=RUN_MAX).contains(&groups), "AffineDesc: {groups} groups share a factor");
        }
    }
}

/// The canonical form of some rows of weights.
#[derive(Clone, Copy, Debug)]
pub struct AffineRows<'a> {
    /// `[n, k]`
    pub codes: &'a [u8],
    /// `[n, k / group]`
    pub scales: &'a [f32],
    /// `[n, k / group]`, empty if the format has no mins.
    pub mins: &'a [f32],
}

/// Packs rows of weights into panels.
///
/// | argument | shape                      | dtype                        |
/// |----------|----------------------------|------------------------------|
/// | `rows`   | `[n, k]`                   | codes, scales, mins          |
/// | `out`    | `[desc.packed_bytes(n, k)]`| bytes, best 64-byte aligned  |
///
/// Panels are independent: callers may divide both sides at multiples of [`PANEL_ROWS`] rows.
///
/// # Panics
///
/// If the lengths do not fit the shapes.
///
/// # Errors
///
/// [`PackError`] for numbers that the format has no room for; `out` is then in no state to be used.
pub fn pack_affine(
    desc: AffineDesc,
    rows: AffineRows<'_>,
    n: usize,
    k: usize,
    out: &mut [u8],
) -> Result<(), PackError> {
    desc.assert_is_sound(k);
    let groups = k / desc.group;
    let mins_len = if desc.has_min { n * groups } else { 0 };
    assert_eq!(rows.codes.len(), n * k, "pack_affine: codes are not [n, k]");
    assert_eq!(rows.scales.len(), n * groups, "pack_affine: scales are not [n, k / group]");
    assert_eq!(rows.mins.len(), mins_len, "pack_affine: mins do not fit the format");
    assert_eq!(out.len(), desc.packed_bytes(n, k), "pack_affine: out does not fit");
    let limit = u8::MAX >> (8 - desc.bits);
    // All are looked at, many at a time.
    let code = rows.codes.iter().fold(0, |most, code| most.max(*code));
    if code > limit {
        let expected = format!("codes of {} bits", desc.bits);
        return Err(PackError { expected, found: code.into() });
    }
    out.fill(0);
    for (panel, out) in out.chunks_exact_mut(desc.panel_bytes(k)).enumerate() {
        let first = panel * PANEL_ROWS;
        for lane in 0..PANEL_ROWS.min(n - first) {
            let row = first + lane;
            let (codes, scales) = out.split_at_mut(desc.code_bytes(k));
            let scales = &mut scales[..desc.scale_bytes(k)];
            desc.codes().pack(&rows.codes[row * k..][..k], lane, codes);
            let of_row = row * groups..(row + 1) * groups;
            desc.scales().pack(&rows.scales[of_row.clone()], 0, lane, scales)?;
            if desc.has_min {
                desc.scales().pack(&rows.mins[of_row], 1, lane, scales)?;
            }
        }
    }
    Ok(())
}

/// A number that a format has no room for.
#[derive(Clone, Debug, PartialEq)]
pub struct PackError {
    /// What the format has room for.
    pub expected: String,
    /// The number: of those that share a factor the first.
    pub found: f32,
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found {:?}", self.expected, self.found)
    }
}

impl std::error::Error for PackError {}

/// Packed weights, `[n, k]`.
#[derive(Clone, Copy, Debug)]
pub struct AffinePanels<'a> {
    pub(crate) desc: AffineDesc,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) bytes: &'a [u8],
}

impl<'a> AffinePanels<'a> {
    /// Weights as [`pack_affine`] wrote them. Fastest if `bytes` are 64-byte aligned.
    ///
    /// # Panics
    ///
    /// If the descriptor is none that `pack_affine` takes, or `bytes` do not fit it.
    pub fn new(desc: AffineDesc, n: usize, k: usize, bytes: &'a [u8]) -> Self {
        desc.assert_is_sound(k);
        assert_eq!(bytes.len(), desc.packed_bytes(n, k), "AffinePanels: bytes do not fit");
        Self { desc, n, k, bytes }
    }

    /// Rows of the weights: columns of the product.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Elements of a row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The codes of a panel, and its scales with mins.
    #[inline(always)]
    pub(crate) fn panel(&self, panel: usize) -> (&'a [u8], &'a [u8]) {
        let size = self.desc.panel_bytes(self.k);
        let (codes, rest) =
            self.bytes[panel * size..][..size].split_at(self.desc.code_bytes(self.k));
        (codes, &rest[..self.desc.scale_bytes(self.k)])
    }
}

/// Writes row `row` of packed weights as numbers: `scale * (code - zero_point) + min`.
///
/// | argument | shape |
/// |----------|-------|
/// | `out`    | `[k]` |
///
/// # Panics
///
/// If `row` is not below `n`, or `out` is not `[k]`.
pub fn unpack_affine_row(w: AffinePanels<'_>, row: usize, out: &mut [f32]) {
    let desc = w.desc;
    assert!(row < w.n, "unpack_affine_row: row {row} of {}", w.n);
    assert_eq!(out.len(), w.k, "unpack_affine_row: out is not [k]");
    let (codes, scales) = w.panel(row / PANEL_ROWS);
    let lane = row % PANEL_ROWS;
    let mut group_codes = codes.chunks_exact(desc.code_bytes(desc.group));
    let layout = desc.scales();
    let run = layout.run().min(w.k / desc.group);
    let runs = scales.chunks(layout.factor_bytes() + run * layout.group_bytes());
    for (out, scales) in out.chunks_mut(run * desc.group).zip(runs) {
        let (factors, groups) = scales.split_at(layout.factor_bytes());
        let groups = groups.chunks_exact(layout.group_bytes());
        for ((out, group), codes) in
            out.chunks_exact_mut(desc.group).zip(groups).zip(&mut group_codes)
        {
            let scale = layout.take(factors, group, 0, lane);
            let min = if desc.has_min { layout.take(factors, group, 1, lane) } else { 0.0 };
            desc.codes().unpack(codes, lane, |at, code| {
                let code = i32::from(code) - i32::from(desc.zero_point);
                out[at] = scale * code as f32 + min;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bits, codes, exact_scales};

    #[test]
    fn a_row_comes_back_as_the_numbers_that_it_stands_for() {
        use Scales::{F16, F32, Product};
        #[rustfmt::skip]
        let formats = [
            (4, 32,   8, false, F16),
            (4, 48,   0, true,  F32),
            (2, 16,   1, true,  F16),
            (5, 32,  16, false, F16),
            (6, 16,  32, false, F32),
            (8, 32, 128, true,  F16),
            (4, 32,   0, true,  Product { groups: 8 }),
            (6, 16,  32, false, Product { groups: 2 }),
        ];
        for (format_bits, group, zero_point, has_min, scales) in formats {
            let desc = AffineDesc { bits: format_bits, group, zero_point, has_min, scales };
            let (n, k) = (19, 3 * group);
            let codes = codes(n * k, format_bits, 1);
            let scales = exact_scales(desc.scales, n, 3, 2);
            let mins = exact_scales(desc.scales, n, if has_min { 3 } else { 0 }, 3);
            let mut packed = vec![0; desc.packed_bytes(n, k)];
            let rows = AffineRows { codes: &codes, scales: &scales, mins: &mins };
            pack_affine(desc, rows, n, k, &mut packed).unwrap();
            let panels = AffinePanels::new(desc, n, k, &packed);
            for row in 0..n {
                let expected: Vec<f32> = (0..k)
                    .map(|i| {
                        let at = row * 3 + i / group;
                        let code = f32::from(codes[row * k + i]) - f32::from(zero_point);
                        scales[at] * code + if has_min { mins[at] } else { 0.0 }
                    })
                    .collect();
                let mut found = vec![f32::NAN; k];
                unpack_affine_row(panels, row, &mut found);
                assert_eq!(bits(&found), bits(&expected), "{desc:?} row {row}");
            }
        }
    }
}
