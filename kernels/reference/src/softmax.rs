//! Softmax over the last axis.

use crate::{Real, reduce::peak};

/// Writes `out[r, c] = exp(x[r, c] - max) / sum of the same`, per row of `[rows, width]`.
///
/// # Panics
///
/// If the lengths differ or are not a multiple of `width`.
pub fn softmax<T: Real>(x: &[T], width: usize, out: &mut [T]) {
    assert_eq!(x.len(), out.len(), "softmax: x and out differ in length");
    if x.is_empty() {
        return;
    }
    assert!(width > 0 && x.len().is_multiple_of(width), "softmax: x is not [rows, width]");
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let peak = peak(x);
        let mut sum = T::zero();
        for (x, out) in x.iter().zip(out.iter_mut()) {
            *out = (*x - peak).exp();
            sum += *out;
        }
        for out in out {
            *out = *out / sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weighs_by_the_exponential() {
        let (one, three) = (1.0_f64.ln(), 3.0_f64.ln());
        let mut out = [0.0; 4];
        softmax(&[one, three, three + 700.0, one + 700.0], 2, &mut out);
        for (found, expected) in out.iter().zip([0.25, 0.75, 0.75, 0.25]) {
            assert!((found - expected).abs() < 1e-12, "{out:?}");
        }
    }

    #[test]
    fn a_masked_element_gets_nothing() {
        let mut out = [0.0_f32; 3];
        softmax(&[0.0, f32::NEG_INFINITY, 0.0], 3, &mut out);
        assert_eq!(out, [0.5, 0.0, 0.5]);
    }

    #[test]
    fn equal_logits_share_equally() {
        for width in [1_usize, 7, 8, 9, 63, 257] {
            let mut out = vec![0.0_f64; width];
            softmax(&vec![3.0; width], width, &mut out);
            assert!(out.iter().all(|p| (p - 1.0 / width as f64).abs() < 1e-12), "width {width}");
        }
    }
}
