//! Nothing but multiply-adds of bytes in registers: what a product could reach at most.

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::Lanes,
};

/// Multiply-adds in one round of [`byte_dots`].
pub const BYTE_DOTS_MACS: usize = CHAINS * 64;

/// Independent sums: more than the processor needs to keep its multipliers busy.
const CHAINS: usize = 16;

/// Multiplies and adds [`BYTE_DOTS_MACS`] bytes in each of `rounds` rounds, touching no memory, and
/// returns a number that depends on all of them. A measure of the processor, not of a model.
pub fn byte_dots(isa: Isa, rounds: usize) -> f32 {
    dispatch(isa, ByteDots { rounds })
}

struct ByteDots {
    rounds: usize,
}

impl Kernel for ByteDots {
    type Out = f32;

    #[inline(always)]
    fn run<L: Lanes>(self) -> f32 {
        let codes = L::codes(std::hint::black_box(&[1; 64]));
        let mut sums = [L::ints(0); CHAINS];
        for round in 0..self.rounds {
            // Bytes that differ from round to round, so that rounds are not one.
            let x = [round as u8 & 1, 0, 1, 0];
            for sum in &mut sums {
                *sum = L::dot_small(*sum, codes, x);
            }
        }
        let mut total = 0.0;
        for sum in sums {
            total += L::from_ints(sum).sum();
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
            let expected = (CHAINS * 16) as f32 * (1.0 + 2.0 + 1.0);
            assert_eq!(byte_dots(isa, 3), expected, "{isa:?}");
        }
    }
}
