//! AdamW: steps of a size of their own for each element, and weight decay beside them.
//!
//! As `torch.optim.AdamW`. Source: Loshchilov and Hutter, arXiv:1711.05101, algorithm 2.

use plugin_api::kinds::optimizer::{Elements, keep, state};
use plugin_api::prelude::*;

/// Traces Adam's step, and the parameter's decay by `rate · weight_decay` before it.
#[derive(Debug)]
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    /// Whether norms and biases decay, too.
    decays_vectors: bool,
}

impl Capability for AdamW {
    const NAME: &'static str = "adamw";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self {
            beta1: config.number_or("beta1", 0.9, 0.0..=0.999_999)?,
            beta2: config.number_or("beta2", 0.999, 0.0..=0.999_999)?,
            eps: config.number_or("eps", 1e-8, 1e-30..=1.0)?,
            weight_decay: config.number_or("weight_decay", 0.01, 0.0..=1e3)?,
            decays_vectors: config.flag_or("decay_vectors", true)?,
        })
    }
}

impl Traced for AdamW {
    fn semantic_id(&self) -> SemanticId {
        let Self { beta1, beta2, eps, weight_decay, decays_vectors } = self;
        SemanticId::new(format!("adamw/1 {beta1} {beta2} {eps} {weight_decay} {decays_vectors}"))
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let is_vector = x.first().is_some_and(|&val| g.spec(val).dims.len() < 2);
        let step = Elements::of(g, x)?;
        let squares = g.mul(step.gradient, step.gradient)?;
        let mean = average(g, &step, "mean", step.gradient, self.beta1)?;
        let variance = average(g, &step, "variance", squares, self.beta2)?;
        let deviation = g.unary(ops::SQRT, variance)?;
        let floored = g.offset(deviation, self.eps)?;
        let direction = g.one(ops::DIV, &[mean, floored], Attrs::new())?;
        let mut step_by = g.mul(direction, step.learning_rate)?;
        if self.weight_decay > 0.0 && (self.decays_vectors || !is_vector) {
            let share = g.scale(step.learning_rate, self.weight_decay)?;
            let decay = g.mul(step.parameter, share)?;
            step_by = g.add(step_by, decay)?;
        }
        step.less(g, step_by)
    }
}

/// The average of `x` over the steps so far, recent ones counting most: `s / w` with `s ← β s + (1 − β) x` and
/// `w ← β w + (1 − β)`. `w` is `1 − βᵗ` after t steps, without the cancellation of that in `f32`, and
/// steps that were skipped do not count.
fn average(g: &mut dyn OpSink, step: &Elements, name: &str, x: Val, beta: f64) -> Result<Val> {
    let before = step.state(g, name)?;
    let (slowed, share) = (g.scale(before, beta)?, g.scale(x, 1.0 - beta)?);
    let sum = g.add(slowed, share)?;
    keep(g, name, sum)?;
    let name = format!("{name}_weight");
    let spec = g.spec(step.learning_rate).clone();
    let before = state(g, &name, spec)?;
    let slowed = g.scale(before, beta)?;
    let weight = g.offset(slowed, 1.0 - beta)?;
    keep(g, &name, weight)?;
    g.one(ops::DIV, &[sum, weight], Attrs::new())
}

impl Optimizer for AdamW {}

export_plugin!(AdamW);

#[cfg(test)]
mod tests {
    use plugin_api::testing::optimizer::{Run, suite, trace};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<AdamW>();
    }

    #[test]
    fn steps_as_pytorch_does() {
        let other = Config::new().with("beta1", 0.8).with("beta2", 0.95).with("eps", 1e-3);
        // tests/golden/make/optimizers.py: three steps at a rate of 0.1, PyTorch 1.13.1 in f64.
        #[rustfmt::skip]
        let cases = [
            (Config::new(),                   ADAMW_DEFAULT),
            (other.with("weight_decay", 0.5), ADAMW_OTHER),
        ];
        for (config, expected) in cases {
            let adamw = AdamW::from_config(&config).unwrap();
            let plan = trace(&adamw, &[4]);
            let mut run = Run::new(&plan, &[1.0, -0.5, 0.25, 2.0]);
            for gradient in [[0.5, -1.0, 0.0, 2.0], [-0.25, 0.75, 1.0, 1.0], [1.5, 0.5, -2.0, 0.0]]
            {
                run.step::<f64>(&plan, &gradient, 0.1);
            }
            let pairs = run.parameter.iter().zip(expected);
            assert!(pairs.clone().all(|(a, b)| (a - b).abs() < 1e-9), "{config:?}: {run:?}");
        }
    }

    #[test]
    fn vectors_can_be_kept_from_decay() {
        let config = Config::new().with("weight_decay", 0.5).with("decay_vectors", false);
        let adamw = AdamW::from_config(&config).unwrap();
        for (dims, expected) in [(&[2][..], 1.0), (&[1, 2], 0.95)] {
            let plan = trace(&adamw, dims);
            let mut run = Run::new(&plan, &[1.0, 1.0]);
            run.step::<f64>(&plan, &[0.0, 0.0], 0.1);
            assert!(
                run.parameter.iter().all(|x| (x - expected).abs() < 1e-12),
                "{dims:?}: {run:?}"
            );
        }
    }

    // Made by tests/golden/make/optimizers.py with PyTorch 1.13.1.
    const ADAMW_DEFAULT: [f64; 4] =
        [0.8035457756154056, -0.4071092905095643, 0.20634009883275853, 1.7290233974743376];
    const ADAMW_OTHER: [f64; 4] =
        [0.6768188817667328, -0.3600183051413481, 0.17805180081403363, 1.4697693937867353];
}
