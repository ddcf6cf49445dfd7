//! Output parsers: from the text of an answer to what it means.
//!
//! Parsers stand one behind the other: what one leaves as content the next one reads. They read while
//! the answer grows and hold back what could still become something else.

use super::kind;
use crate::config::Config;
use crate::error::Result;

/// Finds reasoning and calls of tools in answers, many of them at a time.
///
/// An answer keeps the instance that it was opened with until it is closed, whatever is swapped meanwhile
/// ([`Pin::Request`](super::Pin::Request)). How a text is cut into pieces changes nothing but the pieces: those of a kind,
/// joined, are the same for every cut.
pub trait OutputParser: Send {
    /// An answer begins. [step thread]
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for a request parameter that cannot be read; the request is
    /// refused.
    fn open(&mut self, answer: AnswerId, params: &Config) -> Result<()>;

    /// `text` follows what the answer had; what can be told for certain goes to `out`. [step thread]
    ///
    /// # Errors
    ///
    /// Any error ends this request, and only this. Text that is no more than unusual is content.
    fn push(&mut self, answer: AnswerId, text: &str, out: &mut Vec<Piece>) -> Result<()>;

    /// The answer is complete: what was held back goes to `out`. [step thread]
    ///
    /// # Errors
    ///
    /// As for [`push`](Self::push).
    fn finish(&mut self, answer: AnswerId, out: &mut Vec<Piece>) -> Result<()>;

    /// The request has ended, for whatever reason. [step thread]
    fn close(&mut self, answer: AnswerId);
}

kind!(OutputParser, "output-parser", Request, traced: false);

/// Names an answer for as long as its request runs. Small, so that it can index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AnswerId(pub u32);

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text for people.
    Content(String),
    /// Text that led to it.
    Reasoning(String),
    /// A tool is called. Calls of an answer are numbered from 0.
    ToolCall {
        /// Which call.
        index: u32,
        /// Name of the tool.
        name: String,
    },
    /// Goes behind the arguments of a call, which are JSON when they are whole.
    Arguments {
        /// Which call.
        index: u32,
        /// Text of JSON.
        text: String,
    },
}

/// How many bytes at the end of `text` are the beginning of `tag`, and not all of it: they have to be held back.
pub fn begun(text: &str, tag: &str) -> usize {
    let most = text.len().min(tag.len().saturating_sub(1));
    let is_begun = |len: &usize| text.as_bytes().ends_with(&tag.as_bytes()[..*len]);
    (1..=most).rev().find(is_begun).unwrap_or(0)
}

/// Appends a piece, joined with the one before it where that is of its sort. Empty text is none.
pub fn append(out: &mut Vec<Piece>, piece: Piece) {
    match (out.last_mut(), piece) {
        (_, Piece::Content(text) | Piece::Reasoning(text) | Piece::Arguments { text, .. })
            if text.is_empty() => {}
        (Some(Piece::Content(last)), Piece::Content(text)) => last.push_str(&text),
        (Some(Piece::Reasoning(last)), Piece::Reasoning(text)) => last.push_str(&text),
        (Some(Piece::Arguments { index: of, text: last }), Piece::Arguments { index, text })
            if *of == index =>
        {
            last.push_str(&text);
        }
        (_, piece) => out.push(piece),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_tag_is_held_back() {
        #[rustfmt::skip]
        let cases = [
            ("",          "<think>", 0),
            ("a < b",     "<think>", 0),
            ("a <",       "<think>", 1),
            ("a <thi",    "<think>", 4),
            ("<think",    "<think>", 6),
            ("<think>",   "<think>", 0),
            ("<<",        "<think>", 1),
            ("é<",        "<é>",     1),
            ("aab",       "aaba",    3),
            ("x",         "",        0),
        ];
        for (text, tag, expected) in cases {
            assert_eq!(begun(text, tag), expected, "{text:?}, {tag:?}");
        }
    }

    #[test]
    fn pieces_of_a_sort_are_joined_and_empty_ones_are_none() {
        let mut out = Vec::new();
        let arguments = |index, text: &str| Piece::Arguments { index, text: text.to_owned() };
        for piece in [
            Piece::Content("a".to_owned()),
            Piece::Content("b".to_owned()),
            Piece::Reasoning(String::new()),
            Piece::ToolCall { index: 0, name: "f".to_owned() },
            arguments(0, "{"),
            arguments(0, "}"),
            arguments(1, "{}"),
        ] {
            append(&mut out, piece);
        }
        let call = Piece::ToolCall { index: 0, name: "f".to_owned() };
        let content = Piece::Content("ab".to_owned());
        assert_eq!(out, [content, call, arguments(0, "{}"), arguments(1, "{}")]);
    }
}
