//! Sgd: steps against the gradient, with momentum if asked.
//!
//! As `torch.optim.SGD`. Source: Sutskever et al., "On the importance of initialization and momentum
//! in deep learning", ICML 2013, in PyTorch's form.

use plugin_api::kinds::optimizer::{Elements, keep};
use plugin_api::prelude::*;

/// Traces `m ← momentum · m + gradient`, `parameter ← parameter − rate · m`.
#[derive(Debug)]
pub struct Sgd {
    momentum: f64,
    nesterov: bool,
    /// Of the square of the parameter, part of the gradient.
    weight_decay: f64,
}

impl Capability for Sgd {
    const NAME: &'static str = "sgd";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self {
            momentum: config.number_or("momentum", 0.0, 0.0..=1.0)?,
            nesterov: config.flag_or("nesterov", false)?,
            weight_decay: config.number_or("weight_decay", 0.0, 0.0..=1e3)?,
        })
    }
}

impl Traced for Sgd {
    fn semantic_id(&self) -> SemanticId {
        let Self { momentum, nesterov, weight_decay } = self;
        SemanticId::new(format!("sgd/1 {momentum} {nesterov} {weight_decay}"))
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let step = Elements::of(g, x)?;
        let mut gradient = step.gradient;
        if self.weight_decay > 0.0 {
            let decay = g.scale(step.parameter, self.weight_decay)?;
            gradient = g.add(gradient, decay)?;
        }
        let mut direction = gradient;
        if self.momentum > 0.0 {
            let before = step.state(g, "momentum")?;
            let slowed = g.scale(before, self.momentum)?;
            let momentum = g.add(slowed, gradient)?;
            keep(g, "momentum", momentum)?;
            direction = momentum;
            if self.nesterov {
                let ahead = g.scale(momentum, self.momentum)?;
                direction = g.add(gradient, ahead)?;
            }
        }
        let step_by = g.mul(direction, step.learning_rate)?;
        step.less(g, step_by)
    }
}

impl Optimizer for Sgd {}

export_plugin!(Sgd);

#[cfg(test)]
mod tests {
    use plugin_api::testing::optimizer::{Run, suite, trace};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<Sgd>();
    }

    #[test]
    fn steps_as_pytorch_does() {
        let nesterov = Config::new().with("momentum", 0.9).with("nesterov", true);
        let decay = Config::new().with("momentum", 0.9).with("weight_decay", 0.1);
        // tests/golden/make/optimizers.py: three steps at a rate of 0.1, PyTorch 1.13.1 in f64.
        #[rustfmt::skip]
        let cases = [
            (Config::new(), SGD_PLAIN),
            (nesterov,      SGD_NESTEROV),
            (decay,         SGD_DECAY),
        ];
        for (config, expected) in cases {
            let sgd = Sgd::from_config(&config).unwrap();
            let plan = trace(&sgd, &[4]);
            let mut run = Run::new(&plan, &[1.0, -0.5, 0.25, 2.0]);
            for gradient in [[0.5, -1.0, 0.0, 2.0], [-0.25, 0.75, 1.0, 1.0], [1.5, 0.5, -2.0, 0.0]]
            {
                run.step::<f64>(&plan, &gradient, 0.1);
            }
            let pairs = run.parameter.iter().zip(expected);
            assert!(pairs.clone().all(|(a, b)| (a - b).abs() < 1e-12), "{config:?}: {run:?}");
        }
    }

    // Made by tests/golden/make/optimizers.py with PyTorch 1.13.1.
    const SGD_PLAIN: [f64; 4] = [0.825, -0.525, 0.35, 1.7];
    const SGD_NESTEROV: [f64; 4] = [0.6108, -0.45435, 0.35900000000000004, 1.0412];
    const SGD_DECAY: [f64; 4] = [0.708024, -0.39672949999999996, 0.24709475, 1.165338];
}
