//! Lion: each element steps by the learning rate, in the direction of its momentum.
//!
//! Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675, program 1.

use plugin_api::kinds::optimizer::{Elements, keep};
use plugin_api::prelude::*;

/// Traces `parameter − rate · (sign(β₁ m + (1 − β₁) gradient) + weight_decay · parameter)`.
#[derive(Debug)]
pub struct Lion {
    beta1: f64,
    beta2: f64,
    weight_decay: f64,
}

impl Capability for Lion {
    const NAME: &'static str = "lion";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self {
            beta1: config.number_or("beta1", 0.9, 0.0..=1.0)?,
            beta2: config.number_or("beta2", 0.99, 0.0..=1.0)?,
            weight_decay: config.number_or("weight_decay", 0.0, 0.0..=1e3)?,
        })
    }
}

impl Traced for Lion {
    fn semantic_id(&self) -> SemanticId {
        let Self { beta1, beta2, weight_decay } = self;
        SemanticId::new(format!("lion/1 {beta1} {beta2} {weight_decay}"))
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let step = Elements::of(g, x)?;
        let before = step.state(g, "momentum")?;
        let mut mixed = |beta: f64| {
            let (old, new) = (g.scale(before, beta)?, g.scale(step.gradient, 1.0 - beta)?);
            g.add(old, new)
        };
        let (direction, momentum) = (mixed(self.beta1)?, mixed(self.beta2)?);
        keep(g, "momentum", momentum)?;
        let up = g.unary(ops::IS_POSITIVE, direction)?;
        let opposite = g.unary(ops::NEG, direction)?;
        let down = g.unary(ops::IS_POSITIVE, opposite)?;
        let mut step_by = g.sub(up, down)?;
        if self.weight_decay > 0.0 {
            let decay = g.scale(step.parameter, self.weight_decay)?;
            step_by = g.add(step_by, decay)?;
        }
        let step_by = g.mul(step_by, step.learning_rate)?;
        step.less(g, step_by)
    }
}

impl Optimizer for Lion {}

export_plugin!(Lion);

#[cfg(test)]
mod tests {
    use plugin_api::testing::optimizer::{Run, suite, trace};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<Lion>();
    }

    #[test]
    fn steps_along_the_sign_of_the_momentum() {
        let config = Config::new().with("beta1", 0.5).with("beta2", 0.75).with("weight_decay", 0.5);
        let plan = trace(&Lion::from_config(&config).unwrap(), &[3]);
        let mut run = Run::new(&plan, &[1.0, 1.0, 0.0]);
        // Momentum 0; the directions are 1, -2, 0.
        run.step::<f64>(&plan, &[2.0, -4.0, 0.0], 0.1);
        assert!(is_near(&run.parameter, [0.85, 1.05, 0.0]), "{run:?}");
        // Momentum 0.5, -1, 0; the directions are -0.25, 0, 1.
        run.step::<f64>(&plan, &[-1.0, 1.0, 2.0], 0.1);
        assert!(is_near(&run.parameter, [0.85 * 0.95 + 0.1, 1.05 * 0.95, -0.1]), "{run:?}");
    }

    fn is_near(found: &[f64], expected: [f64; 3]) -> bool {
        found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12)
    }
}
