//! Decoding strategies: how evaluated tokens become an answer.
//!
//! A strategy never runs the model and never loops inside a step. It plans evaluations, the engine
//! schedules and runs them together with everyone else's, and the strategy observes the results.

mod single;

pub use single::SingleAnswer;

use super::kind;
use super::kv_cache::SeqId;
use crate::config::Config;
use crate::error::Result;
use crate::host::Host;

/// Turns evaluations into a sequence of tokens, for many requests at a time.
///
/// A request keeps the instance that it was opened with until it is closed, whatever is swapped
/// meanwhile ([`Pin::Request`](super::Pin::Request)): a strategy has no state to hand over.
pub trait DecodingStrategy: Send {
    /// The time to ask the host for what answers will need, such as the tokens of the model or those of a text.
    /// Called once, before anything else, where the host has services to lend, which are lent for this call; components
    /// are lent none. [any thread but the step thread; may take its time]
    ///
    /// # Errors
    ///
    /// Any error refuses the plugin. One that cannot work without a service says so to its requests.
    fn attach(&mut self, host: &Host) -> Result<()> {
        let _ = host;
        Ok(())
    }

    /// A request begins. [step thread]
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for a parameter outside its range; the request is
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
    /// true. What the last of them gives is evaluated by nobody yet. Where it asked for
    /// [`Want::Top`], its outcomes stand side by side.
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
    /// The likeliest tokens, each an outcome of this evaluation, largest first. Fewer where processors left fewer; at
    /// least one. Nothing is drawn, so that processors which leave the largest the largest have no say. Not with drafts.
    Top {
        /// How many.
        k: u32,
    },
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
    /// Whether what is chosen is no part of the answer, such as reasoning before it. Then only processors edit the logits that leave
    /// the largest the largest: what the answer has to be, or already holds, says nothing about it.
    pub is_aside: bool,
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
        self.list.push(Eval {
            seq,
            start,
            len,
            want,
            is_atomic: false,
            is_aside: false,
            drafts: 0,
            guesses: 0,
        });
    }

    /// The same for what is no part of the answer.
    pub fn push_aside(&mut self, seq: SeqId, tokens: &[u32], want: Want) {
        self.push(seq, tokens, want);
        if let Some(eval) = self.list.last_mut() {
            eval.is_aside = true;
        }
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
    /// Natural logarithm of its probability after all processors; not a number where neither the request asks for it
    /// nor the evaluation for [`Want::Top`].
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
    /// The token belongs to the answer, and to the sequence: [`Advance`](Self::Advance) and [`Say`](Self::Say) in one.
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
    /// The token follows in a sequence that may or may not become the answer: processors are told.
    Advance {
        /// The sequence.
        seq: SeqId,
        /// The token.
        token: u32,
    },
    /// The token belongs to the answer, which its sequence was told before, or which is of no sequence.
    Say {
        /// The token.
        token: u32,
        /// Natural logarithm of its probability; 0 of what the model had no choice in.
        logprob: f32,
    },
    /// A sequence starts over with what another holds.
    Copy {
        /// The sequence to copy.
        from: SeqId,
        /// The one that starts over.
        to: SeqId,
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

    /// Says which token follows in a sequence, without adding it to the answer.
    pub fn advance(&mut self, seq: SeqId, token: u32) {
        self.list.push(Action::Advance { seq, token });
    }

    /// Appends a token to the answer, without telling a sequence of it.
    pub fn say(&mut self, token: u32, logprob: f32) {
        self.list.push(Action::Say { token, logprob });
    }

    /// Lets a sequence start over with what another holds.
    pub fn copy(&mut self, from: SeqId, to: SeqId) {
        self.list.push(Action::Copy { from, to });
    }

    /// Forgets the tokens of a sequence from `upto` on.
    pub fn release(&mut self, seq: SeqId, upto: usize) {
        self.list.push(Action::Release { seq, upto });
    }

    /// Ends the request.
    pub fn finish(&mut self, reason: FinishReason) {
        self.list.push(Action::Finish { reason });
    }
}
