//! The usual course of an answer.

use super::{Actions, Evals, FinishReason, Outcome, RequestView, Want};
use crate::config::Value;
use crate::error::{Error, Result};
use crate::kinds::kv_cache::SeqId;

/// The usual course of an answer that is one sequence: evaluate the prompt, then each chosen token,
/// until the model or the limit ends it. A building block for strategies.
///
/// Reads `max_tokens`, `ignore_eos` and `eos_token_ids` (which the engine adds) of the request. Where nothing is emitted
/// before the end, a strategy has to look at `context_tokens` itself, which the engine adds too: most tokens of a sequence.
#[derive(Debug, Clone)]
pub struct SingleAnswer {
    seq: SeqId,
    /// What to evaluate next: the prompt, later the token chosen last.
    next: Vec<u32>,
    want: Want,
    tokens_left: u64,
    /// Tokens that end the answer; empty if they are to be ignored.
    eos: Vec<u32>,
}

impl SingleAnswer {
    /// An answer to `request`, of at most `max_tokens` tokens where the request sets no limit.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a parameter outside its range, [`Error::Malformed`] for an empty
    /// prompt.
    pub fn open(request: &RequestView<'_>, want: Want, max_tokens: u64) -> Result<Self> {
        let params = request.params;
        if request.prompt.is_empty() {
            return Err(Error::malformed("prompt", "at least one token", "none"));
        }
        let ignore_eos = params.flag_or("ignore_eos", false)?;
        let mut eos = Vec::new();
        for id in params.list("eos_token_ids")? {
            match id {
                Value::Int(id) if u32::try_from(*id).is_ok() => eos.push(*id as u32),
                other => return Err(params.wrong("eos_token_ids", "token ids", Some(other))),
            }
        }
        if ignore_eos {
            eos.clear();
        }
        let tokens_left = params.count_or("max_tokens", max_tokens, 1..=u64::from(u32::MAX))?;
        Ok(Self { seq: request.seq, next: request.prompt.to_vec(), want, tokens_left, eos })
    }

    /// Tokens that end the answer; none if they are to be ignored.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// Tokens that may still be chosen.
    pub fn tokens_left(&self) -> u64 {
        self.tokens_left
    }

    /// Plans the one evaluation that comes next.
    pub fn plan(&self, out: &mut Evals) {
        out.push(self.seq, &self.next, self.want);
    }

    /// The same with guesses at the tokens after it.
    pub fn plan_drafts(&self, drafts: &[u32], out: &mut Evals) {
        out.push_drafts(self.seq, &self.next, drafts, self.want);
    }

    /// The same with guesses of the draft model, as far as the answer may go.
    pub fn plan_guessed(&self, guesses: usize, out: &mut Evals) {
        let left = usize::try_from(self.tokens_left.saturating_sub(1)).unwrap_or(usize::MAX);
        let guesses = guesses.min(left);
        out.push_guessed(self.seq, &self.next, guesses, self.want);
    }

    /// Emits the chosen tokens, or ends the answer: `Stop` at an end-of-sequence token, which is
    /// not emitted, `Length` with the last token that is allowed.
    pub fn observe(&mut self, results: &[Outcome], out: &mut Actions) {
        for outcome in results.iter().filter(|outcome| outcome.seq == self.seq) {
            let Some(token) = outcome.token else { continue };
            if self.eos.contains(&token) {
                out.finish(FinishReason::Stop);
                return;
            }
            out.emit(self.seq, token, outcome.logprob);
            self.next.clear();
            self.next.push(token);
            self.tokens_left -= 1;
            if self.tokens_left == 0 {
                out.finish(FinishReason::Length);
                return;
            }
        }
    }
}
