//! Occurrence penalties: make tokens less likely the more often the answer has them.
//!
//! Source: the OpenAI API reference, `presence_penalty` and `frequency_penalty`.

use plugin_api::prelude::*;

/// Subtracts from the logits of tokens that the answer contains, once each and once per occurrence.
#[derive(Debug)]
pub struct OccurrencePenalty {
    /// Penalties of a request that names none; 0 changes nothing.
    defaults: [f64; 2],
    rows: RowMap<Option<Answer>>,
}

/// Rows without penalties keep no such thing.
#[derive(Debug, Clone)]
struct Answer {
    presence: f32,
    frequency: f32,
    /// Tokens of the prompt, which do not count.
    prompt_tokens: usize,
    /// Distinct tokens of the answer, ascending, with how often each occurs.
    counts: Vec<(u32, u32)>,
}

impl FollowTokens for Answer {
    fn push(&mut self, token: u32) {
        match self.counts.binary_search_by_key(&token, |&(token, _)| token) {
            Ok(place) => self.counts[place].1 += 1,
            Err(place) => self.counts.insert(place, (token, 1)),
        }
    }

    fn restart(&mut self, history: &[u32]) {
        self.counts.clear();
        history.iter().skip(self.prompt_tokens).for_each(|&token| self.push(token));
    }
}

impl Capability for OccurrencePenalty {
    const NAME: &'static str = "occurrence-penalty";

    fn from_config(config: &Config) -> Result<Self> {
        let [presence, frequency] = PARAMS;
        let read = |param| config.number_or(param, 0.0, RANGE);
        Ok(Self { defaults: [read(presence)?, read(frequency)?], rows: RowMap::new() })
    }
}

impl LogitsProcessor for OccurrencePenalty {
    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()> {
        let defaults = self.defaults;
        self.rows.follow_tokens(change, |params, history| {
            let read = |i: usize| params.number_or(PARAMS[i], defaults[i], RANGE);
            let (presence, frequency) = (read(0)? as f32, read(1)? as f32);
            if presence == 0.0 && frequency == 0.0 {
                return Ok(None);
            }
            // Room for an answer of as many distinct tokens, so that following it rarely allocates.
            let counts = Vec::with_capacity(1024);
            Ok(Some(Answer { presence, frequency, prompt_tokens: history.len(), counts }))
        })
    }

    fn need(&self) -> Need {
        Need::Ids
    }

    fn apply(&mut self, logits: &mut LogitsRows<'_>) -> Result<()> {
        logits.for_each(|row| {
            let Some(Some(answer)) = self.rows.get(row.id()) else { return Ok(()) };
            for &(token, count) in &answer.counts {
                let penalty = answer.presence + answer.frequency * count as f32;
                let logit = row.logit(token);
                row.set(token, logit - penalty);
            }
            Ok(())
        })
    }
}

const PARAMS: [&str; 2] = ["presence_penalty", "frequency_penalty"];
const RANGE: std::ops::RangeInclusive<f64> = -2.0..=2.0;

export_plugin!(OccurrencePenalty);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::logits_processor::{self, apply_after};

    #[test]
    fn passes_the_contract_suite() {
        let params = Config::new().with("presence_penalty", 0.5).with("frequency_penalty", -0.25);
        logits_processor::suite::<OccurrencePenalty>(&params);
    }

    #[test]
    fn subtracts_by_occurrence_in_the_answer() {
        const CUT: f32 = f32::NEG_INFINITY;
        /// Name, penalties, prompt, answer, and what becomes of the logits 2, -2, 1 and a masked one.
        type Case = (&'static str, [f64; 2], &'static [u32], &'static [u32], [f32; 4]);
        #[rustfmt::skip]
        let cases: [Case; 7] = [
            ("once",                  [0.5, 0.0],   &[],     &[0, 0, 1], [1.5, -2.5, 1.0, CUT]),
            ("each time",             [0.0, 0.5],   &[],     &[0, 0, 1], [1.0, -2.5, 1.0, CUT]),
            ("both",                  [1.0, 0.5],   &[],     &[0, 0, 1], [0.0, -3.5, 1.0, CUT]),
            ("the prompt is free",    [1.0, 1.0],   &[0, 2], &[1],       [2.0, -4.0, 1.0, CUT]),
            ("below 0 it favours",    [-1.0, -0.5], &[],     &[2, 2],    [2.0, -2.0, 3.0, CUT]),
            ("masked stays so",       [-2.0, -2.0], &[],     &[3],       [2.0, -2.0, 1.0, CUT]),
            ("beyond the vocabulary", [1.0, 1.0],   &[],     &[99],      [2.0, -2.0, 1.0, CUT]),
        ];
        for (name, [presence, frequency], prompt, answer, expected) in cases {
            let params = Config::new()
                .with("presence_penalty", presence)
                .with("frequency_penalty", frequency);
            let logits = [2.0, -2.0, 1.0, CUT];
            let found = apply_after::<OccurrencePenalty>(&params, prompt, answer, &logits);
            assert_eq!(found, expected, "{name}");
        }
    }
}
