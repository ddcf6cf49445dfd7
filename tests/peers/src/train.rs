//! Training beside PyTorch and candle-nn: the same model, tokens of a step, optimizer and threads.

mod candle;
mod jackfield;
pub(crate) mod learn;
mod pytorch;

use std::path::Path;

use crate::engine::Failure;

/// A Llama and the tokens of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) hidden: usize,
    pub(crate) inner: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
}

/// Bytes are tokens.
const VOCAB: usize = 256;
/// Of a step.
const SEQUENCES: usize = 8;
/// Tokens.
const LENGTH: usize = 128;
const THREADS: usize = 2;
const LEARNING_RATE: f64 = 1e-3;
const EPS: f64 = 1e-5;
const ROPE_THETA: f64 = 10_000.0;
/// Of the length of the gradient.
const CLIP: f64 = 1.0;
/// Steps of a turn; the first few are not counted.
const STEPS: usize = 40;

/// What can be asked for.
pub(crate) const SHAPES: [Shape; 2] = [
    Shape { name: "2.4M", hidden: 256, inner: 683, layers: 3, heads: 8 },
    Shape { name: "11M", hidden: 384, inner: 1024, layers: 6, heads: 12 },
];

impl Shape {
    fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Elements of all matrices.
    fn parameters(&self) -> usize {
        let layer = 4 * self.hidden * self.hidden + 3 * self.hidden * self.inner;
        self.layers * layer + 2 * VOCAB * self.hidden
    }

    /// Floating point operations of a step: two for a multiply-add, three products for each parameter but
    /// the table of embeddings. Source: Kaplan et al., arXiv:2001.08361, section 2.1.
    fn flops(&self) -> f64 {
        let counted = self.parameters() - VOCAB * self.hidden;
        let attention = 2 * self.layers * self.hidden * LENGTH;
        (6 * (counted + attention) * SEQUENCES * LENGTH) as f64
    }
}

/// Prints a table for each shape: one engine after the other, `runs` times over.
pub(crate) fn compare(
    shapes: &[Shape],
    engines: &[String],
    runs: usize,
    program: &Path,
) -> Result<(), Failure> {
    for shape in shapes {
        let mut speeds: Vec<(&str, Vec<f64>)> = vec![("jackfield", Vec::new())];
        let peers = ["pytorch", "candle-nn"].into_iter();
        speeds.extend(
            peers
                .filter(|peer| engines.iter().any(|name| name == peer))
                .map(|name| (name, Vec::new())),
        );
        for run in 0..runs {
            for (name, speeds) in &mut speeds {
                eprintln!("training, {}, run {run}: {name}", shape.name);
                let steps = match *name {
                    "pytorch" => pytorch::steps(shape)?,
                    "candle-nn" => candle::steps(shape)?,
                    _ => jackfield::steps(shape, program)?,
                };
                speeds.push((SEQUENCES * LENGTH) as f64 / median(&steps));
            }
        }
        table(shape, &speeds);
    }
    Ok(())
}

fn table(shape: &Shape, speeds: &[(&str, Vec<f64>)]) {
    let (name, parameters) = (shape.name, shape.parameters());
    println!(
        "\nTraining, {name}: {parameters} parameters, {SEQUENCES} × {LENGTH} tokens a step, {THREADS} threads\n"
    );
    println!("| engine | tokens/s | GFLOP/s | jackfield is |");
    println!("|---|---|---|---|");
    let own = &speeds[0].1;
    for (name, speeds) in speeds {
        let ratios: Vec<f64> = own.iter().zip(speeds).map(|(own, other)| own / other).collect();
        let (speed, ratio) = (median(speeds), median(&ratios));
        let flops = shape.flops() * speed / (SEQUENCES * LENGTH) as f64 / 1e9;
        println!("| {name} | {speed:.0} | {flops:.1} | {ratio:.2} × |");
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A text that is the same for all: what it says does not matter to the time of a step.
fn text() -> Vec<u8> {
    let next = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        Some((*state >> 57) as u8)
    };
    let mut state = 1;
    std::iter::from_fn(|| next(&mut state)).take(SEQUENCES * LENGTH * (STEPS + 1)).collect()
}
