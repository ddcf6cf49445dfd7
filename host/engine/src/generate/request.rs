//! What callers ask, and what they get.

use plugin_api::Config;
use plugin_api::kinds::decoding_strategy::FinishReason;

use crate::model::PlanDigest;

/// Names a request for as long as the engine lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What a caller asks.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the answer continues.
    pub prompt: Prompt,
    /// Parameters under their names in the OpenAI API: `temperature`, `max_tokens`, `stop` …
    pub params: Config,
    /// The decoding strategy; the first configured one where none is named.
    pub strategy: Option<String>,
    /// Higher goes first, where the scheduler looks at it.
    pub priority: i32,
    /// Microseconds after which it ends with [`FinishReason::Aborted`], answered or not.
    pub timeout_us: Option<u64>,
}

impl Request {
    /// A request with default parameters.
    pub fn new(prompt: impl Into<Prompt>) -> Self {
        let params = Config::at("request");
        Self { prompt: prompt.into(), params, strategy: None, priority: 0, timeout_us: None }
    }

    /// The same request with a parameter set.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<plugin_api::Value>) -> Self {
        self.params.set(name, value);
        self
    }

    /// The same request with a strategy named.
    #[must_use]
    pub fn strategy(mut self, name: &str) -> Self {
        self.strategy = Some(name.to_owned());
        self
    }
}

/// What an answer continues.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// Text: special tokens in it are ordinary text.
    Text(String),
    /// Text as it stands: no token that marks the beginning is added.
    Raw(String),
    /// Text from a chat template: special tokens in it are special.
    Templated(String),
    /// Tokens, taken as they are. Hooks see their text, and may only let it pass or refuse it.
    Tokens(Vec<u32>),
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<u32>> for Prompt {
    fn from(tokens: Vec<u32>) -> Self {
        Self::Tokens(tokens)
    }
}

/// What a step gives to a caller, lent for the time of the call.
#[derive(Debug)]
pub enum Output<'a> {
    /// A token was added to the answer.
    Token {
        /// The request.
        request: RequestId,
        /// The token.
        token: u32,
        /// Natural logarithm of its probability, if the request asked for `logprobs`.
        logprob: f32,
        /// The likeliest tokens in its place with the logarithms of their probabilities, largest
        /// first, if the request asked for `top_logprobs`. Fewer where processors left fewer.
        top_logprobs: &'a [(u32, f32)],
        /// Text that can be shown because of it; characters in the making are held back.
        text: &'a str,
        /// The plan and plugins that made it.
        digest: &'a PlanDigest,
    },
    /// The answer is complete.
    Finished {
        /// The request.
        request: RequestId,
        /// Why.
        reason: FinishReason,
        /// Text that was held back until here.
        text: &'a str,
        /// The whole answer.
        answer: &'a str,
        /// How it went.
        stats: Stats,
        /// What went wrong, if the reason is [`FinishReason::Aborted`] and the caller did not
        /// cancel.
        error: Option<&'a plugin_api::Error>,
    },
}

/// How a request went. Times in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that were in the cache and were not evaluated again.
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub tokens: usize,
    /// From arrival to the first token.
    pub ttft_us: u64,
    /// From arrival to the end.
    pub total_us: u64,
}
