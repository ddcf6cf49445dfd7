//! Repetition penalty: makes tokens less likely that prompt or answer already contain.
//!
//! Source: Keskar et al., "CTRL: A Conditional Transformer Language Model", arXiv:1909.05858, 4.1.

use plugin_api::prelude::*;

/// Divides positive and multiplies negative logits of seen tokens, once per distinct token.
#[derive(Debug)]
pub struct RepetitionPenalty {
    /// Penalty of a request that names none; 1 changes nothing.
    default: f64,
    rows: RowMap<Option<Seen>>,
}

/// Rows without a penalty keep no such thing.
#[derive(Debug, Clone)]
struct Seen {
    penalty: f32,
    /// Distinct tokens of prompt and answer, ascending.
    tokens: Vec<u32>,
}

impl FollowTokens for Seen {
    fn push(&mut self, token: u32) {
        if let Err(place) = self.tokens.binary_search(&token) {
            self.tokens.insert(place, token);
        }
    }

    fn restart(&mut self, history: &[u32]) {
        self.tokens.clear();
        self.tokens.extend_from_slice(history);
        self.tokens.sort_unstable();
        self.tokens.dedup();
    }
}

impl Capability for RepetitionPenalty {
    const NAME: &'static str = "repetition-penalty";

    fn from_config(config: &Config) -> Result<Self> {
        let default = config.number_or("repetition_penalty", 1.0, RANGE)?;
        Ok(Self { default, rows: RowMap::new() })
    }
}

impl LogitsProcessor for RepetitionPenalty {
    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()> {
        let default = self.default;
        self.rows.follow_tokens(change, |params, history| {
            let penalty = params.number_or("repetition_penalty", default, RANGE)? as f32;
            if penalty == 1.0 {
                return Ok(None);
            }
            // Room for the answer, so that following it rarely allocates.
            let mut seen = Seen { penalty, tokens: Vec::with_capacity(history.len() + 1024) };
            seen.restart(history);
            Ok(Some(seen))
        })
    }

    fn need(&self) -> Need {
        Need::Ids
    }

    fn apply(&mut self, logits: &mut LogitsRows<'_>) -> Result<()> {
        logits.for_each(|row| {
            let Some(Some(seen)) = self.rows.get(row.id()) else { return Ok(()) };
            for &token in &seen.tokens {
                let logit = row.logit(token);
                let is_positive = logit > 0.0;
                row.set(
                    token,
                    if is_positive { logit / seen.penalty } else { logit * seen.penalty },
                );
            }
            Ok(())
        })
    }
}

const RANGE: std::ops::RangeInclusive<f64> = 0.01..=100.0;

export_plugin!(RepetitionPenalty);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::logits_processor;

    #[test]
    fn passes_the_contract_suite() {
        let params = Config::new().with("repetition_penalty", 1.3);
        logits_processor::suite::<RepetitionPenalty>(&params);
    }

    #[test]
    fn makes_seen_tokens_less_likely() {
        const CUT: f32 = f32::NEG_INFINITY;
        #[rustfmt::skip]
        let cases: [(&str, f64, &[u32], [f32; 4]); 6] = [
            // name                 penalty  history       out of [2, -2, 1, masked]
            ("divides or multiplies", 2.0,   &[0, 1],      [1.0, -4.0, 1.0, CUT]),
            ("once per token",      2.0,     &[0, 0, 0],   [1.0, -2.0, 1.0, CUT]),
            ("masked stays so",     2.0,     &[3],         [2.0, -2.0, 1.0, CUT]),
            ("below 1 it rewards",  0.5,     &[0, 1],      [4.0, -1.0, 1.0, CUT]),
            ("1 changes nothing",   1.0,     &[0, 1, 2],   [2.0, -2.0, 1.0, CUT]),
            ("beyond the vocabulary", 2.0,   &[99],        [2.0, -2.0, 1.0, CUT]),
        ];
        for (name, penalty, history, expected) in cases {
            let params = Config::new().with("repetition_penalty", penalty);
            let logits = [2.0, -2.0, 1.0, CUT];
            let found = logits_processor::apply::<RepetitionPenalty>(&params, history, &logits);
            assert_eq!(found, expected, "{name}");
        }
    }
}
