//! Contract suite of output parsers: no cut of a text changes what is found, nothing is lost, answers do not
//! mix.

use super::random::Random;
use super::{Make, make};
use crate::config::Config;
use crate::kinds::Capability;
use crate::kinds::output_parser::{AnswerId, OutputParser, Piece, append};

/// Runs the whole suite. `params` are parameters of a request that make the parser read, and `texts` answers in
/// which it finds something.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + OutputParser + 'static>(params: &Config, texts: &[&str]) {
    suite_of(&make::<dyn OutputParser, T>, params, texts);
}

/// The same for parsers that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn OutputParser>, params: &Config, texts: &[&str]) {
    let fresh = || make(&Config::new()).expect("every key has a default");
    let mut random = Random::new(11);
    for text in TEXTS.iter().chain(texts) {
        let whole = parts(&mut *fresh(), params, &[text]);
        let mut parser = fresh();
        for _ in 0..ROUNDS {
            let cut = cut(text, &mut random);
            let found = parts(&mut *parser, params, &cut);
            assert_eq!(found, whole, "{text:?} is another answer when it comes as {cut:?}");
        }
    }
    for text in PLAIN {
        let found = parts(&mut *fresh(), params, &[text]);
        let content: Vec<Piece> = content(text).into_iter().collect();
        assert_eq!(found, content, "{text:?} is content and nothing else");
        let found = parts(&mut *fresh(), &Config::new(), &[text]);
        assert_eq!(found, content, "{text:?} without parameters is content");
    }
    let all: Vec<&str> = TEXTS.iter().chain(texts).copied().collect();
    answers_do_not_mix(&mut *fresh(), params, &all);
    for _ in 0..100 {
        drop(fresh());
    }
}

/// What a parser finds in an answer that comes in these pieces, with those of a sort joined.
///
/// # Panics
///
/// If the parser fails.
pub fn parts(parser: &mut dyn OutputParser, params: &Config, text: &[&str]) -> Vec<Piece> {
    let answer = AnswerId(7);
    parser.open(answer, params).expect("the parameters are fair");
    let (mut found, mut out) = (Vec::new(), Vec::new());
    for piece in text {
        parser.push(answer, piece, &mut out).expect("any text is read");
        check(&out);
        out.drain(..).for_each(|piece| append(&mut found, piece));
    }
    parser.finish(answer, &mut out).expect("an answer may end anywhere");
    check(&out);
    out.drain(..).for_each(|piece| append(&mut found, piece));
    parser.close(answer);
    numbered(&found);
    found
}

/// Pieces hold something.
fn check(pieces: &[Piece]) {
    for piece in pieces {
        let (Piece::Content(text) | Piece::Reasoning(text) | Piece::Arguments { text, .. }) = piece
        else {
            continue;
        };
        assert!(!text.is_empty(), "a piece is empty: {pieces:?}");
    }
}

/// Calls are numbered from 0, and arguments belong to the latest.
fn numbered(pieces: &[Piece]) {
    let mut calls = 0;
    for piece in pieces {
        match piece {
            Piece::ToolCall { index, .. } => {
                assert_eq!(*index, calls, "calls are numbered from 0: {pieces:?}");
                calls += 1;
            }
            Piece::Arguments { index, .. } => {
                assert_eq!(*index + 1, calls, "arguments belong to the latest call: {pieces:?}");
            }
            Piece::Content(_) | Piece::Reasoning(_) => {}
        }
    }
}

fn content(text: &str) -> Option<Piece> {
    (!text.is_empty()).then(|| Piece::Content(text.to_owned()))
}

/// A text in pieces of one character to all of it.
fn cut<'a>(text: &'a str, random: &mut Random) -> Vec<&'a str> {
    let most = 1 + random.below(9);
    let (mut rest, mut pieces) = (text, Vec::new());
    while !rest.is_empty() {
        let len = 1 + random.below(most);
        let end = rest.char_indices().nth(len).map_or(rest.len(), |(at, _)| at);
        let (piece, more) = rest.split_at(end);
        pieces.push(piece);
        rest = more;
    }
    pieces
}

/// Several answers at a time, a character of each in turn; one ends early and is opened again.
fn answers_do_not_mix(parser: &mut dyn OutputParser, params: &Config, texts: &[&str]) {
    let alone: Vec<Vec<Piece>> = texts.iter().map(|text| parts(parser, params, &[text])).collect();
    let mut found = vec![Vec::new(); texts.len()];
    let id = |i: usize| AnswerId(2 * i as u32 + 1);
    for i in 0..texts.len() {
        parser.open(id(i), params).expect("the parameters are fair");
    }
    let longest = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    let (mut out, mut buffer) = (Vec::new(), [0; 4]);
    for at in 0..longest {
        for (i, text) in texts.iter().enumerate() {
            let Some(letter) = text.chars().nth(at) else { continue };
            let letter = letter.encode_utf8(&mut buffer);
            parser.push(id(i), letter, &mut out).expect("any text is read");
            out.drain(..).for_each(|piece| append(&mut found[i], piece));
        }
    }
    for (i, alone) in alone.iter().enumerate() {
        parser.finish(id(i), &mut out).expect("an answer may end anywhere");
        out.drain(..).for_each(|piece| append(&mut found[i], piece));
        parser.close(id(i));
        assert_eq!(found[i], *alone, "an answer depends on its neighbours");
    }
    for text in texts {
        parser.open(id(0), params).expect("a number is used again");
        parser.push(id(0), text, &mut out).expect("any text is read");
        parser.close(id(0));
        out.clear();
    }
    let plain = parts(parser, params, &["plain"]);
    assert_eq!(plain, [Piece::Content("plain".to_owned())], "an answer outlives its request");
}

const ROUNDS: usize = 24;

/// Nothing in them is anything but content.
const PLAIN: [&str; 5] = ["", "plain", " two\nlines\n", "a < b > c </ d", "naïve 東京 😀 < {"];

/// Tags that are whole, broken, nested and alone.
const TEXTS: [&str; 9] = [
    "",
    "plain",
    "<think>",
    "<think>why</think>because",
    "<think>a</thin</think> b <think>c",
    "<tool_call>",
    "x <tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"</tool\"}}\n</tool_call> y <tool_call>{",
    "<tool_call>no JSON</tool_call>",
    "{\"name\": \"f\", \"parameters\": {}}",
];
