//! Nothing but multiply-adds of floats in registers: what attention could reach at most.

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
};

/// Multiply-adds in one round of [`float_dots`].
pub const FLOAT_DOTS_MACS: usize = CHAINS * LANES;

/// Independent sums: more than the processor needs to keep its multipliers busy.
const CHAINS: usize = 12;

/// Multiplies and adds [`FLOAT_DOTS_MACS`] floats in each of `rounds` rounds, touching no memory,
/// and returns a number that depends on all of them. A measure of the processor, not of a model.
pub fn float_dots(isa: Isa, rounds: usize) -> f32 {
    dispatch(isa, FloatDots { rounds })
}

struct FloatDots {
    rounds: usize,
}

impl Kernel for FloatDots {
    type Out = f32;

    #[inline(always)]
    fn run<L: Lanes>(self) -> f32 {
        let x = L::splat(std::hint::black_box(1.0));
        let mut sums = [L::splat(0.0); CHAINS];
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = x.fma(x, *sum);
            }
        }
        let mut total = 0.0;
        for sum in sums {
            total += sum.sum();
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::isas;

    #[test]
    fn every_round_counts() {
        for isa in isas() {
            assert_eq!(float_dots(isa, 3), (FLOAT_DOTS_MACS * 3) as f32, "{isa:?}");
        }
    }
}
