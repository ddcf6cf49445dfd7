//! Output parsers as components.

use std::cell::RefCell;

use super::offers::jackfield::plugin::settings::Config as Settings;
use super::offers::jackfield::plugin::types::Error as WireError;
use super::{Plugin, config, make, place, with};
use crate::kinds::output_parser::{AnswerId, OutputParser, Piece};
use bindings::exports::jackfield::plugin::output_parser as wit;

super::world!("output-parser-plugin");

thread_local! {
    static INSTANCE: RefCell<Option<Box<dyn OutputParser>>> = const { RefCell::new(None) };
}

impl<P: Plugin<Kind = dyn OutputParser>> wit::Guest for P {
    fn create(settings: &Settings) -> Result<(), WireError> {
        place(&INSTANCE, make::<P>(settings)?)
    }

    fn open(answer: u32, params: &Settings) -> Result<(), WireError> {
        let copy = config::copied(params);
        let opened = with(&INSTANCE, |instance| instance.open(AnswerId(answer), &copy));
        config::mark_read(&copy, params);
        Ok(opened?)
    }

    fn push(answer: u32, text: String) -> Result<Vec<wit::Piece>, WireError> {
        let mut pieces = Vec::new();
        with(&INSTANCE, |instance| instance.push(AnswerId(answer), &text, &mut pieces))?;
        Ok(pieces.into_iter().map(piece_of).collect())
    }

    fn finish(answer: u32) -> Result<Vec<wit::Piece>, WireError> {
        let mut pieces = Vec::new();
        with(&INSTANCE, |instance| instance.finish(AnswerId(answer), &mut pieces))?;
        Ok(pieces.into_iter().map(piece_of).collect())
    }

    fn close(answer: u32) {
        with(&INSTANCE, |instance| instance.close(AnswerId(answer)));
    }
}

fn piece_of(piece: Piece) -> wit::Piece {
    match piece {
        Piece::Content(text) => wit::Piece::Content(text),
        Piece::Reasoning(text) => wit::Piece::Reasoning(text),
        Piece::ToolCall { index, name } => wit::Piece::ToolCall(wit::ToolCall { index, name }),
        Piece::Arguments { index, text } => wit::Piece::Arguments(wit::Arguments { index, text }),
    }
}
