//! What happens to requests and in steps.

use super::{Event, Flow, Record, Subscriptions};
use crate::config::Config;
use crate::host::Host;
use crate::kinds::decoding_strategy::FinishReason;

event! {
    /// A request has arrived; its prompt may be edited, or the request refused. [step thread]
    BeforeGenerate, before_generate, "before-generate", budget_us: 1_000,
    |e| Record::new("before-generate", e.request, &[("prompt_bytes", e.prompt.len() as f64)]),
    {
        /// The request.
        request: u64,
        /// Text that will be tokenized, chat template applied.
        prompt: &'a mut String,
        /// Parameters of the request.
        params: &'a Config,
    }
}

event! {
    /// A batch is about to run. `Refuse` is treated as `Continue`: a step is nobody's own. [step thread]
    BeforeStep, before_step, "before-step", budget_us: 50,
    |e| Record::new("before-step", 0, &[
        ("step", e.step as f64), ("tokens", e.tokens as f64), ("seqs", e.seqs as f64),
    ]),
    {
        /// Steps since the engine started.
        step: u64,
        /// Tokens in the batch.
        tokens: usize,
        /// Sequences in the batch.
        seqs: usize,
    }
}

event! {
    /// A batch has run. Answers other than `Continue` are ignored. [step thread]
    AfterStep, after_step, "after-step", budget_us: 50,
    |e| Record::new("after-step", 0, &[
        ("step", e.step as f64), ("tokens", e.tokens as f64), ("seqs", e.seqs as f64),
        ("model_us", e.model_us as f64), ("blocks_used", e.blocks_used as f64),
    ]),
    {
        /// Steps since the engine started.
        step: u64,
        /// Tokens in the batch.
        tokens: usize,
        /// Sequences in the batch.
        seqs: usize,
        /// Time in the backend, in microseconds.
        model_us: u64,
        /// Cache blocks in use.
        blocks_used: usize,
    }
}

event! {
    /// A token belongs to an answer; the answer may end here. [step thread]
    AfterToken, after_token, "after-token", budget_us: 50,
    |e| Record::new("after-token", e.request, &[
        ("index", e.index as f64), ("token", f64::from(e.token)), ("logprob", f64::from(e.logprob)),
    ]),
    {
        /// The request.
        request: u64,
        /// How many tokens of the answer came before.
        index: usize,
        /// The token.
        token: u32,
        /// Natural logarithm of its probability; not a number unless `logprobs` are asked for.
        logprob: f32,
        /// The answer so far, this token included.
        text: &'a str,
        /// Bytes of `text` that belong to the answer: a hook that ends it may cut them.
        keep_bytes: usize,
        /// Bytes at the end of the kept text that are not shown yet, since the next token may
        /// make them part of a stop text. Hooks only raise it.
        hold_bytes: usize,
        /// Parameters of the request.
        params: &'a Config,
    }
}

event! {
    /// An answer is complete. Answers other than `Continue` are ignored. [step thread]
    AfterGenerate, after_generate, "after-generate", budget_us: 1_000,
    |e| Record::new("after-generate", e.request, &[
        ("prompt_tokens", e.prompt_tokens as f64), ("tokens", e.tokens as f64),
        ("seconds", e.seconds),
    ]),
    {
        /// The request.
        request: u64,
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens of the answer.
        tokens: usize,
        /// The answer.
        text: &'a str,
        /// Why it ended.
        reason: FinishReason,
        /// Time since the request arrived, in seconds.
        seconds: f64,
    }
}

event! {
    /// A request ended before it was answered. Answers other than `Continue` are ignored. [step thread]
    OnCancel, on_cancel, "on-cancel", budget_us: 100,
    |e| Record::new("on-cancel", e.request, &[("tokens", e.tokens as f64)]),
    {
        /// The request.
        request: u64,
        /// Tokens that had been generated.
        tokens: usize,
    }
}
