//! Distill: the probabilities of a token are to become those of a teacher.
//!
//! Sources: Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, section 2; the reverse
//! divergence: Gu et al., "MiniLLM", arXiv:2306.08543.

use plugin_api::kinds::objective::{Rows, log_softmax};
use plugin_api::prelude::*;

/// Traces `(1 − α) T² KL + α · cross entropy`, by token, of distributions at the temperature `T`.
#[derive(Debug)]
pub struct Distill {
    is_reverse: bool,
    temperature: f64,
    /// `α`: share of the tokens themselves.
    alpha: f64,
}

impl Capability for Distill {
    const NAME: &'static str = "distill";

    fn from_config(config: &Config) -> Result<Self> {
        let is_reverse = config.has("direction")
            && config.one_of("direction", &["forward", "reverse"])? == "reverse";
        Ok(Self {
            is_reverse,
            temperature: config.number_or("temperature", 1.0, 0.01..=100.0)?,
            alpha: config.number_or("alpha", 0.0, 0.0..=1.0)?,
        })
    }
}

impl Traced for Distill {
    fn semantic_id(&self) -> SemanticId {
        let Self { is_reverse, temperature, alpha } = self;
        SemanticId::new(format!("distill/1 {is_reverse} {temperature} {alpha}"))
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let rows = Rows::of(g, x)?;
        let spec = g.spec(rows.logits).clone();
        let teacher = g.input("teacher_logits", spec)?;
        let student = self.log_probabilities(g, rows.logits)?;
        let teacher = self.log_probabilities(g, teacher)?;
        // KL(p ‖ q): the teacher's mass is p unless it is reversed.
        let (p, q) = if self.is_reverse { (student, teacher) } else { (teacher, student) };
        let (mass, off) = (g.unary(ops::EXP, p)?, g.sub(p, q)?);
        let parts = g.mul(mass, off)?;
        let divergence = g.sum(parts)?;
        let share = (1.0 - self.alpha) * self.temperature * self.temperature;
        let mut losses = g.scale(divergence, share)?;
        if self.alpha > 0.0 {
            let logprobs = rows.logprobs(g)?;
            let surprise = g.scale(logprobs, -self.alpha)?;
            losses = g.add(losses, surprise)?;
        }
        rows.mean_of_rows(g, losses)
    }
}

impl Distill {
    fn log_probabilities(&self, g: &mut dyn OpSink, logits: Val) -> Result<Val> {
        let logits = g.scale(logits, 1.0 / self.temperature)?;
        log_softmax(g, logits)
    }
}

impl Objective for Distill {}

export_plugin!(Distill);

#[cfg(test)]
mod tests {
    use plugin_api::testing::objective::{golden, suite};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<Distill>();
    }

    #[test]
    fn losses_and_gradients_are_those_of_pytorch() {
        let table = |direction: &str| Config::new().with("direction", direction);
        #[rustfmt::skip]
        let cases = [
            ("distill_forward", table("forward")),
            ("distill_reverse", table("reverse").with("temperature", 2.0)),
            ("distill_mixed",   table("forward").with("temperature", 3.0).with("alpha", 0.3)),
        ];
        for (name, config) in cases {
            golden(GOLDEN, name, &Distill::from_config(&config).unwrap());
        }
    }

    /// By tests/golden/make/objectives.py.
    const GOLDEN: &str = include_str!("../golden.txt");
}
