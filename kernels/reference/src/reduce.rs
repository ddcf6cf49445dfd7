//! Reductions over the last axis, which becomes an axis of 1, and over all others.

use crate::Real;

/// Writes `out[r] = sum of x[r, ..]`, in index order; 0 for an empty row.
///
/// | argument | shape           |
/// |----------|-----------------|
/// | `x`      | `[rows, width]` |
/// | `out`    | `[rows, 1]`     |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn reduce_sum<T: Real>(x: &[T], width: usize, out: &mut [T]) {
    assert_eq!(x.len(), out.len() * width, "reduce_sum: x is not [rows, width]");
    for (row, out) in out.iter_mut().enumerate() {
        *out = sum(&x[row * width..][..width]);
    }
}

/// Writes `out[r] = mean of x[r, ..]`; NaN for an empty row. Shapes as [`reduce_sum`].
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn reduce_mean<T: Real>(x: &[T], width: usize, out: &mut [T]) {
    assert_eq!(x.len(), out.len() * width, "reduce_mean: x is not [rows, width]");
    for (row, out) in out.iter_mut().enumerate() {
        *out = sum(&x[row * width..][..width]) / T::from_f64(width as f64);
    }
}

/// Writes `out[r] = max of x[r, ..]`, ignoring NaN; negative infinity for an empty row. Shapes as
/// [`reduce_sum`].
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn reduce_max<T: Real>(x: &[T], width: usize, out: &mut [T]) {
    assert_eq!(x.len(), out.len() * width, "reduce_max: x is not [rows, width]");
    for (row, out) in out.iter_mut().enumerate() {
        *out = peak(&x[row * width..][..width]);
    }
}

/// Writes `out[c] = sum of x[.., c]` over all rows, in their order; 0 without rows.
///
/// | argument | shape           |
/// |----------|-----------------|
/// | `x`      | `[rows, width]` |
/// | `out`    | `[width]`       |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn reduce_rows<T: Real>(x: &[T], out: &mut [T]) {
    let width = out.len();
    assert!(width > 0 && x.len().is_multiple_of(width), "reduce_rows: x is not [rows, width]");
    out.fill(T::zero());
    for row in x.chunks_exact(width) {
        for (out, &x) in out.iter_mut().zip(row) {
            *out += x;
        }
    }
}

pub(crate) fn sum<T: Real>(row: &[T]) -> T {
    let mut sum = T::zero();
    for &x in row {
        sum += x;
    }
    sum
}

pub(crate) fn peak<T: Real>(row: &[T]) -> T {
    let mut peak = T::NEG_INFINITY;
    for &x in row {
        peak = x.greater(peak);
    }
    peak
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduces_each_row() {
        let x = [1.0, 5.0, 3.0, -1.0, -5.0, -3.0];
        let mut out = [0.0_f64; 2];
        reduce_sum(&x, 3, &mut out);
        assert_eq!(out, [9.0, -9.0]);
        reduce_mean(&x, 3, &mut out);
        assert_eq!(out, [3.0, -3.0]);
        reduce_max(&x, 3, &mut out);
        assert_eq!(out, [5.0, -1.0]);
    }

    #[test]
    fn sums_over_rows() {
        let mut out = [9.0_f64; 3];
        reduce_rows(&[1.0, 5.0, 3.0, -1.0, -2.0, -4.0], &mut out);
        assert_eq!(out, [0.0, 3.0, -1.0]);
        reduce_rows(&[], &mut out);
        assert_eq!(out, [0.0; 3]);
    }

    #[test]
    fn an_empty_row_gives_the_identity() {
        let mut out = [1.0_f32];
        reduce_sum(&[], 0, &mut out);
        assert_eq!(out, [0.0]);
        reduce_max(&[], 0, &mut out);
        assert_eq!(out, [f32::NEG_INFINITY]);
    }

    #[test]
    fn max_ignores_nan() {
        let mut out = [0.0_f32];
        reduce_max(&[1.0, f32::NAN, 0.5], 3, &mut out);
        assert_eq!(out, [1.0]);
    }
}
