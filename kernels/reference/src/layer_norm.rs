//! Layer normalization.

use crate::Real;

/// Writes `out = (x - mean) * (variance + eps)^-1/2 * w + b`, row by row; variance over `width`.
///
/// | argument   | shape           |
/// |------------|-----------------|
/// | `x`, `out` | `[rows, width]` |
/// | `w`, `b`   | `[width]`       |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
///
/// # Source
///
/// Ba, Kiros and Hinton, "Layer Normalization", arXiv:1607.06450, section 3.
pub fn layer_norm<T: Real>(x: &[T], w: &[T], b: &[T], eps: T, out: &mut [T]) {
    let width = w.len();
    assert_eq!(x.len(), out.len(), "layer_norm: x and out differ in length");
    assert_eq!(b.len(), width, "layer_norm: w and b differ in length");
    if x.is_empty() {
        return;
    }
    assert!(width > 0 && x.len().is_multiple_of(width), "layer_norm: x is not [rows, width]");
    let count = T::from_f64(width as f64);
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mean = crate::reduce::sum(x) / count;
        let mut squares = T::zero();
        for &x in x {
            squares += (x - mean) * (x - mean);
        }
        let inverse = T::one() / (squares / count + eps).sqrt();
        for c in 0..width {
            out[c] = (x[c] - mean) * inverse * w[c] + b[c];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centers_and_divides_by_the_deviation() {
        // (1, 5): mean 3, deviation 2.
        let mut out = [0.0_f64; 2];
        layer_norm(&[1.0, 5.0], &[1.0, 3.0], &[0.0, 10.0], 0.0, &mut out);
        assert_eq!(out, [-1.0, 13.0]);
    }

    #[test]
    fn a_constant_row_becomes_the_bias() {
        for width in [1_usize, 7, 8, 9, 63, 257] {
            let mut out = vec![1.0_f64; width];
            layer_norm(&vec![4.0; width], &vec![2.0; width], &vec![0.5; width], 1e-5, &mut out);
            assert!(out.iter().all(|y| *y == 0.5), "width {width}");
        }
    }
}
