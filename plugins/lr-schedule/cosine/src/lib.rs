//! Cosine: half a cosine from the full learning rate down to a floor, after a linear warm-up.
//!
//! As `CosineAnnealingLR` after `LinearLR` of PyTorch. Source: Loshchilov and Hutter, arXiv:1608.03983.

use std::f64::consts::PI;

use plugin_api::prelude::*;

/// Traces `floor + (1 − floor) · (1 + cos(π · progress)) / 2`, or the warm-up while that is less.
#[derive(Debug)]
pub struct Cosine {
    warmup_steps: u64,
    floor: f64,
}

impl Capability for Cosine {
    const NAME: &'static str = "cosine";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self {
            warmup_steps: config.count_or("warmup_steps", 0, 0..=1 << 24)?,
            floor: config.number_or("floor", 0.0, 0.0..=1.0)?,
        })
    }
}

impl Traced for Cosine {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new(format!("cosine/1 {} {}", self.warmup_steps, self.floor))
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let &[step] = x else {
            return Err(Error::shape("cosine", "a step", x.len()));
        };
        let num_steps = at.config.count("num_steps", 1..=1 << 24)?;
        let (zero, one) = (g.full_like(step, 0.0)?, g.full_like(step, 1.0)?);
        let length = num_steps.saturating_sub(self.warmup_steps).max(1);
        let since = g.offset(step, -(self.warmup_steps as f64))?;
        let progress = g.scale(since, 1.0 / length as f64)?;
        let progress = g.one(ops::MAX, &[progress, zero], Attrs::new())?;
        let progress = g.one(ops::MIN, &[progress, one], Attrs::new())?;
        let angle = g.scale(progress, PI)?;
        let cosine = g.unary(ops::COS, angle)?;
        let height = g.scale(cosine, 0.5 * (1.0 - self.floor))?;
        let factor = g.offset(height, 0.5 * (1.0 + self.floor))?;
        let count = g.offset(step, 1.0)?;
        let warmed = g.scale(count, 1.0 / self.warmup_steps.max(1) as f64)?;
        Ok(vec![g.one(ops::MIN, &[warmed, factor], Attrs::new())?])
    }
}

impl LrSchedule for Cosine {}

export_plugin!(Cosine);

#[cfg(test)]
mod tests {
    use plugin_api::testing::lr_schedule::{factor, suite, trace};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<Cosine>();
    }

    #[test]
    fn falls_as_that_of_pytorch() {
        let config = Config::new().with("warmup_steps", 4).with("floor", 0.1);
        let plan = trace(&Cosine::from_config(&config).unwrap(), 16);
        for (step, expected) in COSINE.into_iter().enumerate() {
            let found = factor(&plan, step as u64);
            assert!((found - expected).abs() < 1e-12, "step {step}: {found}, expected {expected}");
        }
    }

    // Made by tests/golden/make/optimizers.py with PyTorch 1.13.1.
    const COSINE: [f64; 17] = [
        0.25,
        0.5,
        0.75,
        1.0,
        1.0,
        0.9846666218300807,
        0.9397114317029974,
        0.8681980515339462,
        0.7749999999999999,
        0.6664685702961343,
        0.5499999999999999,
        0.4335314297038657,
        0.3250000000000001,
        0.23180194846605368,
        0.1602885682970026,
        0.11533337816991932,
        0.1,
    ];
}
