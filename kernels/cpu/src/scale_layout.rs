//! How the scales and mins of a panel lie, and how two-level scales are taken apart.
//!
//! One form for each group: sixteen scales, then sixteen mins if there are any. Products keep one
//! factor for a run of groups: before the first group of a run stand sixteen `f16` factors of its
//! scales and sixteen of its mins, and each group has integers of a byte.

use std::fmt;

use half::f16;

use crate::{affine_panels::PackError, output_columns::PANEL_ROWS};

/// What scales and mins are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scales {
    /// Any `f32`.
    F32,
    /// Numbers that are exact in `f16`.
    F16,
    /// An `f16` factor, the same for `groups` consecutive groups of a row, times an `i8`: products
    /// that are exact in `f32`. The last run of a row may be short.
    Product {
        /// Groups that share a factor.
        groups: usize,
    },
}

impl fmt::Display for Scales {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "scales of any size",
            Self::F16 => "scales that are exact in f16",
            Self::Product { .. } => "scales that are an f16 times an i8",
        })
    }
}

/// Where the scales of a panel lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScaleLayout {
    pub(crate) scales: Scales,
    pub(crate) has_min: bool,
}

impl ScaleLayout {
    /// Vectors of sixteen numbers: scales, and mins if there are any.
    #[inline(always)]
    const fn vectors(self) -> usize {
        if self.has_min { 2 } else { 1 }
    }

    /// Bytes of one group.
    #[inline(always)]
    pub(crate) const fn group_bytes(self) -> usize {
        let size = match self.scales {
            Scales::F32 => size_of::<f32>(),
            Scales::F16 => size_of::<f16>(),
            Scales::Product { .. } => size_of::<i8>(),
        };
        PANEL_ROWS * size * self.vectors()
    }

    /// Groups before which factors stand; without factors any number does.
    #[inline(always)]
    pub(crate) const fn run(self) -> usize {
        match self.scales {
            Scales::Product { groups } => groups,
            _ => usize::MAX,
        }
    }

    /// Bytes of the factors of a run.
    #[inline(always)]
    pub(crate) const fn factor_bytes(self) -> usize {
        match self.scales {
            Scales::Product { .. } => PANEL_ROWS * size_of::<f16>() * self.vectors(),
            _ => 0,
        }
    }

    /// Bytes of `groups` groups of sixteen rows.
    pub(crate) const fn bytes(self, groups: usize) -> usize {
        groups * self.group_bytes() + groups.div_ceil(self.run()) * self.factor_bytes()
    }

    /// Writes the scales (`which` is 0) or mins (1) of row `lane`.
    ///
    /// # Errors
    ///
    /// If a number is not exact in the form.
    pub(crate) fn pack(
        self,
        values: &[f32],
        which: usize,
        lane: usize,
        out: &mut [u8],
    ) -> Result<(), PackError> {
        let inexact = |found| PackError { expected: self.scales.to_string(), found };
        let index = which * PANEL_ROWS + lane;
        let run = self.run().min(values.len());
        let runs = out.chunks_mut(self.factor_bytes() + run * self.group_bytes());
        for (values, out) in values.chunks(run).zip(runs) {
            let (factors, groups) = out.split_at_mut(self.factor_bytes());
            let mut integers = [0; RUN_MAX];
            if let Scales::Product { .. } = self.scales {
                let factor = split_products(values, &mut integers);
                let factor = factor.ok_or_else(|| inexact(values[0]))?;
                factors[index * 2..][..2].copy_from_slice(&factor.to_le_bytes());
            }
            for (i, out) in groups.chunks_exact_mut(self.group_bytes()).enumerate() {
                match self.scales {
                    Scales::F32 => out[index * 4..][..4].copy_from_slice(&values[i].to_le_bytes()),
                    Scales::F16 => {
                        let half = f16::from_f32(values[i]);
                        if half.to_f32().to_bits() != values[i].to_bits() {
                            return Err(inexact(values[i]));
                        }
                        out[index * 2..][..2].copy_from_slice(&half.to_le_bytes());
                    }
                    Scales::Product { .. } => out[index] = integers[i].cast_unsigned(),
                }
            }
        }
        Ok(())
    }

    /// The scale (`which` is 0) or min (1) of one group of row `lane`, from the bytes of its run's
    /// factors and its own.
    pub(crate) fn take(self, factors: &[u8], group: &[u8], which: usize, lane: usize) -> f32 {
        let index = which * PANEL_ROWS + lane;
        let half =
            |from: &[u8]| f16::from_le_bytes([from[index * 2], from[index * 2 + 1]]).to_f32();
        match self.scales {
            Scales::F32 => {
                let [a, b, c, d] = [0, 1, 2, 3].map(|byte| group[index * 4 + byte]);
                f32::from_le_bytes([a, b, c, d])
            }
            Scales::F16 => half(group),
            Scales::Product { .. } => half(factors) * f32::from(group[index].cast_signed()),
        }
    }
}

/// Finds a factor and integers whose products are `products`, to the bit; `None` if there are none.
///
/// They need not be those that the numbers were made of: twice the integers and half the factor do
/// as well. Infinities and NaN count as products of an infinity.
///
/// # Panics
///
/// If there are more than [`RUN_MAX`] numbers.
fn split_products(products: &[f32], integers: &mut Integers) -> Option<f16> {
    assert!(products.len() <= RUN_MAX, "split_products: {} numbers", products.len());
    let peak = products.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
    let mut fit = |factor: f32| {
        let half = f16::from_f32(factor);
        if half.to_f32() != factor {
            return None;
        }
        let is_product = |(integer, &product): (&mut i8, &f32)| {
            let quotient = product / factor;
            // Zero over zero counts as zero, or as -1 for its sign.
            *integer =
                if factor == 0.0 && product.is_sign_negative() { -1 } else { quotient as i8 };
            if factor.is_infinite() {
                *integer = if product.is_nan() { 0 } else { product.signum() as i8 };
            }
            let found = factor * f32::from(*integer);
            found.to_bits() == product.to_bits() || (found.is_nan() && product.is_nan())
        };
        integers.iter_mut().zip(products).all(is_product).then_some(half)
    };
    if !products.iter().all(|x| x.is_finite()) {
        return fit(f32::INFINITY);
    }
    if peak == 0.0 {
        return fit(0.0);
    }
    // The largest of the integers is one of these, whatever the factor. Few are worth a closer look.
    (1..=128).rev().find_map(|largest| {
        let factor = peak / largest as f32;
        if !is_half(factor) || !are_multiples(products, factor) {
            return None;
        }
        fit(factor).or_else(|| fit(-factor))
    })
}

/// Whether a positive number is exact in `f16`.
fn is_half(x: f32) -> bool {
    const NORMAL_MIN: f32 = 6.103_515_6e-5; // 2⁻¹⁴
    const UNITS: f32 = (1 << 24) as f32;
    if x >= NORMAL_MIN {
        x <= 65504.0 && x.to_bits() & 0x1FFF == 0
    } else {
        (x * UNITS).fract() == 0.0
    }
}

/// Whether all are `factor` times a whole number, but for the signs of zeros; without a branch.
fn are_multiples(products: &[f32], factor: f32) -> bool {
    const ROUNDS: f32 = 12_582_912.0; // 3 · 2²²: sums with it have no bits behind the point
    let inverse = 1.0 / factor;
    products.iter().fold(true, |all, &x| {
        let whole = (x * inverse + ROUNDS) - ROUNDS;
        all & (whole * factor == x)
    })
}

/// Most groups that share a factor.
pub const RUN_MAX: usize = 64;

/// The integers of a run of groups.
type Integers = [i8; RUN_MAX];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bits, next};

    fn found(products: &[f32]) -> Option<Vec<u32>> {
        let mut integers = [0; RUN_MAX];
        let factor = split_products(products, &mut integers)?.to_f32();
        let integers = integers[..products.len()].iter();
        Some(integers.map(|&i| (factor * f32::from(i)).to_bits()).collect())
    }

    #[test]
    fn products_are_taken_apart_to_the_bit() {
        let mut state = 1;
        for round in 0..4000 {
            // Any finite `f16`, subnormal ones too, times six bits, eight bits, or few numbers.
            let factor = f16::from_bits(next(&mut state) as u16);
            if !factor.is_finite() {
                continue;
            }
            let limit = [(0, 63), (-128, 127), (-1, 1), (0, 0), (-63, 0)][round % 5];
            let mut product = || {
                let span = limit.1 - limit.0 + 1;
                let integer = limit.0 + (next(&mut state) % span as u64) as i32;
                factor.to_f32() * integer as f32
            };
            let products: Vec<f32> = (0..1 + round % 17).map(|_| product()).collect();
            assert_eq!(found(&products), Some(bits(&products)), "{products:?}");
            let negated: Vec<f32> = products.iter().map(|x| -x).collect();
            assert_eq!(found(&negated), Some(bits(&negated)), "{negated:?}");
        }
    }

    #[test]
    fn what_is_no_product_is_none() {
        for products in [&[1.0, 1.0 / 3.0][..], &[1e-9], &[255.0, 1.0], &[f32::INFINITY, 1.0]] {
            assert_eq!(found(products), None, "{products:?}");
        }
        let infinite = [f32::INFINITY, f32::NEG_INFINITY];
        assert_eq!(found(&infinite), Some(bits(&infinite)));
        assert!(found(&[f32::NAN]).is_some_and(|x| f32::from_bits(x[0]).is_nan()));
    }
}
