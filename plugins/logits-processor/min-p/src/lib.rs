//! Min-p: drops every token less likely than `p` times the likeliest one.
//!
//! Source: Nguyen et al., "Turning Up the Heat: Min-p Sampling", arXiv:2407.01082.

use plugin_api::prelude::*;

/// Truncates the tail of a distribution relative to its peak.
#[derive(Debug)]
pub struct MinP {
    /// `p` of a request that names none; 0 keeps everything.
    default: f32,
    /// `ln(p)` of each row: dividing probabilities is subtracting logits.
    log_p: RowMap<f32>,
}

impl Capability for MinP {
    const NAME: &'static str = "min-p";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { default: config.unit_interval_or("min_p", 0.0)?, log_p: RowMap::new() })
    }
}

impl LogitsProcessor for MinP {
    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()> {
        let default = self.default;
        self.log_p.follow(change, |params, _| Ok(params.unit_interval_or("min_p", default)?.ln()))
    }

    fn need(&self) -> Need {
        Need::Max
    }

    fn apply(&mut self, logits: &mut LogitsRows<'_>) -> Result<()> {
        logits.for_each(|row| {
            match self.log_p.get(row.id()) {
                Some(&log_p) if log_p > f32::NEG_INFINITY => {
                    let peak = row.max();
                    row.keep_above(peak + log_p);
                }
                _ => {}
            }
            Ok(())
        })
    }

    fn is_argmax_invariant(&self) -> bool {
        true // The peak always survives.
    }
}

export_plugin!(MinP);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::logits_processor;

    #[test]
    fn passes_the_contract_suite() {
        logits_processor::suite::<MinP>(&Config::new().with("min_p", 0.1));
    }

    #[test]
    fn keeps_tokens_within_p_of_the_peak() {
        const CUT: f32 = f32::NEG_INFINITY;
        let (one, half, tenth) = (1.0_f32.ln(), 0.5_f32.ln(), 0.1_f32.ln());
        #[rustfmt::skip]
        let cases = [
            // name              p     in                     out
            ("cuts the tail",    0.2, [one, half, tenth],    [one, half, CUT]),
            ("p = 0 keeps all",  0.0, [one, half, tenth],    [one, half, tenth]),
            ("p = 1 keeps peak", 1.0, [one, half, tenth],    [one, CUT, CUT]),
            ("ties survive",     1.0, [half, half, tenth],   [half, half, CUT]),
            ("masked stays so",  0.2, [one, CUT, tenth],     [one, CUT, CUT]),
            ("all masked",       0.2, [CUT, CUT, CUT],       [CUT, CUT, CUT]),
        ];
        for (name, p, logits, expected) in cases {
            let params = Config::new().with("min_p", p);
            let found = logits_processor::apply::<MinP>(&params, &[], &logits);
            assert_eq!(found, expected, "{name}");
        }
    }
}
