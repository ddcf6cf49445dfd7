//! Reward model: of two answers the preferred one is to have the greater reward.
//!
//! Sources: Bradley and Terry, Biometrika 39, 1952; the margin: Touvron et al., arXiv:2307.09288, section 3.2.2;
//! centring: Eisenstein et al., arXiv:2312.09244, section 2.

use plugin_api::kinds::objective::{Rows, softplus};
use plugin_api::prelude::*;

/// Traces `−ln σ(r − r_other − margin) + c (r + r_other)²`, where `r` is the first logit of the last row of a
/// sequence.
#[derive(Debug)]
pub struct RewardModel {
    has_margins: bool,
    centering: f64,
}

impl Capability for RewardModel {
    const NAME: &'static str = "reward-model";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self {
            has_margins: config.flag_or("margins", false)?,
            centering: config.number_or("centering", 0.0, 0.0..=1e3)?,
        })
    }
}

impl Traced for RewardModel {
    fn semantic_id(&self) -> SemanticId {
        let Self { has_margins, centering } = self;
        SemanticId::new(format!("reward-model/1 {has_margins} {centering}"))
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let rows = Rows::of(g, x)?;
        let last_row = rows.index_of_sequence(g, "last_row")?;
        let first = g.slice(rows.logits, 1, 0, 1)?;
        let rewards = g.gather(first, last_row)?;
        let mut ahead = rows.ahead_of_partner(g, rewards)?;
        let doubled = g.scale(rewards, 2.0)?;
        let sum = g.sub(doubled, ahead)?;
        if self.has_margins {
            let margins = rows.per_sequence(g, "margins")?;
            ahead = g.sub(ahead, margins)?;
        }
        let behind = g.unary(ops::NEG, ahead)?;
        let mut losses = softplus(g, behind)?;
        if self.centering > 0.0 {
            let square = g.mul(sum, sum)?;
            let off = g.scale(square, self.centering)?;
            losses = g.add(losses, off)?;
        }
        rows.mean_of_sequences(g, losses)
    }
}

impl Objective for RewardModel {}

export_plugin!(RewardModel);

#[cfg(test)]
mod tests {
    use plugin_api::testing::objective::{golden, suite};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<RewardModel>();
    }

    #[test]
    fn losses_and_gradients_are_those_of_trl() {
        #[rustfmt::skip]
        let cases = [
            ("reward_plain",  Config::new()),
            ("reward_margin", Config::new().with("margins", true).with("centering", 0.01)),
        ];
        for (name, config) in cases {
            golden(GOLDEN, name, &RewardModel::from_config(&config).unwrap());
        }
    }

    /// By tests/golden/make/objectives.py.
    const GOLDEN: &str = include_str!("../golden.txt");
}
