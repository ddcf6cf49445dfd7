//! The logarithm of a sum of exponentials: the normalizer of a softmax.

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
    math, reduce,
};

/// `ln(sum of e^x)` over `row`, without overflow; negative infinity if the row is empty or masked
/// whole.
pub fn log_sum_exp(isa: Isa, row: &[f32]) -> f32 {
    dispatch(isa, LogSumExp { row })
}

struct LogSumExp<'a> {
    row: &'a [f32],
}

impl Kernel for LogSumExp<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<L: Lanes>(self) -> f32 {
        let peak = reduce::peak::<L>(self.row);
        if peak == f32::NEG_INFINITY {
            return peak;
        }
        let (row, tail) = self.row.as_chunks::<LANES>();
        let mut sums = L::splat(0.0);
        for x in row {
            sums = sums.add(math::exp(L::load(x).sub(L::splat(peak))));
        }
        let tail = L::load_part(tail, f32::NEG_INFINITY);
        sums = sums.add(math::exp(tail.sub(L::splat(peak))));
        peak + sums.sum().ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{doubles, floats, isas};

    #[test]
    fn is_near_the_reference_with_equal_bits_on_every_isa() {
        for len in [0, 1, 7, 8, 9, 63, 257, 10_000] {
            let row = floats(len, len as u64);
            let expected = kernels_reference::log_sum_exp(&doubles(&row));
            let first = log_sum_exp(Isa::Scalar, &row);
            let error = (f64::from(first) - expected).abs();
            assert!(f64::from(first) == expected || error < 1e-5, "{len}: {first}, not {expected}");
            for isa in isas() {
                assert_eq!(log_sum_exp(isa, &row).to_bits(), first.to_bits(), "{isa:?} {len}");
            }
        }
        for isa in isas() {
            assert_eq!(log_sum_exp(isa, &[f32::NEG_INFINITY; 3]), f32::NEG_INFINITY);
        }
    }
}
