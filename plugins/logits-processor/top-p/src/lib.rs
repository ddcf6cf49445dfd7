//! Top-p (nucleus): keeps the fewest likeliest tokens whose probabilities reach `p`.
//!
//! Source: Holtzman et al., "The Curious Case of Neural Text Degeneration", arXiv:1904.09751.

use plugin_api::prelude::*;

/// Cuts the tail of a distribution by its mass. The token that crosses `p` stays.
#[derive(Debug)]
pub struct TopP {
    /// `p` of a request that names none; 1 keeps everything.
    default: f32,
    p: RowMap<f32>,
}

impl Capability for TopP {
    const NAME: &'static str = "top-p";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { default: config.unit_interval_or("top_p", 1.0)?, p: RowMap::new() })
    }
}

impl LogitsProcessor for TopP {
    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()> {
        let default = self.default;
        self.p.follow(change, |params, _| params.unit_interval_or("top_p", default))
    }

    fn need(&self) -> Need {
        Need::Top
    }

    fn apply(&mut self, logits: &mut LogitsRows<'_>) -> Result<()> {
        logits.for_each(|row| {
            match self.p.get(row.id()) {
                Some(&p) if p < 1.0 => row.keep_top_p(p),
                _ => {}
            }
            Ok(())
        })
    }

    fn is_argmax_invariant(&self) -> bool {
        true
    }
}

export_plugin!(TopP);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::logits_processor;

    #[test]
    fn passes_the_contract_suite() {
        logits_processor::suite::<TopP>(&Config::new().with("top_p", 0.6));
    }

    #[test]
    fn keeps_the_fewest_that_reach_p() {
        const CUT: f32 = f32::NEG_INFINITY;
        let [half, third, tenth] = [0.5_f32.ln(), 0.3_f32.ln(), 0.1_f32.ln()];
        #[rustfmt::skip]
        let cases = [
            // name                    p     in: 0.1, 0.5, 0.3, 0.1       out
            ("the crossing one stays", 0.6,  [tenth, half, third, tenth], [CUT, half, third, CUT]),
            ("the peak suffices",      0.4,  [tenth, half, third, tenth], [CUT, half, CUT, CUT]),
            ("0 keeps the peak",       0.0,  [tenth, half, third, tenth], [CUT, half, CUT, CUT]),
            ("ties go to lower ids",   0.85, [tenth, half, third, tenth], [tenth, half, third, CUT]),
            ("1 keeps everything",     1.0,  [tenth, half, third, tenth], [tenth, half, third, tenth]),
            ("masked ones stay so",    0.99, [CUT, half, third, CUT],     [CUT, half, third, CUT]),
        ];
        for (name, p, logits, expected) in cases {
            let params = Config::new().with("top_p", p);
            let found = logits_processor::apply::<TopP>(&params, &[], &logits);
            assert_eq!(found, expected, "{name}");
        }
    }
}
