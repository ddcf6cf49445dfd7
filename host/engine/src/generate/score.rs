//! What the model makes of prompts: the probability of each token after those before it.

use std::ops::Range;

use plugin_api::kinds::kv_cache::SeqId;
use plugin_api::kinds::logits_processor::RowId;

use super::engine::Engine;
use super::group::Group;
use super::request::PromptToken;

impl Group {
    /// Positions from `start` on whose logits say something of the prompt that is not known: each is of
    /// the token after it. Nothing where nothing is wanted, or all is known.
    pub(super) fn unscored(&self, seq: SeqId, start: usize) -> Option<Range<usize>> {
        let known = self.scores.as_ref()?.len().max(1);
        let range = start.max(known - 1)..self.prompt_tokens.saturating_sub(1);
        (self.seqs.first() == Some(&seq) && start < range.end).then_some(range)
    }
}

impl Engine {
    /// Notes what the rows say of prompts, before processors edit them.
    pub(super) fn score_prompts(&mut self) {
        for entry in &self.work.batch.entries {
            let scored = entry.scored;
            let Some(sequence) = self.sequences.get(entry.seq.0 as usize) else { continue };
            let Some(group) = self.groups.get_mut(sequence.group) else { continue };
            let (top_logprobs, prompt_tokens) = (group.top_logprobs, group.prompt_tokens);
            let Some(scores) = &mut group.scores else { continue };
            if scores.is_empty() {
                let (token, logprob) = (sequence.tokens[0], None);
                scores.push(PromptToken { token, logprob, top: Vec::new() });
            }
            for i in 0..scored.num_rows {
                let (row, position) = (scored.first_row + i, scored.first_position + i + 1);
                if position != scores.len() || position >= prompt_tokens {
                    continue;
                }
                self.rows.begin(row, RowId(entry.seq.0));
                let token = sequence.tokens[position];
                let logprob = Some(self.rows.logprob(row, token));
                let mut top = Vec::new();
                if top_logprobs > 0 {
                    self.rows.top_logprobs(row, top_logprobs, &mut top);
                }
                scores.push(PromptToken { token, logprob, top });
            }
        }
    }
}
