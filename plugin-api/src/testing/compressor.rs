//! Contract suite of compressors: answers that fit, the same for the same question, and codes no worse than rounding.

use super::random::Random;
use super::traced::{check_instances, check_name};
use super::{Make, make};
use crate::config::Config;
use crate::error::Error;
use crate::kinds::Capability;
use crate::kinds::compressor::{
    Channels, Chosen, Compressed, Compressor, Grid, Input, Matrix, Products,
};

/// Runs the whole suite on compressors made from `config`.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + Compressor + 'static>(config: &Config) {
    check_name::<T>();
    suite_of(&make::<dyn Compressor, T>, config);
}

/// The same for compressors that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn Compressor>, config: &Config) {
    drop(check_instances(make));
    let fresh = || make(config).expect("the configuration is the suite's own");
    let (mut first, mut second) = (fresh(), fresh());
    for (seed, (rows, cols)) in [(1, 32), (7, 32), (9, 64), (8, 96)].into_iter().enumerate() {
        for bits in [3, 4, 8] {
            for (has_min, can_scale) in [(false, false), (true, false), (false, true)] {
                let mut case = Case::new(seed as u64, rows, cols, bits);
                (case.can_scale, case.grid.has_min) = (can_scale, has_min);
                if has_min {
                    case.grid.zero_point = 0;
                }
                let products = case.products();
                let found = first.compress(&products).expect("products with a grid");
                assert_eq!(found.check(&products), Ok(()), "{rows} by {cols}, {bits} bits");
                let again = second.compress(&products).expect("products with a grid");
                assert!(found == again, "what is asked alike is answered alike");
                let (loss, plain) = (case.loss(&found), case.loss_of_rounding());
                // Who gives numbers for the format to round may have more in mind than the weights.
                let has_codes = matches!(found.weights[..], [Chosen::Codes { .. }]);
                let most = if has_codes { 1.1 } else { 4.0 };
                assert!(
                    loss <= most * plain + 1e-9,
                    "{rows} by {cols}, {bits} bits: {loss} is lost, and {plain} by rounding alone"
                );
            }
        }
    }
    let case = Case::new(1, 7, 64, 4);
    let products = Products { grid: None, ..case.products() };
    match first.compress(&products) {
        Ok(found) => assert_eq!(found.check(&products), Ok(()), "an answer without a grid"),
        Err(error) => {
            assert!(matches!(error, Error::Unsupported { .. }), "without a grid: {error}");
        }
    }
    for channels in [Channels::Stream, Channels::Value] {
        for width in [1, 7, 32, 64, 96, 100, 576] {
            check_rotation([&mut *first, &mut *second], channels, width);
        }
    }
    let mut silent = Case::new(1, 7, 64, 4);
    (0..64).for_each(|col| silent.silence(col));
    let products = silent.products();
    if let Ok(found) = first.compress(&products) {
        assert_eq!(found.check(&products), Ok(()), "an answer for inputs of nothing");
    }
}

/// Lengths and angles stay as they are, and what is asked alike is answered alike.
fn check_rotation(both: [&mut dyn Compressor; 2], channels: Channels, width: usize) {
    let mut random = Random::new(width as u64);
    let before: Vec<f32> = (0..3 * width).map(|_| random.signed()).collect();
    let answers = both.map(|compressor| {
        let mut rows = before.clone();
        (compressor.rotate(channels, width, &mut rows), rows)
    });
    assert!(answers[0] == answers[1], "what is asked alike is answered alike");
    let [(is_done, after), _] = answers;
    match is_done {
        Ok(true) => {}
        Ok(false) => assert_eq!(before, after, "channels that stay as they are"),
        Err(error) => assert!(matches!(error, Error::Unsupported { .. }), "{width}: {error}"),
    }
    let product = |rows: &[f32], [i, j]: [usize; 2]| -> f64 {
        let row = |i: usize| &rows[i * width..][..width];
        row(i).iter().zip(row(j)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    for pair in [[0, 0], [0, 1], [1, 2], [2, 2]] {
        let (expected, found) = (product(&before, pair), product(&after, pair));
        let most = 1e-5 * (width as f64).sqrt();
        assert!((expected - found).abs() < most, "{width}: {pair:?} {found}, not {expected}");
    }
}

/// Inputs some channels of which go together and some of which stand out, and a weight.
#[derive(Debug, Clone)]
pub struct Case {
    /// What codes are chosen on.
    pub grid: Grid,
    /// Whether inputs may be scaled.
    pub can_scale: bool,
    values: Vec<f32>,
    rows: usize,
    cols: usize,
    mean_abs: Vec<f32>,
    max_abs: Vec<f32>,
    moments: Vec<f32>,
}

impl Case {
    /// A case of `rows` by `cols`, a multiple of 32.
    ///
    /// # Panics
    ///
    /// If it is none.
    pub fn new(seed: u64, rows: usize, cols: usize, bits: u32) -> Self {
        assert!(cols.is_multiple_of(GROUP), "whole groups");
        let mut random = Random::new(seed);
        let mix: Vec<f32> = (0..cols * SOURCES).map(|_| random.signed()).collect();
        let loud: Vec<f32> =
            (0..cols).map(|_| if random.below(16) == 0 { 12.0 } else { 1.0 }).collect();
        let (mut moments, mut mean_abs) = (vec![0.0_f64; cols * cols], vec![0.0_f64; cols]);
        let mut max_abs = vec![0.0_f32; cols];
        for _ in 0..TOKENS {
            let sources: Vec<f32> = (0..SOURCES).map(|_| random.signed()).collect();
            let channel = |(col, mix): (usize, &[f32])| {
                let mixed: f32 = mix.iter().zip(&sources).map(|(a, b)| a * b).sum();
                loud[col] * (mixed + 0.3 * random.signed())
            };
            let x: Vec<f32> = mix.chunks(SOURCES).enumerate().map(channel).collect();
            for (i, a) in x.iter().enumerate() {
                mean_abs[i] += f64::from(a.abs()) / TOKENS as f64;
                max_abs[i] = max_abs[i].max(a.abs());
                for (j, b) in x.iter().enumerate() {
                    moments[i * cols + j] += f64::from(a * b) / TOKENS as f64;
                }
            }
        }
        let narrow = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
        let zero_point = 1 << (bits - 1);
        Self {
            grid: Grid { bits, group: GROUP, zero_point, has_min: false, is_half: true },
            can_scale: false,
            values: (0..rows * cols).map(|_| random.signed()).collect(),
            rows,
            cols,
            mean_abs: narrow(mean_abs),
            max_abs,
            moments: narrow(moments),
        }
    }

    /// Lets a channel be 0 always.
    pub fn silence(&mut self, col: usize) {
        (self.mean_abs[col], self.max_abs[col]) = (0.0, 0.0);
        for other in 0..self.cols {
            self.moments[col * self.cols + other] = 0.0;
            self.moments[other * self.cols + col] = 0.0;
        }
    }

    /// What a compressor is asked.
    pub fn products(&self) -> Products<'_> {
        let Self { grid, can_scale, values, rows, cols, mean_abs, max_abs, moments } = self;
        let (rows, cols) = (*rows, *cols);
        Products {
            input: Input { tokens: TOKENS as u64, mean_abs, max_abs, moments },
            weights: vec![Matrix { name: "layers.0.mlp.up_proj.weight", rows, cols, values }],
            grid: Some(*grid),
            can_scale: *can_scale,
        }
    }

    /// Mean square of what an answer changes in a product's results.
    ///
    /// # Panics
    ///
    /// If it is none to this case.
    pub fn loss(&self, answer: &Compressed) -> f64 {
        assert_eq!(answer.check(&self.products()), Ok(()));
        let numbers = match &answer.weights[0] {
            Chosen::Values(values) => self.rounded(values),
            Chosen::Codes { codes, scales, mins } => {
                let number = |(i, code): (usize, &u8)| {
                    let group = i / self.grid.group;
                    let min = mins.get(group).copied().unwrap_or(0.0);
                    self.grid.value(*code, scales[group], min)
                };
                codes.iter().enumerate().map(number).collect()
            }
        };
        let scale = |i: usize| answer.input_scale.get(i % self.cols).copied().unwrap_or(1.0);
        let undone: Vec<f32> = numbers.iter().enumerate().map(|(i, x)| x / scale(i)).collect();
        self.distance(&undone)
    }

    /// The same for the nearest numbers of the grid.
    pub fn loss_of_rounding(&self) -> f64 {
        self.distance(&self.rounded(&self.values))
    }

    fn rounded(&self, values: &[f32]) -> Vec<f32> {
        let group = |x: &[f32]| {
            let (scale, min) = self.grid.fit(x.iter().copied(), 1.0);
            let number = |&x: &f32| self.grid.value(self.grid.code(x, scale, min), scale, min);
            x.iter().map(number).collect::<Vec<f32>>()
        };
        values.chunks(self.grid.group).flat_map(group).collect()
    }

    fn distance(&self, numbers: &[f32]) -> f64 {
        let mut loss = 0.0;
        for (x, y) in self.values.chunks(self.cols).zip(numbers.chunks(self.cols)) {
            let error: Vec<f64> = x.iter().zip(y).map(|(x, y)| f64::from(x - y)).collect();
            for (e, line) in error.iter().zip(self.moments.chunks(self.cols)) {
                let products = line.iter().zip(&error).map(|(m, other)| f64::from(*m) * other);
                loss += e * products.sum::<f64>();
            }
        }
        loss / self.rows as f64
    }
}

const GROUP: usize = 32;
const TOKENS: usize = 400;
/// Fewer than channels: these go together.
const SOURCES: usize = 12;
