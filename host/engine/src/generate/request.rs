//! What callers ask, and what they get.

use plugin_api::Config;
use plugin_api::kinds::decoding_strategy::FinishReason;
use plugin_api::kinds::output_parser::Piece;

use crate::model::{PlanDigest, Tokenizer};

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

/// A request that every hook has let pass, and whose prompt may be text still.
#[derive(Debug)]
pub struct Admitted {
    pub(super) id: RequestId,
    pub(super) arrived_us: u64,
    pub(super) request: Request,
}

/// A request that is ready to enter.
#[derive(Debug)]
pub struct Encoded {
    pub(super) id: RequestId,
    pub(super) arrived_us: u64,
    pub(super) tokens: Vec<u32>,
    pub(super) params: Config,
    pub(super) strategy: Option<String>,
    pub(super) priority: i32,
    pub(super) timeout_us: Option<u64>,
}

impl Admitted {
    /// Bytes of text that are to be cut into tokens.
    pub fn text_bytes(&self) -> usize {
        match &self.request.prompt {
            Prompt::Text(text) | Prompt::Raw(text) | Prompt::Templated(text) => text.len(),
            Prompt::Tokens(_) => 0,
        }
    }

    /// Cuts the prompt into tokens: the part of a submission that takes its time, and that needs no
    /// engine. [any thread]
    pub fn encode(self, tokenizer: &Tokenizer) -> Encoded {
        let Self { id, arrived_us, request } = self;
        let Request { prompt, params, strategy, priority, timeout_us } = request;
        let tokens = match prompt {
            Prompt::Text(text) => with_bos(tokenizer, tokenizer.encode(&text, false)),
            Prompt::Raw(text) => tokenizer.encode(&text, false),
            Prompt::Templated(text) => with_bos(tokenizer, tokenizer.encode(&text, true)),
            Prompt::Tokens(tokens) => tokens,
        };
        Encoded { id, arrived_us, tokens, params, strategy, priority, timeout_us }
    }
}

/// The tokens with the one that marks the beginning, where the model wants it.
fn with_bos(tokenizer: &Tokenizer, mut tokens: Vec<u32>) -> Vec<u32> {
    if let Some(bos) = tokenizer.bos().filter(|_| tokenizer.add_bos())
        && tokens.first() != Some(&bos)
    {
        tokens.insert(0, bos);
    }
    tokens
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
        /// What the model makes of the prompt, with the first token of an answer whose request asked
        /// for `prompt_logprobs`; empty otherwise.
        prompt: &'a [PromptToken],
        /// Text that can be shown because of it; characters in the making are held back.
        text: &'a str,
        /// What parsers make of the text, if the request asked for `parse_output`: they hold back what
        /// could still become something else. Empty otherwise.
        pieces: &'a [Piece],
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
        /// What parsers make of it, and what they held back.
        pieces: &'a [Piece],
        /// The whole answer.
        answer: &'a str,
        /// How it went.
        stats: Stats,
        /// What went wrong, if the reason is [`FinishReason::Aborted`] and the caller did not
        /// cancel.
        error: Option<&'a plugin_api::Error>,
    },
}

/// A token of a prompt, with what the model makes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptToken {
    /// The token.
    pub token: u32,
    /// Natural logarithm of its probability after the tokens before it, before any processor; nothing
    /// for the first.
    pub logprob: Option<f32>,
    /// The likeliest tokens in its place, largest first, if the request asked for `top_logprobs`.
    pub top: Vec<(u32, f32)>,
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
