//! What answers look like in the OpenAI interface: parts that chats and completions share.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use jackfield_engine::model::{PlanDigest, StreamDecoder, Tokenizer};
use jackfield_engine::{PromptToken, Stats};
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine_thread::Token;
use crate::generate::Collected;

/// One event of a stream: what tools take the schema of `text/event-stream` to describe.
#[derive(ToSchema)]
#[allow(dead_code, reason = "is described, never made")]
pub(crate) struct StreamEvent {
    /// An object as JSON; `[DONE]` at the end.
    data: String,
}

/// Numbers of tokens.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Of the prompts.
    pub(crate) prompt_tokens: u64,
    /// Of all answers.
    pub(crate) completion_tokens: u64,
    /// Of both.
    pub(crate) total_tokens: u64,
    /// What the prompts consist of.
    pub(crate) prompt_tokens_details: PromptTokensDetails,
}

/// What prompts consist of.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct PromptTokensDetails {
    /// Tokens that were in the cache and not computed again.
    pub(crate) cached_tokens: u64,
}

impl Usage {
    /// Of answers to prompts, `n` for each.
    pub(crate) fn of(stats: &[Stats], n: usize) -> Self {
        let prompts = || stats.iter().step_by(n.max(1));
        let prompt_tokens = prompts().map(|stats| stats.prompt_tokens as u64).sum();
        let cached_tokens = prompts().map(|stats| stats.cached_tokens as u64).sum();
        let completion_tokens = stats.iter().map(|stats| stats.tokens as u64).sum();
        let total_tokens = prompt_tokens + completion_tokens;
        let prompt_tokens_details = PromptTokensDetails { cached_tokens };
        Self { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details }
    }
}

/// A token with the logarithm of its probability.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct TokenLogprob {
    /// Its text; U+FFFD stands for parts of a character.
    pub(crate) token: String,
    /// Natural logarithm of its probability.
    pub(crate) logprob: f32,
    /// Its bytes.
    #[schema(required)]
    pub(crate) bytes: Option<Vec<u8>>,
    /// The likeliest tokens in its place.
    pub(crate) top_logprobs: Vec<TopLogprob>,
}

/// A token that could have been there.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct TopLogprob {
    /// Its text.
    pub(crate) token: String,
    /// Natural logarithm of its probability.
    pub(crate) logprob: f32,
    /// Its bytes.
    #[schema(required)]
    pub(crate) bytes: Option<Vec<u8>>,
}

/// A token of a chat as the interface has it.
pub(crate) fn token_logprob(token: &Token, tokenizer: &Tokenizer) -> TokenLogprob {
    let top = token.top.iter().map(|&(id, logprob)| {
        let (token, bytes) = spelt(id, tokenizer);
        TopLogprob { token, logprob: finite(logprob), bytes: Some(bytes) }
    });
    let top_logprobs = top.collect();
    let (text, bytes) = spelt(token.token, tokenizer);
    TokenLogprob { token: text, logprob: finite(token.logprob), bytes: Some(bytes), top_logprobs }
}

/// Tokens of a completion with the logarithms of their probabilities, side by side.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct CompletionLogprobs {
    /// Texts of the tokens.
    pub(crate) tokens: Vec<String>,
    /// Natural logarithms of their probabilities; null for the first token of a prompt.
    pub(crate) token_logprobs: Vec<Option<f32>>,
    /// The likeliest tokens in their places, by text.
    pub(crate) top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Where each token begins in the text, in characters.
    pub(crate) text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// Appends the tokens of a prompt, which make `num_chars` characters. Tokens that mark the beginning
    /// make none.
    pub(crate) fn push_prompt(
        &mut self,
        prompt: &[PromptToken],
        num_chars: usize,
        tokenizer: &Tokenizer,
    ) {
        let mut decoder = StreamDecoder::new();
        let ends = prompt.iter().scan(0, |end, token| {
            if !tokenizer.is_special(token.token) {
                *end += decoder.push(tokenizer.decode_bytes(token.token)).chars().count();
            }
            Some(*end)
        });
        let ends: Vec<usize> = ends.collect();
        // Some encoders put a space before a text.
        let surplus = ends.last().map_or(0, |all| all.saturating_sub(num_chars));
        let mut offset = 0;
        for (PromptToken { token, logprob, top }, end) in prompt.iter().zip(ends) {
            self.tokens.push(spelt(*token, tokenizer).0);
            self.token_logprobs.push(logprob.map(finite));
            let top = top.iter().map(|&(id, x)| (spelt(id, tokenizer).0, finite(x)));
            self.top_logprobs.push(logprob.is_some().then(|| top.collect()));
            self.text_offset.push(offset);
            offset = end.saturating_sub(surplus);
        }
    }

    /// Appends a token that begins at a character.
    pub(crate) fn push(&mut self, token: &Token, offset: usize, tokenizer: &Tokenizer) {
        self.tokens.push(spelt(token.token, tokenizer).0);
        self.token_logprobs.push(Some(finite(token.logprob)));
        let top = token.top.iter().map(|&(id, x)| (spelt(id, tokenizer).0, finite(x)));
        self.top_logprobs.push(Some(top.collect()));
        self.text_offset.push(offset);
    }
}

/// A token's text and bytes.
pub(crate) fn spelt(token: u32, tokenizer: &Tokenizer) -> (String, Vec<u8>) {
    let bytes = tokenizer.decode_bytes(token);
    (String::from_utf8_lossy(bytes).into_owned(), bytes.to_vec())
}

/// JSON has no infinity.
pub(crate) fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { LOGPROB_MIN }
}

/// As the OpenAI interface writes tokens that cannot be.
const LOGPROB_MIN: f32 = -9999.0;

/// Tells what made the tokens, if the client asked with the header of that name: at the beginning of
/// a stream what makes its first token, after an answer everything that had a part in it.
pub(crate) fn tell_digests(asked: &HeaderMap, digests: &[PlanDigest], response: &mut Response) {
    if !asked.contains_key(DIGEST_HEADER) {
        return;
    }
    let digests: Vec<String> = digests.iter().map(ToString::to_string).collect();
    if let Ok(value) = HeaderValue::from_str(&digests.join(", ")) {
        response.headers_mut().insert(DIGEST_HEADER, value);
    }
}

/// The digests of answers' tokens, each once, in the order in which they came to make tokens.
pub(crate) fn digests(answers: &[Collected]) -> Vec<PlanDigest> {
    let mut digests = Vec::new();
    for token in answers.iter().flat_map(|answer| &answer.tokens) {
        if digests.last() != Some(&token.digest) && !digests.contains(&token.digest) {
            digests.push(token.digest);
        }
    }
    digests
}

/// In a request: asks. In a response: the digest of plan and plugins.
const DIGEST_HEADER: &str = "x-jackfield-digest";
