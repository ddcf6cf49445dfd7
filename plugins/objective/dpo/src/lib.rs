//! Dpo: of two answers the preferred one is to become likelier, compared with a reference.
//!
//! Sources: Rafailov et al., "Direct Preference Optimization", arXiv:2305.18290, equation 7; hinge: Zhao et al.,
//! arXiv:2305.10425; IPO: Azar et al., arXiv:2310.12036, equation 17, per token as TRL has it;
//! smoothing: Mitchell, "A note on DPO with noisy preferences", 2023.

use plugin_api::kinds::objective::{Rows, softplus};
use plugin_api::prelude::*;

/// Traces a loss of `Δ = (ln π − ln π_ref)` of the preferred answer less that of the other.
#[derive(Debug)]
pub struct Dpo {
    loss: Loss,
    beta: f64,
    /// Share of pairs whose preference is taken to be wrong.
    label_smoothing: f64,
}

#[derive(Debug, Clone, Copy)]
enum Loss {
    Sigmoid,
    Hinge,
    Ipo,
}

impl Capability for Dpo {
    const NAME: &'static str = "dpo";

    fn from_config(config: &Config) -> Result<Self> {
        let loss = match config.has("loss") {
            true => config.one_of("loss", &["sigmoid", "hinge", "ipo"])?,
            false => "sigmoid",
        };
        let loss = match loss {
            "hinge" => Loss::Hinge,
            "ipo" => Loss::Ipo,
            _ => Loss::Sigmoid,
        };
        let label_smoothing = config.number_or("label_smoothing", 0.0, 0.0..=0.5)?;
        if label_smoothing > 0.0 && !matches!(loss, Loss::Sigmoid) {
            let found = config.get("label_smoothing");
            return Err(config.wrong("label_smoothing", "0 unless `loss` is `sigmoid`", found));
        }
        Ok(Self { loss, beta: config.number_or("beta", 0.1, 1e-6..=1e6)?, label_smoothing })
    }
}

impl Traced for Dpo {
    fn semantic_id(&self) -> SemanticId {
        let Self { loss, beta, label_smoothing } = self;
        SemanticId::new(format!("dpo/1 {loss:?} {beta} {label_smoothing}"))
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let rows = Rows::of(g, x)?;
        let (logprobs, reference) = (rows.logprobs(g)?, rows.per_row(g, "reference_logprobs")?);
        let ratios = g.sub(logprobs, reference)?;
        let mut scores = rows.sum_by_sequence(g, ratios)?;
        if matches!(self.loss, Loss::Ipo) {
            let lengths = rows.lengths(g)?;
            scores = g.one(ops::DIV, &[scores, lengths], Attrs::new())?;
        }
        let delta = rows.ahead_of_partner(g, scores)?;
        let losses = match self.loss {
            Loss::Sigmoid => self.sigmoid(g, delta)?,
            Loss::Hinge => {
                let margin = g.scale(delta, -self.beta)?;
                let missing = g.offset(margin, 1.0)?;
                let zeros = g.full_like(missing, 0.0)?;
                g.one(ops::MAX, &[missing, zeros], Attrs::new())?
            }
            Loss::Ipo => {
                let off = g.offset(delta, -0.5 / self.beta)?;
                g.mul(off, off)?
            }
        };
        rows.mean_of_sequences(g, losses)
    }
}

impl Dpo {
    /// `−(1 − ε) ln σ(β Δ) − ε ln σ(−β Δ)`.
    fn sigmoid(&self, g: &mut dyn OpSink, delta: Val) -> Result<Val> {
        let behind = g.scale(delta, -self.beta)?;
        let loss = softplus(g, behind)?;
        if self.label_smoothing == 0.0 {
            return Ok(loss);
        }
        let ahead = g.scale(delta, self.beta)?;
        let other = softplus(g, ahead)?;
        let loss = g.scale(loss, 1.0 - self.label_smoothing)?;
        let other = g.scale(other, self.label_smoothing)?;
        g.add(loss, other)
    }
}

impl Objective for Dpo {}

export_plugin!(Dpo);

#[cfg(test)]
mod tests {
    use plugin_api::testing::objective::{golden, suite};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<Dpo>();
    }

    #[test]
    fn losses_and_gradients_are_those_of_trl() {
        let table = || Config::new().with("beta", 0.5);
        #[rustfmt::skip]
        let cases = [
            ("dpo_sigmoid",  table()),
            ("dpo_smoothed", table().with("label_smoothing", 0.2)),
            ("dpo_hinge",    table().with("loss", "hinge")),
            ("dpo_ipo",      table().with("loss", "ipo")),
        ];
        for (name, config) in cases {
            golden(GOLDEN, name, &Dpo::from_config(&config).unwrap());
        }
    }

    #[test]
    fn smoothing_belongs_to_the_sigmoid() {
        let config = Config::new().with("loss", "ipo").with("label_smoothing", 0.1);
        let error = Dpo::from_config(&config).unwrap_err().to_string();
        assert!(error.contains("label_smoothing"), "{error}");
    }

    /// By tests/golden/make/objectives.py.
    const GOLDEN: &str = include_str!("../golden.txt");
}
