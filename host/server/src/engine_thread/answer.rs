//! An answer on its way to one client: a bounded channel and how it ended.

use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use jackfield_engine::model::PlanDigest;
use jackfield_engine::{PromptToken, Stats};
use plugin_api::kinds::decoding_strategy::FinishReason;
use plugin_api::kinds::output_parser::Piece;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver};

use super::Order;

/// One token of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) token: u32,
    /// Natural logarithm of its probability, if it was asked for.
    pub(crate) logprob: f32,
    /// The likeliest tokens in its place, largest first, if they were asked for.
    pub(crate) top: Vec<(u32, f32)>,
    /// What the model makes of the prompt, with the first token, if it was asked for.
    pub(crate) prompt: Vec<PromptToken>,
    /// Text that can be shown because of it.
    pub(crate) text: String,
    /// What parsers make of it, where that is asked for.
    pub(crate) pieces: Vec<Piece>,
    /// What made it.
    pub(crate) digest: PlanDigest,
}

/// Why an answer ended.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    /// The engine ended it.
    Done { reason: FinishReason, stats: Stats, error: Option<plugin_api::Error> },
    /// Every step failed.
    Failed(String),
    /// More tokens were unread than may be.
    Unread,
    /// The server was stopped, or the engine is gone.
    Stopped,
}

/// How an answer ended, and what was held back until then.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) ending: Ending,
    pub(crate) text: String,
    /// What parsers make of it.
    pub(crate) pieces: Vec<Piece>,
}

impl End {
    /// An end with nothing left to be told.
    fn bare(ending: Ending) -> Self {
        Self { ending, text: String::new(), pieces: Vec::new() }
    }
}

/// The engine's side.
pub(crate) struct AnswerSender {
    tokens: mpsc::Sender<Token>,
    end: Arc<OnceLock<End>>,
}

impl AnswerSender {
    /// Hands a token on, without waiting; false if nobody will read it.
    pub(super) fn push(&self, token: Token) -> bool {
        match self.tokens.try_send(token) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                let _ = self.end.set(End::bare(Ending::Unread));
                false
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }

    /// Ends the answer.
    pub(super) fn end(self, ending: Ending, text: &str, pieces: &[Piece]) {
        let _ = self.end.set(End { ending, text: text.to_owned(), pieces: pieces.to_vec() });
    }
}

/// The client's side. Dropped before its end, it cancels the request.
pub(crate) struct AnswerStream {
    tokens: Receiver<Token>,
    end: Arc<OnceLock<End>>,
    ticket: u64,
    orders: Sender<Order>,
    has_ended: bool,
}

/// What comes next of an answer.
pub(crate) enum Next {
    Token(Token),
    End(End),
}

impl AnswerStream {
    /// The next token, or the end; nothing after it.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Next>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let token = std::task::ready!(self.tokens.poll_recv(cx));
        Poll::Ready(Some(token.map_or_else(|| self.ended(), Next::Token)))
    }

    fn ended(&mut self) -> Next {
        self.has_ended = true;
        let stopped = || End::bare(Ending::Stopped);
        Next::End(self.end.get().cloned().unwrap_or_else(stopped))
    }
}

impl Drop for AnswerStream {
    fn drop(&mut self) {
        if !self.has_ended {
            let _ = self.orders.send(Order::Cancel(self.ticket));
        }
    }
}

/// Both ends of an answer of which at most `unread_max` tokens wait.
pub(super) fn answer(
    ticket: u64,
    unread_max: usize,
    orders: Sender<Order>,
) -> (AnswerSender, AnswerStream) {
    let (sender, tokens) = mpsc::channel(unread_max.max(1));
    let end = Arc::new(OnceLock::new());
    let stream = AnswerStream { tokens, end: Arc::clone(&end), ticket, orders, has_ended: false };
    (AnswerSender { tokens: sender, end }, stream)
}
