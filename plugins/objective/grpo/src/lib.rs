//! Grpo: answers that are better than their group are to become likelier, within limits.
//!
//! Sources: Shao et al., "DeepSeekMath", arXiv:2402.03300, section 4.1; the upper limit and the mean over tokens: Yu et al.,
//! "DAPO", arXiv:2503.14476; without deviations and lengths: Liu et al., "Dr. GRPO", arXiv:2503.20783; the estimate
//! of the divergence: Schulman, "Approximating KL divergence", 2020, k3.

use plugin_api::kinds::objective::Rows;
use plugin_api::prelude::*;

/// Traces `−min(ρ A, clip(ρ, 1 − ε, 1 + ε_high) A) + β k3` with `ρ = π / π_old`, by token.
#[derive(Debug)]
pub struct Grpo {
    mean: Mean,
    epsilon: f64,
    epsilon_high: f64,
    beta: f64,
    scale_rewards: bool,
}

/// What the loss is a mean of.
#[derive(Debug, Clone, Copy)]
enum Mean {
    /// Of each sequence's mean.
    Sequences,
    /// Of all tokens.
    Tokens,
    /// Of each sequence's sum over this many tokens.
    Length(u64),
}

impl Capability for Grpo {
    const NAME: &'static str = "grpo";

    fn from_config(config: &Config) -> Result<Self> {
        let mean = match config.has("loss") {
            true => config.one_of("loss", &["grpo", "dapo", "dr-grpo"])?,
            false => "dapo",
        };
        let mean = match mean {
            "grpo" => Mean::Sequences,
            "dapo" => Mean::Tokens,
            _ => Mean::Length(config.count("length_max", 1..=1 << 32)?),
        };
        let epsilon = config.number_or("epsilon", 0.2, 0.0..=1.0)?;
        Ok(Self {
            mean,
            epsilon,
            epsilon_high: config.number_or("epsilon_high", epsilon, 0.0..=100.0)?,
            beta: config.number_or("beta", 0.0, 0.0..=1e3)?,
            scale_rewards: config.flag_or("scale_rewards", !matches!(mean, Mean::Length(_)))?,
        })
    }
}

impl Traced for Grpo {
    fn semantic_id(&self) -> SemanticId {
        let Self { mean, epsilon, epsilon_high, beta, scale_rewards } = self;
        SemanticId::new(format!("grpo/1 {mean:?} {epsilon} {epsilon_high} {beta} {scale_rewards}"))
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let rows = Rows::of(g, x)?;
        let (logprobs, old) = (rows.logprobs(g)?, rows.per_row(g, "old_logprobs")?);
        let advantages = self.advantages(g, rows)?;
        let advantages = rows.spread(g, advantages)?;
        let change = g.sub(logprobs, old)?;
        let ratios = g.unary(ops::EXP, change)?;
        let (least, most) = (
            g.full_like(ratios, 1.0 - self.epsilon)?,
            g.full_like(ratios, 1.0 + self.epsilon_high)?,
        );
        let raised = g.one(ops::MAX, &[ratios, least], Attrs::new())?;
        let clipped = g.one(ops::MIN, &[raised, most], Attrs::new())?;
        let (free, within) = (g.mul(ratios, advantages)?, g.mul(clipped, advantages)?);
        let gain = g.one(ops::MIN, &[free, within], Attrs::new())?;
        let mut losses = g.unary(ops::NEG, gain)?;
        if self.beta > 0.0 {
            let reference = rows.per_row(g, "reference_logprobs")?;
            let divergence = k3(g, logprobs, reference)?;
            let held = g.scale(divergence, self.beta)?;
            losses = g.add(losses, held)?;
        }
        match self.mean {
            Mean::Tokens => rows.mean_of_rows(g, losses),
            Mean::Sequences => {
                let (sums, lengths) = (rows.sum_by_sequence(g, losses)?, rows.lengths(g)?);
                let means = g.one(ops::DIV, &[sums, lengths], Attrs::new())?;
                rows.mean_of_sequences(g, means)
            }
            Mean::Length(most) => {
                let sums = rows.sum_by_sequence(g, losses)?;
                let means = g.scale(sums, 1.0 / most as f64)?;
                rows.mean_of_sequences(g, means)
            }
        }
    }
}

impl Grpo {
    /// Rewards less the mean of their group, over its deviation, `[seqs, 1]`. A group of one is as its mean.
    fn advantages(&self, g: &mut dyn OpSink, rows: Rows) -> Result<Val> {
        let rewards = rows.per_sequence(g, "rewards")?;
        let group = rows.index_of_sequence(g, "group")?;
        let (ones, zeros) = (g.full_like(rewards, 1.0)?, g.full_like(rewards, 0.0)?);
        let by_group =
            |g: &mut dyn OpSink, x: Val| g.one(ops::SCATTER_ADD, &[zeros, group, x], Attrs::new());
        let counts = by_group(g, ones)?;
        let sums = by_group(g, rewards)?;
        let at_least_one = g.one(ops::MAX, &[counts, ones], Attrs::new())?;
        let means = g.one(ops::DIV, &[sums, at_least_one], Attrs::new())?;
        let means = g.gather(means, group)?;
        let off = g.sub(rewards, means)?;
        if !self.scale_rewards {
            return Ok(off);
        }
        let squares = g.mul(off, off)?;
        let squares = by_group(g, squares)?;
        let others = g.offset(counts, -1.0)?;
        let others = g.one(ops::MAX, &[others, ones], Attrs::new())?;
        let variances = g.one(ops::DIV, &[squares, others], Attrs::new())?;
        // Away from 0, where a root has no derivative.
        let variances = g.offset(variances, 1e-12)?;
        let deviations = g.unary(ops::SQRT, variances)?;
        let deviations = g.gather(deviations, group)?;
        let floored = g.offset(deviations, 1e-4)?;
        g.one(ops::DIV, &[off, floored], Attrs::new())
    }
}

/// `e^d − d − 1` with `d = ln π_ref − ln π`.
fn k3(g: &mut dyn OpSink, logprobs: Val, reference: Val) -> Result<Val> {
    let d = g.sub(reference, logprobs)?;
    let ratio = g.unary(ops::EXP, d)?;
    let above = g.sub(ratio, d)?;
    g.offset(above, -1.0)
}

impl Objective for Grpo {}

export_plugin!(Grpo);

#[cfg(test)]
mod tests {
    use plugin_api::testing::objective::{golden, suite};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<Grpo>();
    }

    #[test]
    fn losses_and_gradients_are_those_of_trl() {
        let table = |loss: &str| Config::new().with("loss", loss).with("epsilon", 0.1);
        #[rustfmt::skip]
        let cases = [
            ("grpo_grpo", table("grpo").with("beta", 0.04)),
            ("grpo_dapo", table("dapo").with("epsilon_high", 0.28)),
            ("grpo_dr",   table("dr-grpo").with("length_max", 5)),
        ];
        for (name, config) in cases {
            golden(GOLDEN, name, &Grpo::from_config(&config).unwrap());
        }
    }

    /// By tests/golden/make/objectives.py.
    const GOLDEN: &str = include_str!("../golden.txt");
}
