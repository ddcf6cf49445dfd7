//! Matrix product over the rows of both factors: what a weight's gradient is.

use crate::{
    float_panels::FloatPanels,
    isa::{Isa, dispatch},
    matmul::Product,
    output_columns::OutputColumns,
};

/// Writes `out[i, j] = sum over r of a[r, i] * b[r, j]` for the columns `j` of `out`, in the order of `r`.
///
/// | argument | shape                                                     |
/// |----------|-----------------------------------------------------------|
/// | `b`      | `[rows, k]`, as [`crate::pack_columns`] packs its columns |
/// | `a`      | `[rows, n]`, packed likewise                              |
/// | `out`    | `[n, k]`; the view's columns are written                  |
///
/// Callers divide the work over threads by columns. The bits are the same on every instruction set.
///
/// # Panics
///
/// As [`crate::matmul`].
pub fn matmul_rows(
    isa: Isa,
    b: FloatPanels<'_, f32>,
    a: FloatPanels<'_, f32>,
    out: &mut OutputColumns<'_>,
) {
    assert_eq!((a.n, a.k), (out.rows(), b.k), "matmul_rows: a is not [rows, n]");
    out.assert_fits("matmul_rows", out.rows(), b.n);
    dispatch(isa, Product::<f32, true> { w: b, x: a.values, out });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        PANEL_ROWS, pack_columns,
        testing::{bits, doubles, floats, isas},
    };

    fn run(isa: Isa, a: &[f32], b: &[f32], [rows, n, k]: [usize; 3], split: usize) -> Vec<f32> {
        let packed = |x: &[f32], n: usize| {
            let mut panels = vec![f32::NAN; n.next_multiple_of(PANEL_ROWS) * rows];
            pack_columns(x, n, rows, 0, &mut panels);
            panels
        };
        let (a, b) = (packed(a, n), packed(b, k));
        let (a, b) = (FloatPanels::new(&a, n, rows), FloatPanels::new(&b, k, rows));
        let mut out = vec![f32::NAN; n * k];
        let (mut left, mut right) = OutputColumns::new(&mut out, k).split_at(split);
        matmul_rows(isa, b, a, &mut left);
        matmul_rows(isa, b, a, &mut right);
        out
    }

    #[test]
    fn is_the_product_with_equal_bits_for_every_isa_and_split() {
        for [rows, n, k] in
            [[0, 3, 5], [1, 1, 1], [7, 2, 16], [9, 3, 17], [63, 17, 63], [257, 29, 40]]
        {
            let (a, b) = (floats(rows * n, 1), floats(rows * k, 2));
            let mut expected = vec![f64::NAN; n * k];
            let (wide_a, wide_b) = (doubles(&a), doubles(&b));
            kernels_reference::matmul_rows(&wide_a, &wide_b, [rows, n, k], &mut expected);
            let first = run(Isa::Scalar, &a, &b, [rows, n, k], 0);
            for (found, expected) in first.iter().zip(expected) {
                let error = (f64::from(*found) - expected).abs();
                assert!(error <= 4e-6 * rows as f64, "{rows} {n} {k}: {found}, not {expected}");
            }
            for isa in isas() {
                let split = k / 2 / PANEL_ROWS * PANEL_ROWS;
                let found = run(isa, &a, &b, [rows, n, k], split);
                assert_eq!(bits(&found), bits(&first), "{isa:?} {rows} {n} {k}");
            }
        }
    }
}
