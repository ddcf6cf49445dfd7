//! Float weights in panels of sixteen rows: `[k][16]`, rows beyond `n` zeros.

use crate::{lanes::Element, output_columns::PANEL_ROWS};

/// Packs rows of weights into panels.
///
/// | argument | shape                                |
/// |----------|--------------------------------------|
/// | `w`      | `[n, k]`                             |
/// | `out`    | `[n rounded up to 16, k]`            |
///
/// Panels are independent: callers may divide both sides at multiples of [`PANEL_ROWS`] rows.
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn pack_float<W: Element>(w: &[W], n: usize, k: usize, out: &mut [W]) {
    assert_eq!(w.len(), n * k, "pack_float: w is not [n, k]");
    let len = n.next_multiple_of(PANEL_ROWS) * k;
    assert_eq!(out.len(), len, "pack_float: out is not [n rounded up, k]");
    if k == 0 {
        return;
    }
    for (panel, out) in out.chunks_exact_mut(PANEL_ROWS * k).enumerate() {
        for (lane, row) in (panel * PANEL_ROWS..(panel + 1) * PANEL_ROWS).enumerate() {
            for i in 0..k {
                out[i * PANEL_ROWS + lane] = if row < n { w[row * k + i] } else { W::ZERO };
            }
        }
    }
}

/// Packs columns of weights into panels: [`pack_float`] of the transpose of `w`.
///
/// | argument | shape                                                |
/// |----------|------------------------------------------------------|
/// | `w`      | `[k, n]`                                             |
/// | `out`    | `[panels, k, 16]`: those of `n` from `first` on      |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn pack_columns(w: &[f32], n: usize, k: usize, first: usize, out: &mut [f32]) {
    assert_eq!(w.len(), n * k, "pack_columns: w is not [k, n]");
    assert!(out.len().is_multiple_of((PANEL_ROWS * k).max(1)), "pack_columns: not whole panels");
    if k == 0 {
        return;
    }
    for (panel, out) in (first..).zip(out.chunks_exact_mut(PANEL_ROWS * k)) {
        let start = (panel * PANEL_ROWS).min(n);
        let width = (n - start).min(PANEL_ROWS);
        for (row, out) in w.chunks_exact(n).zip(out.chunks_exact_mut(PANEL_ROWS)) {
            out[..width].copy_from_slice(&row[start..][..width]);
            out[width..].fill(0.0);
        }
    }
}

/// Packed weights, `[n, k]`.
#[derive(Clone, Copy, Debug)]
pub struct FloatPanels<'a, W> {
    pub(crate) values: &'a [W],
    pub(crate) n: usize,
    pub(crate) k: usize,
}

impl<'a, W: Element> FloatPanels<'a, W> {
    /// Weights as [`pack_float`] wrote them.
    ///
    /// # Panics
    ///
    /// If `values` do not fit the shape.
    pub fn new(values: &'a [W], n: usize, k: usize) -> Self {
        let len = n.next_multiple_of(PANEL_ROWS) * k;
        assert_eq!(values.len(), len, "FloatPanels: values do not fit");
        Self { values, n, k }
    }

    /// The columns of a panel: `k` times sixteen rows.
    #[inline(always)]
    pub(crate) fn panel(&self, panel: usize) -> &'a [[W; PANEL_ROWS]] {
        let size = PANEL_ROWS * self.k;
        self.values[panel * size..][..size].as_chunks().0
    }
}

/// Writes row `row` of packed weights as `f32`, exactly.
///
/// | argument | shape |
/// |----------|-------|
/// | `out`    | `[k]` |
///
/// # Panics
///
/// If `row` is not below `n`, or `out` is not `[k]`.
pub fn unpack_float_row<W: Element>(w: FloatPanels<'_, W>, row: usize, out: &mut [f32]) {
    assert!(row < w.n, "unpack_float_row: row {row} of {}", w.n);
    assert_eq!(out.len(), w.k, "unpack_float_row: out is not [k]");
    let lane = row % PANEL_ROWS;
    for (column, out) in w.panel(row / PANEL_ROWS).iter().zip(out) {
        *out = column[lane].to_f32();
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::testing::{bits, floats};

    #[test]
    fn columns_are_the_rows_of_the_transpose() {
        for (n, k) in [(1, 1), (16, 7), (37, 9), (3, 0)] {
            let w = floats(n * k, 2);
            let turned: Vec<f32> =
                (0..k).flat_map(|i| w.iter().copied().skip(i).step_by(k)).collect();
            let mut expected = vec![f32::NAN; n.next_multiple_of(PANEL_ROWS) * k];
            pack_float(&w, n, k, &mut expected);
            let mut found = vec![f32::NAN; expected.len()];
            for (panel, out) in found.chunks_mut((PANEL_ROWS * k).max(1)).enumerate() {
                pack_columns(&turned, n, k, panel, out);
            }
            assert_eq!(bits(&found), bits(&expected), "{n} {k}");
        }
    }

    #[test]
    fn a_row_comes_back_exactly() {
        for (n, k) in [(1, 1), (16, 7), (37, 9), (3, 0)] {
            let w: Vec<f16> = floats(n * k, 1).into_iter().map(f16::from_f32).collect();
            let mut packed = vec![f16::ZERO; n.next_multiple_of(PANEL_ROWS) * k];
            pack_float(&w, n, k, &mut packed);
            let panels = FloatPanels::new(&packed, n, k);
            for row in 0..n {
                let expected: Vec<f32> = w[row * k..][..k].iter().map(|x| x.to_f32()).collect();
                let mut found = vec![f32::NAN; k];
                unpack_float_row(panels, row, &mut found);
                assert_eq!(bits(&found), bits(&expected), "{n} {k} row {row}");
            }
        }
    }
}
