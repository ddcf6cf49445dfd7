//! Compressors: weights chosen again with what activations tell, so that fewer bits say nearly the same.
//!
//! The host runs the model on calibration data, hands over all products that read the same input at once, and writes what
//! comes back. A compressor knows no files, and no format but the [`Grid`] that codes are chosen on.

use super::kind;
use super::quantizer::{Lowering, Scales};
use crate::error::{Error, Result};

/// Chooses the weights of products again.
pub trait Compressor: Send {
    /// Whether it reads [`Input::moments`], which take the host a product of activations with
    /// themselves. [any thread]
    fn needs_moments(&self) -> bool;

    /// Chooses the weights of all products that read one input. Called for each input once, in the order that the
    /// model computes them. [the thread of the run]
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where it cannot do with what it is given; whatever it returns ends the run.
    fn compress(&mut self, products: &Products<'_>) -> Result<Compressed>;

    /// Multiplies each of `rows`, `[_, width]`, from the right with an orthogonal matrix, and says so; channels that it has
    /// none for stay as they are. The matrix is one and the same for as long as it lives: the host turns what
    /// writes these channels and what reads them, before the first weight is chosen. [the thread of the run]
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a width that it has no matrix of; it ends the run.
    fn rotate(&mut self, channels: Channels, width: usize, rows: &mut [f32]) -> Result<bool> {
        let _ = (channels, width, rows);
        Ok(false)
    }
}

kind!(Compressor, "compressor", Run, traced: false);

/// Channels that nothing but products and norms sees, so that a model in which they are turned says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Channels {
    /// Of the stream that layers read and add to: `hidden_size`.
    Stream,
    /// Of a value head, from the product that makes it to the one that reads what attention makes of it: `head_dim`.
    Value,
}

/// Products `x · wᵀ` that read the same `x`.
#[derive(Debug, Clone)]
pub struct Products<'a> {
    /// What they read.
    pub input: Input<'a>,
    /// What they multiply it with, at least one; all have a column for each channel of the input.
    pub weights: Vec<Matrix<'a>>,
    /// What numbers the format can make, if it is such a one.
    pub grid: Option<Grid>,
    /// Whether the input can be had divided by a number for each channel at no cost.
    pub can_scale: bool,
}

/// Statistics of an input over calibration data.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Rows that were seen.
    pub tokens: u64,
    /// Mean of the magnitude of each channel, `[cols]`.
    pub mean_abs: &'a [f32],
    /// Largest magnitude of each channel, `[cols]`.
    pub max_abs: &'a [f32],
    /// Mean of `x xᵀ`, `[cols, cols]`; empty unless asked for.
    pub moments: &'a [f32],
}

/// A weight.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// The name that people know: `layers.0.mlp.up_proj.weight`.
    pub name: &'a str,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// `[rows, cols]`.
    pub values: &'a [f32],
}

/// What numbers a format can make: `scale · (code − zero_point) + min`, with a scale, and a minimum if there are such, for each
/// `group` consecutive elements of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Bits of a code: 1 to 8.
    pub bits: u32,
    /// Elements of a group: it divides the row.
    pub group: usize,
    /// Subtracted from every code.
    pub zero_point: u8,
    /// Whether groups have a minimum.
    pub has_min: bool,
    /// Whether scales and minima are 16-bit floats.
    pub is_half: bool,
}

/// The weights of products, chosen again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Compressed {
    /// What each channel of the input is divided by, `[cols]`; empty if it stays as it is. The weights here are for
    /// the input after that.
    pub input_scale: Vec<f32>,
    /// The weights, in the order that they came in.
    pub weights: Vec<Chosen>,
}

/// A weight that was chosen again.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Chosen {
    /// Numbers, which the format rounds: `[rows, cols]`.
    Values(Vec<f32>),
    /// Codes on the grid: what is written, as it stands.
    Codes {
        /// `[rows, cols]`.
        codes: Vec<u8>,
        /// One a group, `[rows, cols / group]`.
        scales: Vec<f32>,
        /// The same; empty for grids without.
        mins: Vec<f32>,
    },
}

impl Grid {
    /// The grid of a format, if its numbers lie on one whose scales do not depend on each other.
    pub fn of(lowering: &Lowering) -> Option<Self> {
        let Lowering::Affine { bits, group, zero_point, has_min, scales } = *lowering else {
            return None;
        };
        let is_half = match scales {
            Scales::F32 => false,
            Scales::F16 => true,
            Scales::Product { .. } => return None,
        };
        Some(Self { bits, group, zero_point, has_min, is_half })
    }

    /// Largest code.
    pub fn code_max(&self) -> u8 {
        (u32::from(u8::MAX) >> (8 - self.bits.clamp(1, 8))) as u8
    }

    /// The number that a code means.
    pub fn value(&self, code: u8, scale: f32, min: f32) -> f32 {
        scale * (f32::from(code) - f32::from(self.zero_point)) + min
    }

    /// The code whose number is nearest to `x`.
    pub fn code(&self, x: f32, scale: f32, min: f32) -> u8 {
        if scale == 0.0 {
            return self.zero_point;
        }
        let code = ((x - min) / scale).round_ties_even() + f32::from(self.zero_point);
        code.clamp(0.0, f32::from(self.code_max())) as u8
    }

    /// Scale and minimum by which the numbers of a group, `shrink` (at most 1) times what they are, just fit.
    pub fn fit(&self, x: impl Iterator<Item = f32>, shrink: f32) -> (f32, f32) {
        let (mut least, mut most) = (0.0_f32, 0.0_f32);
        for x in x {
            (least, most) = (least.min(x), most.max(x));
        }
        let (least, most) = (least * shrink, most * shrink);
        if self.has_min {
            let min = self.rounded(least);
            let steps = f32::from(self.code_max() - self.zero_point);
            return (self.rounded((most - min) / steps), min);
        }
        // Codes reach further down than up: the end that is further out decides the sign.
        let (below, above) = (self.zero_point, self.code_max() - self.zero_point);
        let down = |reach: f32| reach / f32::from(below.max(1));
        let up = |reach: f32| reach / f32::from(above.max(1));
        let upright = down(-least).max(up(most));
        let turned = down(most).max(up(-least));
        let scale = if turned < upright { -turned } else { upright };
        (self.rounded(scale), 0.0)
    }

    /// What scales and minima are made of; finite, also of sums that are not.
    fn rounded(&self, x: f32) -> f32 {
        if self.is_half { nearest_half(x) } else { x.clamp(f32::MIN, f32::MAX) }
    }
}

/// The nearest 16-bit float, or the largest finite one.
fn nearest_half(x: f32) -> f32 {
    /// The smallest normal one; below it they are multiples of `2⁻²⁴`.
    const NORMAL_MIN: f32 = 1.0 / 16384.0;
    const MAX: f32 = 65504.0;
    const STEPS: f32 = 16_777_216.0;
    if x.abs() < NORMAL_MIN {
        return (x * STEPS).round_ties_even() / STEPS;
    }
    // 13 bits of the mantissa go, ties to even.
    let bits = x.to_bits();
    let rounded = (bits + 0xFFF + (bits >> 13 & 1)) & !0x1FFF;
    f32::from_bits(rounded).clamp(-MAX, MAX)
}

impl Products<'_> {
    /// The grid, for compressors that choose codes.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the format has none.
    pub fn needs_grid(&self) -> Result<Grid> {
        self.grid.ok_or_else(|| {
            let missing = "a format of codes with a scale for each group, such as Q4_0 or Q4_1";
            Error::unsupported("codes of this format", missing)
        })
    }

    /// Checks that everything has the size that it says.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] with what has not.
    pub fn check(&self) -> Result<()> {
        let cols = self.input.mean_abs.len();
        if self.weights.is_empty() || cols == 0 {
            return Err(Error::shape("products", "a weight and channels", "none"));
        }
        let moments = self.input.moments.len();
        if self.input.max_abs.len() != cols || (moments != 0 && moments != cols * cols) {
            return Err(Error::shape(
                "statistics of an input",
                format!("{cols} channels"),
                moments,
            ));
        }
        for Matrix { name, rows, cols: width, values } in &self.weights {
            if *width != cols || values.len() != rows * cols {
                let expected = format!("{rows} rows of {cols} columns");
                return Err(Error::shape(*name, expected, format!("{} of {width}", values.len())));
            }
        }
        match self.grid {
            Some(grid) if grid.group == 0 || !cols.is_multiple_of(grid.group) => {
                Err(Error::shape("grid", format!("groups that divide {cols}"), grid.group))
            }
            _ => Ok(()),
        }
    }
}

impl Compressed {
    /// Checks that it is an answer to `products`.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] with what it is not, also for scales that are not finite and above 0, and for codes that the
    /// grid has not.
    pub fn check(&self, products: &Products<'_>) -> Result<()> {
        let cols = products.input.mean_abs.len();
        let wrong = |expected: String, found: String| {
            Err(Error::shape("what a compressor answers", expected, found))
        };
        if !self.input_scale.is_empty() {
            let is_scale = |s: &f32| s.is_finite() && *s > 0.0;
            if !products.can_scale || self.input_scale.len() != cols {
                let expected = if products.can_scale { cols } else { 0 };
                return wrong(
                    format!("{expected} scales of the input"),
                    self.input_scale.len().to_string(),
                );
            }
            if let Some(odd) = self.input_scale.iter().find(|s| !is_scale(s)) {
                return wrong("scales above 0".to_owned(), odd.to_string());
            }
        }
        if self.weights.len() != products.weights.len() {
            return wrong(
                format!("{} weights", products.weights.len()),
                self.weights.len().to_string(),
            );
        }
        let pairs = products.weights.iter().zip(&self.weights);
        for (Matrix { name, values, .. }, chosen) in pairs {
            let is_right = match (chosen, products.grid) {
                (Chosen::Values(new), _) => {
                    new.len() == values.len() && new.iter().all(|x| x.is_finite())
                }
                (Chosen::Codes { codes, scales, mins }, Some(grid)) => {
                    let groups = values.len() / grid.group.max(1);
                    codes.len() == values.len()
                        && scales.len() == groups
                        && mins.len() == if grid.has_min { groups } else { 0 }
                        && codes.iter().all(|code| *code <= grid.code_max())
                        && scales.iter().chain(mins).all(|x| x.is_finite())
                }
                (Chosen::Codes { .. }, None) => false,
            };
            if !is_right {
                let expected = format!("{} numbers, or codes on the grid", values.len());
                return wrong(format!("`{name}`: {expected}"), "others".to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "testing")]
    fn scales_are_the_halves_that_the_library_rounds_to() {
        let mut random = crate::testing::random::Random::new(3);
        for _ in 0..10_000 {
            let x = random.signed() * 2.0_f32.powi(random.below(40) as i32 - 26);
            let expected = half::f16::from_f32(x).to_f32().clamp(-65504.0, 65504.0);
            assert_eq!(nearest_half(x), expected, "{x:e}");
        }
    }

    #[test]
    fn a_group_just_fits_its_scale() {
        let grid =
            |zero_point, has_min| Grid { bits: 4, group: 32, zero_point, has_min, is_half: false };
        #[rustfmt::skip]
        let cases = [
            // zero has_min  numbers              scale        min
            (8,     false,   [-8.0, 3.0, 0.0],    1.0,         0.0),
            (8,     false,   [8.0, -3.0, 0.0],    -1.0,        0.0),
            (8,     false,   [7.0, -7.0, 0.0],    1.0,         0.0),
            (0,     true,    [1.0, 30.0, 2.0],    2.0,         0.0),
            (0,     true,    [-10.0, 5.0, 2.0],   1.0,         -10.0),
            (8,     false,   [0.0, 0.0, 0.0],     0.0,         0.0),
        ];
        for (zero_point, has_min, x, scale, min) in cases {
            let grid = grid(zero_point, has_min);
            assert_eq!(grid.fit(x.into_iter(), 1.0), (scale, min), "{x:?}");
            for x in x {
                let back = grid.value(grid.code(x, scale, min), scale, min);
                assert!((back - x).abs() <= scale.abs() / 2.0, "{x} comes back as {back}");
            }
        }
        let widest = grid(0, true).fit([f32::MIN, f32::MAX].into_iter(), 1.0);
        assert_eq!(widest, (f32::MAX, f32::MIN), "what no number can say is not infinite");
    }
}
