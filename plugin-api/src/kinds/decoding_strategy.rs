//! Decoding strategies: how evaluated tokens become an answer.
//!
//! A strategy never runs the model and never loops inside a step. It plans evaluations, the engine
//! schedules and runs them together with everyone else's, and the strategy observes the results.

use super::kind;
use super::kv_cache::SeqId;
use crate::config::{Config, Value};
use crate::error::{Error, Result};

/// Turns evaluations into a sequence of tokens, for many requests at a time.
///
/// A request keeps the instance that it was opened with until it is closed, whatever is swapped
/// meanwhile ([`Pin::Request`](super::Pin::Request)): a strategy has no state to hand over.
pub trait DecodingStrategy: Send {
    /// A request begins. [step thread]
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a parameter outside its range; the request is
    /// refused.
    fn open(&mut self, group: GroupId, request: &RequestView<'_>) -> Result<()>;

    /// Appends the evaluations that the group needs next. Called again only when all of its
    /// earlier ones have been observed. [step thread]
    ///
    /// # Errors
    ///
    /// Any error ends this request, and only this.
    fn plan(&mut self, group: GroupId, out: &mut Evals) -> Result<()>;

    /// Results of evaluations of this group have arrived. [step thread]
    ///
    /// Where an evaluation had drafts, this is called once for each token that was chosen, in order:
    /// first for the position after its last certain token, then for those after drafts that came
    /// true. What the last of them gives is evaluated by nobody yet.
    ///
    /// # Errors
    ///
    /// Any error ends this request, and only this.
    fn observe(&mut self, group: GroupId, results: &[Outcome], out: &mut Actions) -> Result<()>;

    /// The request has ended, for whatever reason. [step thread]
    fn close(&mut self, group: GroupId);
}

kind!(DecodingStrategy, "decoding-strategy", Request, traced: false);

/// All sequences of one request. Small, so that it can index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// What a strategy sees of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// The sequence that the prompt belongs to.
    pub seq: SeqId,
    /// Tokens of the prompt.
    pub prompt: &'a [u32],
    /// Parameters of the request: `temperature`, `seed`, `max_tokens` …
    pub params: &'a Config,
}

/// What an evaluation shall give for the position after its last token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Nothing: only the state is needed.
    Nothing,
    /// The likeliest token.
    Argmax,
    /// A token drawn from the processed distribution.
    Sample,
}

/// Tokens of a sequence to be evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eval {
    /// The sequence that the tokens follow.
    pub seq: SeqId,
    /// First of the tokens in [`Evals::tokens`].
    pub start: usize,
    /// Number of tokens.
    pub len: usize,
    /// What to give for the position after the last.
    pub want: Want,
    /// Whether the tokens have to run in one step.
    pub is_atomic: bool,
    /// How many of the tokens, at the end, are drafts: guesses at what will be chosen. At least one
    /// token is none.
    ///
    /// The engine may leave drafts out. Those that it evaluates cost little beside the other tokens
    /// of the step; a draft that is what was chosen before it is kept, and what follows it is given
    /// in the same step. See [`DecodingStrategy::observe`].
    pub drafts: usize,
    /// How many further drafts the draft model may guess, of an engine that has one: after the tokens and those
    /// drafts. It guesses what it finds likeliest.
    pub guesses: usize,
}

/// Receives evaluations. Reused from step to step.
#[derive(Debug, Default)]
pub struct Evals {
    /// Planned evaluations.
    pub list: Vec<Eval>,
    /// Their tokens.
    pub tokens: Vec<u32>,
}

impl Evals {
    /// Plans the evaluation of `tokens` after what `seq` holds.
    pub fn push(&mut self, seq: SeqId, tokens: &[u32], want: Want) {
        let (start, len) = (self.tokens.len(), tokens.len());
        self.tokens.extend_from_slice(tokens);
        self.list.push(Eval { seq, start, len, want, is_atomic: false, drafts: 0, guesses: 0 });
    }

    /// The same with drafts: guesses at what will be chosen for the positions after `tokens`.
    pub fn push_drafts(&mut self, seq: SeqId, tokens: &[u32], drafts: &[u32], want: Want) {
        self.push(seq, tokens, want);
        self.tokens.extend_from_slice(drafts);
        if let Some(eval) = self.list.last_mut() {
            (eval.len, eval.drafts) = (eval.len + drafts.len(), drafts.len());
        }
    }

    /// The same with so many guesses of the draft model.
    pub fn push_guessed(&mut self, seq: SeqId, tokens: &[u32], guesses: usize, want: Want) {
        self.push(seq, tokens, want);
        if let Some(eval) = self.list.last_mut() {
            eval.guesses = guesses;
        }
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.list.clear();
        self.tokens.clear();
    }
}

/// The result of one evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// The sequence that was evaluated.
    pub seq: SeqId,
    /// The token that was chosen, if one was wanted.
    pub token: Option<u32>,
    /// Natural logarithm of its probability after all processors.
    pub logprob: f32,
    /// The draft that stood for it in the evaluation, if there was one: the same token if it came true.
    pub draft: Option<u32>,
}

/// Why a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model or a stop text ended it.
    Stop,
    /// The limit of tokens was reached.
    Length,
    /// A hook refused it.
    Refused,
    /// The caller went away or something failed.
    Aborted,
}

/// One thing a strategy asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    /// The token belongs to the answer.
    Emit {
        /// The sequence it was chosen for.
        seq: SeqId,
        /// The token.
        token: u32,
        /// Natural logarithm of its probability.
        logprob: f32,
    },
    /// A new sequence that starts with what `parent` holds.
    Fork {
        /// The sequence to copy.
        parent: SeqId,
        /// The new one.
        child: SeqId,
    },
    /// Tokens of a sequence from `upto` on are not needed any more.
    Release {
        /// The sequence.
        seq: SeqId,
        /// Tokens to keep.
        upto: usize,
    },
    /// The request is answered.
    Finish {
        /// Why.
        reason: FinishReason,
    },
}

/// Receives actions. Reused from step to step.
#[derive(Debug, Default)]
pub struct Actions {
    /// In the order they happen.
    pub list: Vec<Action>,
    /// The next free sequence, set by the engine.
    pub next_seq: u32,
}

impl Actions {
    /// Appends a token to the answer.
    pub fn emit(&mut self, seq: SeqId, token: u32, logprob: f32) {
        self.list.push(Action::Emit { seq, token, logprob });
    }

    /// Starts a copy of `parent` and returns its id.
    pub fn fork(&mut self, parent: SeqId) -> SeqId {
        let child = SeqId(self.next_seq);
        self.next_seq += 1;
        self.list.push(Action::Fork { parent, child });
        child
    }

    /// Ends the request.
    pub fn finish(&mut self, reason: FinishReason) {
        self.list.push(Action::Finish { reason });
    }
}

/// The usual course of an answer that is one sequence: evaluate the prompt, then each chosen token,
/// until the model or the limit ends it. A building block for strategies.
///
/// Reads `max_tokens`, `ignore_eos` and `eos_token_ids` (which the engine adds) of the request.
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
