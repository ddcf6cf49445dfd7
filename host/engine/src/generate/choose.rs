//! Which tokens the rows of a step give.

use plugin_api::kinds::decoding_strategy::{Outcome, Want};

use super::batch::Entry;
use super::engine::Engine;
use super::rows::uniform;

impl Engine {
    /// Chooses a token for every row that is asked for; `is_first` before drafts are looked at.
    pub(super) fn choose(&mut self, is_first: bool) {
        self.work.outcomes.clear();
        self.work.alternatives.clear();
        for i in 0..self.work.batch.entries.len() {
            let Entry { seq, tokens, drafts, row, .. } = self.work.batch.entries[i];
            let Some(sequence) = self.sequences.get_mut(seq.0 as usize) else { continue };
            let is_done = if is_first { tokens >= sequence.pending() } else { row.is_some() };
            if !is_done {
                continue;
            }
            sequence.known = None;
            let drafts = if is_first { drafts } else { sequence.num_unconfirmed };
            let (position, index) = (sequence.tokens.len() as u64, sequence.group);
            let Some(group) = self.groups.get(index) else { continue };
            let mut outcome = Outcome { seq, token: None, logprob: f32::NAN, draft: None };
            let Some((row, want)) = row else {
                self.work.outcomes.push((index, outcome));
                continue;
            };
            outcome.draft = (drafts > 0).then(|| self.work.batch.token_after(row));
            let token = match want {
                Want::Sample => {
                    let place = group.seqs.iter().position(|&s| s == seq);
                    self.rows.draw(row, uniform(group.seed, place.unwrap_or(0) as u64, position))
                }
                Want::Argmax | Want::Nothing => self.rows.argmax(row),
                Want::Top { k } => {
                    let top = &mut self.work.top;
                    top.clear();
                    self.rows.top_logprobs(row, k as usize, top);
                    if top.is_empty() {
                        top.push((self.rows.argmax(row), f32::NEG_INFINITY));
                    }
                    self.work.outcomes.extend(top.iter().map(|&(token, logprob)| {
                        (index, Outcome { token: Some(token), logprob, ..outcome })
                    }));
                    continue;
                }
            };
            outcome.token = Some(token);
            if group.wants_logprobs {
                outcome.logprob = self.rows.logprob(row, token);
            }
            if group.top_logprobs > 0 {
                let list = self.work.alternatives.begin(seq, token);
                self.rows.top_logprobs(row, group.top_logprobs, list);
            }
            self.work.outcomes.push((index, outcome));
        }
    }
}
