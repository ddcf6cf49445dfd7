//! Wsd: a warm-up, a long stable part, and a short decay at the end.
//!
//! A run can be prolonged from any stable step. Source: Hu et al., "MiniCPM", arXiv:2404.06395, section 4; the
//! shape of the decay: Hägele et al., arXiv:2405.18392, section 3.2.

use plugin_api::prelude::*;

/// Traces 1, or the warm-up, or the decay, whichever is least.
#[derive(Debug)]
pub struct Wsd {
    warmup_steps: u64,
    /// Share of the run that the decay takes.
    decay: f64,
    floor: f64,
    is_linear: bool,
}

impl Capability for Wsd {
    const NAME: &'static str = "wsd";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self {
            warmup_steps: config.count_or("warmup_steps", 0, 0..=1 << 24)?,
            decay: config.number_or("decay", 0.1, 0.0..=1.0)?,
            floor: config.number_or("floor", 0.0, 0.0..=1.0)?,
            is_linear: config.one_of("shape", &["one-minus-sqrt", "linear"])? == "linear",
        })
    }
}

impl Traced for Wsd {
    fn semantic_id(&self) -> SemanticId {
        let Self { warmup_steps, decay, floor, is_linear } = self;
        SemanticId::new(format!("wsd/1 {warmup_steps} {decay} {floor} {is_linear}"))
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let &[step] = x else {
            return Err(Error::shape("wsd", "a step", x.len()));
        };
        let num_steps = at.config.count("num_steps", 1..=1 << 24)? as f64;
        let length = (self.decay * num_steps).round().max(1.0);
        let (zero, one) = (g.full_like(step, 0.0)?, g.full_like(step, 1.0)?);
        let since = g.offset(step, length - num_steps)?;
        let progress = g.scale(since, 1.0 / length)?;
        let progress = g.one(ops::MAX, &[progress, zero], Attrs::new())?;
        let progress = g.one(ops::MIN, &[progress, one], Attrs::new())?;
        let gone = if self.is_linear { progress } else { g.unary(ops::SQRT, progress)? };
        let gone = g.scale(gone, self.floor - 1.0)?;
        let factor = g.offset(gone, 1.0)?;
        let count = g.offset(step, 1.0)?;
        let warmed = g.scale(count, 1.0 / self.warmup_steps.max(1) as f64)?;
        Ok(vec![g.one(ops::MIN, &[warmed, factor], Attrs::new())?])
    }
}

impl LrSchedule for Wsd {}

export_plugin!(Wsd);

#[cfg(test)]
mod tests {
    use plugin_api::testing::lr_schedule::{factor, suite, trace};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<Wsd>();
    }

    #[test]
    fn warms_up_stays_and_falls() {
        let config = Config::new().with("warmup_steps", 2).with("decay", 0.4).with("floor", 0.2);
        #[rustfmt::skip]
        let cases = [
            // step:         0    1    5    6    7    8    9    10   99
            ("linear",         [0.5, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2]),
            ("one-minus-sqrt", [0.5, 1.0, 1.0, 1.0, 0.6, 1.0 - 0.8 * 0.5_f64.sqrt(), 1.0 - 0.8 * 0.75_f64.sqrt(), 0.2, 0.2]),
        ];
        for (shape, expected) in cases {
            let config = config.clone().with("shape", shape);
            let plan = trace(&Wsd::from_config(&config).unwrap(), 10);
            for (step, expected) in [0, 1, 5, 6, 7, 8, 9, 10, 99].into_iter().zip(expected) {
                let found = factor(&plan, step);
                assert!(
                    (found - expected).abs() < 1e-6,
                    "{shape}, step {step}: {found}, {expected}"
                );
            }
        }
    }
}
