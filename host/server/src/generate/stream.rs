//! Answers while they grow: server-sent events, as many of them at a time as are there.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::Stream;
use jackfield_engine::Stats;
use plugin_api::kinds::output_parser::Piece;
use serde::Serialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval_at, sleep};

use super::{Answers, finish_reason};
use crate::engine_thread::{Ending, Next, Token};
use crate::error::ApiError;

/// What is to be told of one choice.
pub(crate) enum Stage<'a> {
    /// It begins.
    Begin,
    /// Tokens came; the last of them may have held text back.
    Token(&'a Token),
    /// It ended, with this text left, and what parsers make of it.
    End { text: &'a str, pieces: &'a [Piece], reason: &'static str },
}

/// How a stream looks on the wire.
pub(crate) trait Wire: Send + Unpin + 'static {
    /// One event.
    type Event: Serialize;
    /// The event for a stage of a choice, if it says anything.
    fn event(&mut self, choice: usize, stage: Stage<'_>) -> Option<Self::Event>;
    /// What is waited for once every choice has ended, if anything, and is the last event but the numbers.
    fn last(&mut self) -> Option<Pin<Box<dyn Future<Output = Self::Event> + Send>>> {
        None
    }
    /// The event with the numbers of tokens, if it is wanted.
    fn usage(&mut self, stats: &[Stats]) -> Option<Self::Event>;
}

/// A response that sends the answers as they come.
pub(crate) fn stream<W: Wire>(answers: Answers, wire: W) -> Response {
    let mut ping = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stats = vec![None; answers.streams.len()];
    let events = Events {
        deadline: Box::pin(sleep(answers.time)),
        answers,
        wire,
        stats,
        ping,
        has_begun: false,
        has_ended: false,
        last: None,
        is_over: false,
    };
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that gather answers would keep a stream to themselves.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Events<W: Wire> {
    answers: Answers,
    wire: W,
    /// Of the choices that have ended.
    stats: Vec<Option<Stats>>,
    deadline: Pin<Box<Sleep>>,
    ping: Interval,
    has_begun: bool,
    /// Every choice has.
    has_ended: bool,
    last: Option<Pin<Box<dyn Future<Output = W::Event> + Send>>>,
    is_over: bool,
}

impl<W: Wire> Stream for Events<W> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        let mut text = String::new();
        if !this.has_begun {
            this.has_begun = true;
            (0..this.answers.streams.len()).for_each(|i| this.tell(i, Stage::Begin, &mut text));
        }
        if let Err(error) = this.gather(cx, &mut text) {
            this.fail(&error, &mut text);
        } else if this.stats.iter().all(Option::is_some) && this.ends(cx, &mut text) {
            let stats: Vec<Stats> = this.stats.iter().copied().flatten().collect();
            if let Some(event) = this.wire.usage(&stats) {
                write_event(&event, &mut text);
            }
            text.push_str("data: [DONE]\n\n");
            this.is_over = true;
        } else if this.deadline.as_mut().poll(cx).is_ready() {
            let seconds = this.answers.time.as_secs();
            this.fail(&ApiError::took_too_long(seconds), &mut text);
        }
        if text.is_empty() {
            std::task::ready!(this.ping.poll_tick(cx));
            text.push_str(": ping\n\n");
        } else {
            this.ping.reset();
        }
        Poll::Ready(Some(Ok(text.into())))
    }
}

impl<W: Wire> Events<W> {
    /// Writes everything that is there, up to a limit.
    fn gather(&mut self, cx: &mut Context<'_>, text: &mut String) -> Result<(), ApiError> {
        for choice in 0..self.answers.streams.len() {
            while text.len() < FRAME_BYTES {
                match self.answers.streams[choice].poll_next(cx) {
                    Poll::Ready(Some(Next::Token(token))) => {
                        self.tell(choice, Stage::Token(&token), text);
                    }
                    Poll::Ready(Some(Next::End(end))) => {
                        let reason = finish_reason(&end.ending, self.answers.unread_max)?;
                        let (rest, pieces) = (&*end.text, &end.pieces[..]);
                        self.tell(choice, Stage::End { text: rest, pieces, reason }, text);
                        if let Ending::Done { stats, .. } = end.ending {
                            self.stats[choice] = Some(stats);
                        }
                    }
                    Poll::Ready(None) | Poll::Pending => break,
                }
            }
        }
        Ok(())
    }

    /// Whether nothing is waited for any more after the last choice has ended.
    fn ends(&mut self, cx: &mut Context<'_>, text: &mut String) -> bool {
        if !self.has_ended {
            self.has_ended = true;
            self.last = self.wire.last();
        }
        let Some(last) = &mut self.last else { return true };
        let Poll::Ready(event) = last.as_mut().poll(cx) else { return false };
        self.last = None;
        write_event(&event, text);
        true
    }

    fn tell(&mut self, choice: usize, stage: Stage<'_>, text: &mut String) {
        if let Some(event) = self.wire.event(choice, stage) {
            write_event(&event, text);
        }
    }

    /// The error as the last event: the status has been sent.
    fn fail(&mut self, error: &ApiError, text: &mut String) {
        write_event(&error.object(), text);
        self.is_over = true;
        // Choices that still run are cancelled.
        self.answers.streams.clear();
    }
}

fn write_event(event: &impl Serialize, text: &mut String) {
    if let Ok(json) = serde_json::to_string(event) {
        let _ = write!(text, "data: {json}\n\n");
    }
}

/// A silent stream is told apart from a broken one, and a client that went away is noticed.
const PING_EVERY: Duration = Duration::from_secs(15);

/// Events are gathered up to here before they are sent.
const FRAME_BYTES: usize = 16 << 10;
