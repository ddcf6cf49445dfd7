//! Matrix product over the rows of both factors: what a weight's gradient is.

use crate::Real;

/// Writes `out[i, j] = sum over r of a[r, i] * b[r, j]`, summed in the order of `r`; 0 without rows.
///
/// | argument | shape       |
/// |----------|-------------|
/// | `a`      | `[rows, n]` |
/// | `b`      | `[rows, k]` |
/// | `out`    | `[n, k]`    |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn matmul_rows<T: Real>(a: &[T], b: &[T], [rows, n, k]: [usize; 3], out: &mut [T]) {
    assert_eq!(a.len(), rows * n, "matmul_rows: a is not [rows, n]");
    assert_eq!(b.len(), rows * k, "matmul_rows: b is not [rows, k]");
    assert_eq!(out.len(), n * k, "matmul_rows: out is not [n, k]");
    out.fill(T::zero());
    for r in 0..rows {
        let b = &b[r * k..][..k];
        for i in 0..n {
            let factor = a[r * n + i];
            for (out, &b) in out[i * k..][..k].iter_mut().zip(b) {
                *out += factor * b;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_outer_products_of_rows() {
        // a = [1 2; 3 4], b = [1 0 1; 0 1 1]
        let mut out = [f64::NAN; 6];
        let b = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0];
        matmul_rows(&[1.0, 2.0, 3.0, 4.0], &b, [2, 2, 3], &mut out);
        assert_eq!(out, [1.0, 3.0, 4.0, 2.0, 4.0, 6.0]);
        matmul_rows(&[], &[], [0, 2, 3], &mut out);
        assert_eq!(out, [0.0; 6]);
    }
}
