//! Random numbers that are the same on every machine and in every version: runs are resumed.
//!
//! Source: Steele et al., "Fast splittable pseudorandom number generators", OOPSLA 2014 (SplitMix64).

/// A stream of numbers from a seed.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// What [`new`](Self::new) takes to go on from here.
    pub(super) fn state(&self) -> u64 {
        self.0
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// From 0 to `end`, which it never is. The bias is `end / 2⁶⁴`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// In [-1, 1).
    pub(super) fn signed(&mut self) -> f64 {
        1.0 - 2.0 * self.unit()
    }

    /// In (0, 1], in steps of 2⁻⁵³.
    fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Of mean 0 and deviation 1. Source: Box and Muller, 1958.
    pub(super) fn normal(&mut self) -> f64 {
        let (radius, angle) = ((-2.0 * self.unit().ln()).sqrt(), self.unit());
        radius * (std::f64::consts::TAU * angle).cos()
    }
}
