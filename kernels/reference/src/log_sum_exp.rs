//! The logarithm of a sum of exponentials: the normalizer of a softmax.

use crate::{Real, reduce::peak};

/// `ln(sum of e^x)` over `row`, without overflow; negative infinity if the row is empty or masked
/// whole.
pub fn log_sum_exp<T: Real>(row: &[T]) -> T {
    let peak = peak(row);
    if peak == T::NEG_INFINITY {
        return peak;
    }
    let mut sum = T::zero();
    for &x in row {
        sum += (x - peak).exp();
    }
    peak + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_peak_plus_ln_of_the_count_when_all_are_equal() {
        for width in [1_usize, 7, 8, 9, 63, 257] {
            let found = log_sum_exp(&vec![1000.0_f64; width]);
            assert!((found - 1000.0 - (width as f64).ln()).abs() < 1e-9, "width {width}");
        }
        assert_eq!(log_sum_exp::<f32>(&[]), f32::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY; 3]), f32::NEG_INFINITY);
    }
}
