//! Where one answer stands in its grammar.

use std::sync::Arc;

use llguidance::Matcher;
use plugin_api::prelude::*;

/// A grammar with the tokens of an answer, and the tokens that may follow.
#[derive(Clone)]
pub(crate) struct Constraint {
    matcher: Matcher,
    ends: Arc<[u32]>,
    /// Tokens of the prompt, which the grammar does not see.
    prompt: usize,
    /// Tokens of the answer.
    answer: Vec<u32>,
    /// How many of them, from the first on, the matcher was told: not those that ended it.
    told: usize,
    /// Bit `i % 32` of word `i / 32` for token `i`.
    allowed: Vec<u32>,
}

impl Constraint {
    /// At the beginning of an answer.
    ///
    /// # Errors
    ///
    /// What is wrong with the grammar.
    pub(crate) fn new(
        matcher: Matcher,
        ends: Arc<[u32]>,
        prompt: usize,
    ) -> std::result::Result<Self, String> {
        let (answer, allowed) = (Vec::with_capacity(ANSWER_ROOM), Vec::new());
        let mut constraint = Self { matcher, ends, prompt, answer, told: 0, allowed };
        constraint.look()?;
        Ok(constraint)
    }

    /// Tokens that may follow.
    pub(crate) fn allowed(&self) -> &[u32] {
        &self.allowed
    }

    /// A token of the answer.
    pub(crate) fn push(&mut self, token: u32) -> Result<()> {
        self.tell(token).and_then(|()| self.look()).map_err(failed)
    }

    /// What remains of prompt and answer.
    pub(crate) fn restart(&mut self, history: &[u32]) -> Result<()> {
        let answer = history.get(self.prompt..).unwrap_or_default();
        let same = self.answer.iter().zip(answer).take_while(|(a, b)| a == b).count();
        let back = self.told.saturating_sub(same);
        self.matcher.rollback(back).map_err(|error| failed(error.to_string()))?;
        self.told -= back;
        self.answer.truncate(same);
        let rest = answer[same..].iter().try_for_each(|&token| self.tell(token));
        rest.and_then(|()| self.look()).map_err(failed)
    }

    fn tell(&mut self, token: u32) -> std::result::Result<(), String> {
        let is_over = self.told < self.answer.len();
        if !is_over && !self.ends.contains(&token) {
            self.matcher.consume_token(token).map_err(|error| error.to_string())?;
            self.told += 1;
        }
        self.answer.push(token);
        Ok(())
    }

    /// Computes what may follow.
    fn look(&mut self) -> std::result::Result<(), String> {
        self.allowed.clear();
        let is_over = self.told < self.answer.len();
        if !is_over && !self.matcher.is_stopped() {
            let mask = self.matcher.compute_mask().map_err(|error| error.to_string())?;
            self.allowed.extend_from_slice(mask.as_slice());
            // The library knows one end of several.
            if !self.ends.first().is_some_and(|end| bit(&self.allowed, *end)) {
                return Ok(());
            }
        } else if let Some(error) = self.matcher.get_error() {
            return Err(error);
        } else if !self.matcher.stop_reason().is_ok() {
            return Err(format!("the grammar is too complex: {:?}", self.matcher.stop_reason()));
        }
        for &end in &*self.ends {
            let word = end as usize / 32;
            if word >= self.allowed.len() {
                self.allowed.resize(word + 1, 0);
            }
            self.allowed[word] |= 1 << (end % 32);
        }
        Ok(())
    }
}

fn bit(words: &[u32], at: u32) -> bool {
    words.get(at as usize / 32).is_some_and(|word| word >> (at % 32) & 1 == 1)
}

fn failed(message: String) -> Error {
    Error::outside("guided: the answer", message)
}

/// Tokens of an answer that are followed without growing.
const ANSWER_ROOM: usize = 1024;
