//! QuaRot: the stream and the values of attention in other channels, of which none stands out.
//!
//! Source: Ashkboos et al., "QuaRot", arXiv:2404.00456, section 4, stage 1a and the offline part of 1c.

mod hadamard;

use plugin_api::prelude::*;

use hadamard::Hadamard;

/// Turns channels by random signs and a Hadamard matrix; the format rounds what comes out.
#[derive(Debug)]
pub struct QuaRot {
    seed: u64,
    turns_values: bool,
    /// The last that was asked for.
    known: Option<Rotation>,
}

impl Capability for QuaRot {
    const NAME: &'static str = "quarot";

    fn from_config(config: &Config) -> Result<Self> {
        let seed = config.count_or("seed", 0, 0..=u64::from(u32::MAX))?;
        Ok(Self { seed, turns_values: config.flag_or("values", true)?, known: None })
    }
}

impl Compressor for QuaRot {
    fn needs_moments(&self) -> bool {
        false
    }

    fn compress(&mut self, products: &Products<'_>) -> Result<Compressed> {
        products.check()?;
        let weights = products.weights.iter().map(|w| Chosen::Values(w.values.to_vec()));
        Ok(Compressed { input_scale: Vec::new(), weights: weights.collect() })
    }

    fn rotate(&mut self, channels: Channels, width: usize, rows: &mut [f32]) -> Result<bool> {
        if channels != Channels::Stream && !(channels == Channels::Value && self.turns_values) {
            return Ok(false);
        }
        if width == 0 || !rows.len().is_multiple_of(width) {
            return Err(Error::shape("rows to rotate", format!("rows of {width}"), rows.len()));
        }
        if self.known.as_ref().is_none_or(|known| !known.is_of(channels, width)) {
            self.known = Rotation::new(self.seed, channels, width);
        }
        match &self.known {
            Some(known) => rows.chunks_exact_mut(width).for_each(|row| known.turn(row)),
            // Values may stay as they are; without the stream nothing is gained.
            None if channels == Channels::Value => return Ok(false),
            None => {
                let missing =
                    "a Hadamard matrix: the width is 2^m times 1, 12, 20, 28, 36, 44, 60 …";
                return Err(Error::unsupported(format!("{width} channels"), missing));
            }
        }
        Ok(true)
    }
}

/// Signs, then a Hadamard matrix.
#[derive(Debug)]
struct Rotation {
    channels: Channels,
    signs: Vec<f64>,
    hadamard: Hadamard,
}

impl Rotation {
    fn new(seed: u64, channels: Channels, width: usize) -> Option<Self> {
        let hadamard = Hadamard::new(width)?;
        let mut state = seed ^ if channels == Channels::Stream { 0 } else { 1 << 40 };
        let sign = |_| if splitmix(&mut state) & 1 == 0 { 1.0 } else { -1.0 };
        let signs = (0..width).map(sign).collect();
        Some(Self { channels, signs, hadamard })
    }

    fn is_of(&self, channels: Channels, width: usize) -> bool {
        self.channels == channels && self.signs.len() == width
    }

    fn turn(&self, row: &mut [f32]) {
        let signed = row.iter().zip(&self.signs);
        let mut wide: Vec<f64> = signed.map(|(x, sign)| f64::from(*x) * sign).collect();
        self.hadamard.multiply(&mut wide);
        row.iter_mut().zip(wide).for_each(|(x, turned)| *x = turned as f32);
    }
}

/// Source: Steele et al., "Fast splittable pseudorandom number generators", 2014.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

export_plugin!(QuaRot);

#[cfg(test)]
mod tests {
    use plugin_api::testing::compressor;
    use plugin_api::testing::random::Random;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        compressor::suite::<QuaRot>(&Config::new());
    }

    fn plugin(seed: i64) -> QuaRot {
        QuaRot::from_config(&Config::new().with("seed", seed)).unwrap()
    }

    /// Rows of small numbers, two channels of which are twenty times the others.
    #[test]
    fn channels_that_stand_out_are_spread_over_all_and_cost_no_grid() {
        let (width, rows) = (576, 40);
        let mut random = Random::new(7);
        let mut x: Vec<f32> = (0..width * rows).map(|_| random.signed()).collect();
        for row in x.chunks_mut(width) {
            row[5] *= 20.0;
            row[300] *= -20.0;
        }
        let grid = Grid { bits: 4, group: 32, zero_point: 8, has_min: false, is_half: true };
        let lost = |x: &[f32]| -> f64 {
            let group = |x: &[f32]| -> f64 {
                let (scale, min) = grid.fit(x.iter().copied(), 1.0);
                let back = |x: f32| grid.value(grid.code(x, scale, min), scale, min);
                x.iter().map(|&x| f64::from(x - back(x)).powi(2)).sum()
            };
            x.chunks(32).map(group).sum()
        };
        let before = lost(&x);
        assert_eq!(plugin(0).rotate(Channels::Stream, width, &mut x), Ok(true));
        let after = lost(&x);
        assert!(after < 0.7 * before, "{after} is lost, and {before} without");
    }

    #[test]
    fn seeds_and_channels_have_matrices_of_their_own() {
        let turned = |seed, channels| {
            let mut row = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
            assert_eq!(plugin(seed).rotate(channels, 8, &mut row), Ok(true));
            row
        };
        let [a, b, c] = [(0, Channels::Stream), (1, Channels::Stream), (0, Channels::Value)]
            .map(|(s, c)| turned(s, c));
        assert!(a != b && a != c, "{a:?} {b:?} {c:?}");
        assert_eq!(a, turned(0, Channels::Stream));
    }

    #[test]
    fn widths_without_a_matrix_are_named() {
        let error = plugin(0).rotate(Channels::Stream, 7, &mut []).unwrap_err();
        assert!(error.to_string().contains("7 channels"), "{error}");
        assert_eq!(plugin(0).rotate(Channels::Value, 7, &mut [1.0; 7]), Ok(false));
        assert!(plugin(0).rotate(Channels::Stream, 8, &mut [1.0; 7]).is_err());
        let config = Config::new().with("values", false);
        let mut plain = QuaRot::from_config(&config).unwrap();
        assert_eq!(plain.rotate(Channels::Value, 8, &mut [1.0; 8]), Ok(false));
    }
}
