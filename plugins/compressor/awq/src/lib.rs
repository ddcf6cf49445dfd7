//! AWQ: channels whose activations are large are made larger in the weights before these are rounded, and smaller in what
//! makes the activations; then groups are clipped where that loses less.
//!
//! Source: Lin et al., "AWQ", arXiv:2306.00978; grids and limits as in the authors' code.

use plugin_api::prelude::*;

/// Searches scales of channels and limits of groups.
#[derive(Debug)]
pub struct Awq {
    /// Powers of the activations that are tried.
    steps: usize,
    /// Whether groups are clipped.
    has_clip: bool,
}

impl Capability for Awq {
    const NAME: &'static str = "awq";

    fn from_config(config: &Config) -> Result<Self> {
        let steps = config.count_or("steps", 20, 1..=100)? as usize;
        Ok(Self { steps, has_clip: config.flag_or("clip", true)? })
    }
}

impl Compressor for Awq {
    fn needs_moments(&self) -> bool {
        true
    }

    fn compress(&mut self, products: &Products<'_>) -> Result<Compressed> {
        products.check()?;
        let grid = products.needs_grid()?;
        let (cols, moments) = (products.input.mean_abs.len(), products.input.moments);
        if moments.is_empty() {
            return Err(Error::shape("moments", format!("{cols} by {cols}"), "none"));
        }
        let search = Search { grid, cols, moments };
        let scale = if products.can_scale { self.best_scale(&search, products) } else { None };
        let scale = scale.unwrap_or_default();
        let weights = products
            .weights
            .iter()
            .map(|weight| search.codes(&scaled(weight.values, &scale), &scale, self.clips(weight)));
        let weights = weights.collect();
        Ok(Compressed { input_scale: scale, weights })
    }
}

impl Awq {
    /// Whether groups of a weight are clipped. Positions turn queries and keys: what one channel loses others do not make
    /// up for.
    fn clips(&self, weight: &Matrix<'_>) -> bool {
        self.has_clip
            && !["q_proj.weight", "k_proj.weight"].iter().any(|n| weight.name.ends_with(n))
    }

    /// The scale of channels that loses least, if one loses less than none.
    fn best_scale(&self, search: &Search<'_>, products: &Products<'_>) -> Option<Vec<f32>> {
        let sample = |weight| (search.sample(weight), self.clips(weight));
        let samples: Vec<(Vec<f32>, bool)> = products.weights.iter().map(sample).collect();
        let loss = |scale: &[f32]| {
            let losses = samples.iter().map(|(rows, clips)| search.loss(rows, scale, *clips));
            losses.sum::<f64>()
        };
        let (mut least, mut best) = (loss(&[]), None);
        for step in 1..self.steps {
            let power = step as f32 / self.steps as f32;
            let scale = scale_of(products.input.mean_abs, power);
            let found = loss(&scale);
            if found < least {
                (least, best) = (found, Some(scale));
            }
        }
        best
    }
}

/// Magnitudes to a power, around 1.
fn scale_of(mean_abs: &[f32], power: f32) -> Vec<f32> {
    let mut scale: Vec<f32> = mean_abs.iter().map(|a| a.powf(power).max(LEAST)).collect();
    let least = scale.iter().copied().fold(f32::INFINITY, f32::min);
    let most = scale.iter().copied().fold(0.0, f32::max);
    let middle = (least * most).sqrt();
    scale.iter_mut().for_each(|s| *s /= middle);
    scale
}

/// Rows with each column times its scale; none leaves them.
fn scaled(values: &[f32], scale: &[f32]) -> Vec<f32> {
    let by = |i: usize| if scale.is_empty() { 1.0 } else { scale[i % scale.len()] };
    values.iter().enumerate().map(|(i, x)| x * by(i)).collect()
}

/// What losses are computed by.
struct Search<'a> {
    grid: Grid,
    cols: usize,
    /// `[cols, cols]`.
    moments: &'a [f32],
}

impl Search<'_> {
    /// Some rows of a weight, evenly spread.
    fn sample(&self, weight: &Matrix<'_>) -> Vec<f32> {
        let every = weight.rows.div_ceil(ROWS).max(1);
        weight.values.chunks_exact(self.cols).step_by(every).flatten().copied().collect()
    }

    /// Sum of squares of what the codes change in the results, where channels are scaled.
    fn loss(&self, rows: &[f32], scale: &[f32], has_clip: bool) -> f64 {
        let values = scaled(rows, scale);
        let by = |col: usize| if scale.is_empty() { 1.0 } else { scale[col] };
        let mut errors = vec![0.0_f32; self.cols];
        let mut loss = 0.0;
        for row in values.chunks_exact(self.cols) {
            let places = errors.chunks_exact_mut(self.grid.group).enumerate();
            for (group, errors) in places {
                let start = group * self.grid.group;
                let x = &row[start..][..self.grid.group];
                let fit = self.fit(x, start, scale, has_clip);
                self.errors(x, fit, errors);
            }
            errors.iter_mut().enumerate().for_each(|(col, error)| *error /= by(col));
            loss += self.square(&errors, 0);
        }
        loss
    }

    /// What rounding changes in each number.
    fn errors(&self, x: &[f32], (scale, min): (f32, f32), errors: &mut [f32]) {
        for (error, &x) in errors.iter_mut().zip(x) {
            *error = x - self.grid.value(self.grid.code(x, scale, min), scale, min);
        }
    }

    /// `eᵀ m e` with the moments from column `start` on.
    fn square(&self, errors: &[f32], start: usize) -> f64 {
        let line = |i: usize| &self.moments[(start + i) * self.cols + start..][..errors.len()];
        let products = errors
            .iter()
            .enumerate()
            .map(|(i, error)| f64::from(*error) * f64::from(dot(line(i), errors)));
        products.sum()
    }

    /// Scale and minimum of the group of a row that begins at column `start`: those by which its largest number fits, or
    /// closer ones that lose less.
    fn fit(&self, x: &[f32], start: usize, scale: &[f32], has_clip: bool) -> (f32, f32) {
        let mut best = (f64::INFINITY, self.grid.fit(x.iter().copied(), 1.0));
        let mut errors = vec![0.0; x.len()];
        for step in 0..if has_clip { CLIPS } else { 0 } {
            let shrink = 1.0 - step as f32 / (2 * CLIPS) as f32;
            let fit = self.grid.fit(x.iter().copied(), shrink);
            self.errors(x, fit, &mut errors);
            let by = |i: usize| if scale.is_empty() { 1.0 } else { scale[start + i] };
            errors.iter_mut().enumerate().for_each(|(i, error)| *error /= by(i));
            let loss = self.square(&errors, start);
            if loss < best.0 {
                best = (loss, fit);
            }
        }
        best.1
    }

    /// The codes of a weight whose columns are scaled already.
    fn codes(&self, values: &[f32], scale: &[f32], has_clip: bool) -> Chosen {
        let Self { grid, cols, .. } = *self;
        let mut codes = Vec::with_capacity(values.len());
        let (mut scales, mut mins) = (Vec::new(), Vec::new());
        for (group, x) in values.chunks_exact(grid.group).enumerate() {
            let start = group * grid.group % cols;
            let (step, min) = self.fit(x, start, scale, has_clip);
            codes.extend(x.iter().map(|&x| grid.code(x, step, min)));
            scales.push(step);
            if grid.has_min {
                mins.push(min);
            }
        }
        Chosen::Codes { codes, scales, mins }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    for (a, b) in a.zip(b) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (x, y))| *sum += x * y);
    }
    rest + sums.iter().sum::<f32>()
}

/// Smallest power of an activation.
const LEAST: f32 = 1e-4;
/// Rows of each weight that scales are searched on.
const ROWS: usize = 64;
/// Limits of a group that are tried: down to half of what it holds.
const CLIPS: usize = 10;

export_plugin!(Awq);

#[cfg(test)]
mod tests {
    use plugin_api::testing::compressor::{self, Case};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        compressor::suite::<Awq>(&Config::new());
    }

    #[test]
    fn scales_lose_less_than_rounding_and_clips_less_again() {
        let config = |clip: bool| Config::new().with("clip", clip);
        for seed in 0..4 {
            let mut case = Case::new(seed, 24, 64, 4);
            let loss = |case: &Case, clip: bool| {
                let found = Awq::from_config(&config(clip)).unwrap().compress(&case.products());
                case.loss(&found.unwrap())
            };
            let plain = case.loss_of_rounding();
            let clipped = loss(&case, true);
            case.can_scale = true;
            let (scaled, both) = (loss(&case, false), loss(&case, true));
            assert!(scaled < 0.8 * plain, "{seed}: {scaled} {plain}");
            assert!(clipped < plain && both <= scaled, "{seed}: {clipped} {both} {scaled} {plain}");
        }
    }

    #[test]
    fn scales_are_powers_around_one() {
        let scale = scale_of(&[1.0, 16.0, 0.0, 4.0], 0.5);
        // 1, 4, 1e-4, 2 around the root of 4e-4.
        let expected = [1.0, 4.0, 1e-4, 2.0].map(|s: f32| s / 4e-4_f32.sqrt());
        assert!(scale.iter().zip(expected).all(|(a, b)| (a / b - 1.0).abs() < 1e-5), "{scale:?}");
    }

    #[test]
    fn inputs_that_cannot_be_scaled_stay() {
        let case = Case::new(2, 8, 64, 4);
        let found = Awq::from_config(&Config::new()).unwrap().compress(&case.products()).unwrap();
        assert!(found.input_scale.is_empty());
    }
}
