//! Constant: one learning rate for the whole run, after a linear warm-up if asked.
//!
//! Source: Goyal et al., arXiv:1706.02677, section 2.2, for the warm-up.

use plugin_api::prelude::*;

/// Traces `min(1, (step + 1) / warmup_steps)`.
#[derive(Debug)]
pub struct Constant {
    warmup_steps: u64,
}

impl Capability for Constant {
    const NAME: &'static str = "constant";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { warmup_steps: config.count_or("warmup_steps", 0, 0..=1 << 24)? })
    }
}

impl Traced for Constant {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new(format!("constant/1 {}", self.warmup_steps))
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let &[step] = x else {
            return Err(Error::shape("constant", "a step", x.len()));
        };
        let one = g.full_like(step, 1.0)?;
        let count = g.offset(step, 1.0)?;
        let warmed = g.scale(count, 1.0 / self.warmup_steps.max(1) as f64)?;
        Ok(vec![g.one(ops::MIN, &[warmed, one], Attrs::new())?])
    }
}

impl LrSchedule for Constant {}

export_plugin!(Constant);

#[cfg(test)]
mod tests {
    use plugin_api::testing::lr_schedule::{factor, suite, trace};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<Constant>();
    }

    #[test]
    fn warms_up_and_stays() {
        let constant = Constant::from_config(&Config::new().with("warmup_steps", 4)).unwrap();
        let plan = trace(&constant, 10);
        let found: Vec<f64> = (0..6).map(|step| factor(&plan, step)).collect();
        assert_eq!(found, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
    }
}
