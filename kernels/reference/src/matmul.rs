//! Matrix product with a transposed second factor, as weights are stored.

use crate::Real;

/// Writes `out[r, j] = sum over i of x[r, i] * w[j, i]`, summed in the order of `i`.
///
/// | argument | shape       |
/// |----------|-------------|
/// | `x`      | `[rows, k]` |
/// | `w`      | `[n, k]`    |
/// | `out`    | `[rows, n]` |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn matmul<T: Real>(x: &[T], w: &[T], [rows, n, k]: [usize; 3], out: &mut [T]) {
    assert_eq!(x.len(), rows * k, "matmul: x is not [rows, k]");
    assert_eq!(w.len(), n * k, "matmul: w is not [n, k]");
    assert_eq!(out.len(), rows * n, "matmul: out is not [rows, n]");
    for r in 0..rows {
        for j in 0..n {
            let mut sum = T::zero();
            for i in 0..k {
                sum += x[r * k + i] * w[j * k + i];
            }
            out[r * n + j] = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplies_by_the_transpose() {
        // x = [1 2; 3 4], w = [1 0; 0 1; 1 1]
        let mut out = [0.0_f64; 6];
        matmul(&[1.0, 2.0, 3.0, 4.0], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], [2, 3, 2], &mut out);
        assert_eq!(out, [1.0, 2.0, 3.0, 3.0, 4.0, 7.0]);
    }

    #[test]
    fn sums_the_first_k_integers() {
        for k in [0_usize, 1, 7, 8, 9, 63, 257] {
            let x: Vec<f32> = (0..k).map(|i| i as f32).collect();
            let mut out = [f32::NAN];
            matmul(&x, &vec![1.0; k], [1, 1, k], &mut out);
            assert_eq!(out[0], (k * k.saturating_sub(1) / 2) as f32, "k = {k}");
        }
    }
}
