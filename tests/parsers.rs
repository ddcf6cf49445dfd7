//! Output parsers in the engine: answers whose text is known, since a grammar allows nothing else, and what is
//! found in them as they grow.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::time::Duration;

use jackfield_engine::{Engine, Output, Request, RequestId};
use jackfield_runtime::SwapTarget;
use jackfield_tests::{Setup, tiny_model};
use plugin_api::kinds::decoding_strategy::FinishReason;
use plugin_api::kinds::output_parser::{AnswerId, OutputParser, Piece, append};
use plugin_api::{Config, Error, Kind, Result, Value};

/// What a request came to.
#[derive(Debug, Default)]
struct Found {
    pieces: Vec<Piece>,
    /// How many outputs had any.
    told: usize,
    answer: String,
    end: Option<(FinishReason, Option<Error>)>,
}

fn run(engine: &mut Engine, ids: &[RequestId]) -> Vec<Found> {
    let mut found: BTreeMap<RequestId, Found> = BTreeMap::new();
    let mut take = |id, pieces: &[Piece]| {
        let of: &mut Found = found.entry(id).or_default();
        of.told += usize::from(!pieces.is_empty());
        pieces.iter().for_each(|piece| append(&mut of.pieces, piece.clone()));
    };
    let mut ends = Vec::new();
    let result = engine.run_to_end(&mut |output| match output {
        Output::Token { request, pieces, .. } => take(request, pieces),
        Output::Finished { request, pieces, answer, reason, error, .. } => {
            take(request, pieces);
            ends.push((request, answer.to_owned(), reason, error.cloned()));
        }
    });
    result.unwrap();
    for (id, answer, reason, error) in ends {
        let of = found.get_mut(&id).unwrap();
        (of.answer, of.end) = (answer, Some((reason, error)));
    }
    ids.iter().map(|id| found.remove(id).unwrap()).collect()
}

/// A request whose answer can only be `text`.
fn saying(text: &str) -> Request {
    let request = Request::new("Hi").with("max_tokens", 200).with("parse_output", true);
    request.with("guided_choice", Value::List(vec![text.into()]))
}

fn setup() -> Setup {
    Setup::new("cpu").set("paged", "dtype", "f32")
}

const ASKED: &str = "<think>\nwhich one?\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>";

#[test]
fn pieces_come_while_an_answer_grows() {
    let folder = tiny_model("tiny");
    let mut engine = setup().load(folder.path()).unwrap();
    let tools = || Value::List(vec!["f".into()]);
    let ids = [
        engine.submit(saying(ASKED).with("tools", tools())).unwrap(),
        engine.submit(saying("which</think>that").with("reasoning_begun", true)).unwrap(),
        engine.submit(saying("plain <tool_call>")).unwrap(),
        engine.submit(saying(ASKED).with("tools", tools()).with("parse_output", false)).unwrap(),
        engine.submit(saying("cut </thi").with("tools", tools()).with("max_tokens", 3)).unwrap(),
    ];
    let found = run(&mut engine, &ids);
    let reasoning = |text: &str| Piece::Reasoning(text.to_owned());
    let content = |text: &str| Piece::Content(text.to_owned());
    let call = Piece::ToolCall { index: 0, name: "f".to_owned() };
    let arguments = Piece::Arguments { index: 0, text: "{\"x\":1}".to_owned() };
    assert_eq!(found[0].pieces, [reasoning("which one?"), content("I look."), call, arguments]);
    assert!(found[0].told > 4, "told as it grows, not at the end: {}", found[0].told);
    assert_eq!(found[0].answer, ASKED, "the text is what it was");
    assert_eq!(found[1].pieces, [reasoning("which"), content("that")]);
    assert_eq!(found[2].pieces, [content("plain <tool_call>")]);
    assert_eq!(found[3].pieces, []);
    assert_eq!(found[4].pieces, [content(&found[4].answer)], "what was held back comes at the end");
    assert_eq!(found[4].end, Some((FinishReason::Length, None)));
}

/// Fails at a word, and says which instance it is.
struct Picky(&'static str);

impl OutputParser for Picky {
    fn open(&mut self, _: AnswerId, params: &Config) -> Result<()> {
        params.count_or("picky", 0, 0..=1).map(drop)
    }

    fn push(&mut self, _: AnswerId, text: &str, out: &mut Vec<Piece>) -> Result<()> {
        if text.contains('!') {
            return Err(Error::outside("picky", "no shouting"));
        }
        out.push(Piece::Content(text.to_owned()));
        Ok(())
    }

    fn finish(&mut self, _: AnswerId, out: &mut Vec<Piece>) -> Result<()> {
        out.push(Piece::Content(self.0.to_owned()));
        Ok(())
    }

    fn close(&mut self, _: AnswerId) {}
}

fn replace(engine: &Engine, name: &'static str) {
    let parser: Box<dyn OutputParser> = Box::new(Picky(name));
    let slot = format!("{}/tool-calls", <dyn OutputParser>::NAME);
    engine.swapper().swap(&slot, name, Box::new(parser), Duration::ZERO).unwrap();
}

#[test]
fn requests_keep_their_parsers_and_fail_alone() {
    let folder = tiny_model("tiny");
    let mut engine = setup().load(folder.path()).unwrap();
    let first = engine.submit(saying("a long answer that is under way")).unwrap();
    engine.step(&mut |_| {}).unwrap();
    replace(&engine, "second");
    engine.boundary();
    let wrong = saying("x").with("picky", 2);
    let error = engine.submit(wrong).unwrap_err().to_string();
    assert!(error.contains("picky: expected a whole number in 0..=1, found 2"), "{error}");
    let ids =
        [first, engine.submit(saying("new")).unwrap(), engine.submit(saying("no! no")).unwrap()];
    let found = run(&mut engine, &ids);
    let content = |text: &str| vec![Piece::Content(text.to_owned())];
    assert_eq!(found[0].end, Some((FinishReason::Stop, None)));
    assert!(!found[0].pieces.contains(&Piece::Content("second".to_owned())), "{:?}", found[0]);
    assert_eq!(found[1].pieces, content("newsecond"));
    let (reason, error) = found[2].end.clone().unwrap();
    assert_eq!(
        (reason, error),
        (FinishReason::Aborted, Some(Error::outside("picky", "no shouting")))
    );
    assert_eq!((engine.num_running(), engine.cache_usage().used), (0, 0));
}
