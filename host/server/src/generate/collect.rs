//! Whole answers.

use std::future::poll_fn;
use std::task::Poll;

use jackfield_engine::Stats;
use plugin_api::kinds::output_parser::{Piece, append};

use super::{Answers, finish_reason};
use crate::engine_thread::{End, Ending, Next, Token};
use crate::error::ApiError;

/// One whole answer.
pub(crate) struct Collected {
    pub(crate) text: String,
    /// What parsers make of it, where that is asked for.
    pub(crate) pieces: Vec<Piece>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) finish_reason: &'static str,
    pub(crate) stats: Stats,
}

/// What there is of one answer.
#[derive(Default)]
struct Part {
    text: String,
    pieces: Vec<Piece>,
    tokens: Vec<Token>,
    end: Option<End>,
}

/// Waits for every answer.
pub(crate) async fn collect(mut answers: Answers) -> Result<Vec<Collected>, ApiError> {
    let mut parts: Vec<Part> = answers.streams.iter().map(|_| Part::default()).collect();
    let gather = poll_fn(|cx| {
        for (part, stream) in parts.iter_mut().zip(&mut answers.streams) {
            while let Poll::Ready(Some(next)) = stream.poll_next(cx) {
                match next {
                    Next::Token(mut token) => {
                        token.pieces.drain(..).for_each(|piece| append(&mut part.pieces, piece));
                        part.text.push_str(&token.text);
                        part.tokens.push(token);
                    }
                    Next::End(end) => part.end = Some(end),
                }
            }
        }
        let is_over = parts.iter().all(|part| part.end.is_some());
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    });
    let in_time = tokio::time::timeout(answers.time, gather).await;
    in_time.map_err(|_| ApiError::took_too_long(answers.time.as_secs()))?;
    parts.into_iter().map(|part| whole(part, answers.unread_max)).collect()
}

fn whole(part: Part, unread_max: usize) -> Result<Collected, ApiError> {
    let Part { mut text, mut pieces, tokens, end } = part;
    let Some(End { ending, text: rest, pieces: last }) = end else {
        return Err(ApiError::failed("the answer has no end"));
    };
    let finish_reason = finish_reason(&ending, unread_max)?;
    let Ending::Done { stats, .. } = ending else {
        return Err(ApiError::failed("the answer has no end"));
    };
    text.push_str(&rest);
    last.into_iter().for_each(|piece| append(&mut pieces, piece));
    Ok(Collected { text, pieces, tokens, finish_reason, stats })
}
