//! Rewards: how good answers are, for models that learn from what they say.

use super::kind;
use crate::error::Result;

/// Rates answers that the model in training gave.
pub trait Reward: Send {
    /// What each answer is worth, more for a better one. [training thread, once for the answers to a prompt]
    ///
    /// `answers` are those to one prompt, at least one; as many finite numbers come back, in their order. The same
    /// answers are rated alike whenever they are asked about: a run that is resumed asks again.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from rating, such as an answer that was expected and is not in the data: it ends the run.
    fn rate(&mut self, answers: &[RatedAnswer<'_>]) -> Result<Vec<f64>>;
}

kind!(Reward, "reward", TrainingStep, traced: false);

/// One answer of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RatedAnswer<'a> {
    /// What it answers, as the model was given it: with what a chat template adds.
    pub prompt: &'a str,
    /// The answer, without tokens that mark its end.
    pub text: &'a str,
    /// The answer that the data name beside the prompt, if they do.
    pub expected: Option<&'a str>,
    /// Tokens of the answer, one that marks its end included.
    pub num_tokens: u64,
    /// Whether it came to an end by itself, within the tokens that it was allowed.
    pub is_finished: bool,
}
