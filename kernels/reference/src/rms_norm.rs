//! Root mean square normalization.

use crate::Real;

/// Writes `out = x * (mean(x^2) + eps)^-1/2 * (w + weight_offset)`, row by row.
///
/// | argument   | shape           |
/// |------------|-----------------|
/// | `x`, `out` | `[rows, width]` |
/// | `w`        | `[width]`       |
///
/// `weight_offset` is 1 where a checkpoint stores the weight minus one, else 0.
///
/// # Panics
///
/// If the lengths do not fit the shapes.
///
/// # Source
///
/// Zhang and Sennrich, "Root Mean Square Layer Normalization", arXiv:1910.07467, equation 4.
pub fn rms_norm<T: Real>(x: &[T], w: &[T], eps: T, weight_offset: T, out: &mut [T]) {
    let width = w.len();
    assert_eq!(x.len(), out.len(), "rms_norm: x and out differ in length");
    if x.is_empty() {
        return;
    }
    assert!(width > 0 && x.len().is_multiple_of(width), "rms_norm: x is not [rows, width]");
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mut squares = T::zero();
        for &x in x {
            squares += x * x;
        }
        let inverse = T::one() / (squares / T::from_f64(width as f64) + eps).sqrt();
        for c in 0..width {
            out[c] = x[c] * inverse * (w[c] + weight_offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divides_by_the_root_mean_square() {
        // The mean square of (1, 7) is 25, of (2, 14) it is 100.
        let mut out = [0.0_f64; 4];
        rms_norm(&[1.0, 7.0, 2.0, 14.0], &[1.0, 2.0], 0.0, 0.0, &mut out);
        assert_near(out);
        rms_norm(&[1.0, 7.0, 2.0, 14.0], &[0.0, 1.0], 0.0, 1.0, &mut out);
        assert_near(out);
    }

    fn assert_near(found: [f64; 4]) {
        for (found, expected) in found.iter().zip([0.2, 2.8, 0.2, 2.8]) {
            assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        }
    }

    #[test]
    fn eps_keeps_zeros_finite() {
        for width in [1_usize, 7, 8, 9, 63, 257] {
            let mut out = vec![1.0_f32; width];
            rms_norm(&vec![0.0; width], &vec![1.0; width], 1e-6, 0.0, &mut out);
            assert!(out.iter().all(|y| *y == 0.0), "width {width}");
        }
    }
}
