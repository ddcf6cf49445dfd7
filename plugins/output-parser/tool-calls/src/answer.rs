//! One answer to a request that offers tools.

use plugin_api::kinds::output_parser::{append, begun};
use plugin_api::prelude::*;
use serde_json::Value as Json;

/// What an answer may be.
#[derive(Debug)]
pub(crate) enum Mode {
    /// Text, with calls if the model likes.
    Auto,
    /// A call and nothing else.
    Required,
    /// The arguments of a call of this tool.
    Named(String),
}

/// Where an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before anything but space.
    Start,
    Text,
    /// Behind a call: space is skipped.
    AfterCall,
    /// Between tags.
    Call,
    /// All of it may be JSON.
    Whole,
    /// Within the arguments of the tool that was asked for.
    Arguments,
}

/// What is known of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    names: Vec<String>,
    mode: Mode,
    calls_max: u64,
    place: Place,
    /// What could still become something else.
    held: String,
    num_calls: u32,
}

impl Answer {
    pub(crate) fn new(names: Vec<String>, mode: Mode, calls_max: u64) -> Self {
        let place = if matches!(mode, Mode::Required) { Place::Whole } else { Place::Start };
        Self { names, mode, calls_max, place, held: String::new(), num_calls: 0 }
    }

    pub(crate) fn push(&mut self, text: &str, out: &mut Vec<Piece>) {
        self.held.push_str(text);
        while self.advance(false, out) {}
    }

    pub(crate) fn finish(&mut self, out: &mut Vec<Piece>) {
        while self.advance(true, out) {}
    }

    /// Reads on; whether there is more to be read.
    fn advance(&mut self, is_over: bool, out: &mut Vec<Piece>) -> bool {
        match self.place {
            Place::Start => self.start(is_over, out),
            Place::Text => self.text(is_over, out),
            Place::AfterCall => {
                self.held.drain(..self.held.len() - self.held.trim_start().len());
                if !self.held.is_empty() {
                    self.place = Place::Text;
                }
                !self.held.is_empty()
            }
            Place::Call => self.call(is_over, out),
            Place::Whole => {
                if is_over {
                    let text = std::mem::take(&mut self.held);
                    match self.calls(&text, true) {
                        Some(calls) => self.tell(calls, out),
                        None => append(out, Piece::Content(text)),
                    }
                }
                false
            }
            Place::Arguments => {
                let text = std::mem::take(&mut self.held);
                append(out, Piece::Arguments { index: 0, text });
                false
            }
        }
    }

    fn start(&mut self, is_over: bool, out: &mut Vec<Piece>) -> bool {
        if let Mode::Named(name) = &self.mode {
            out.push(Piece::ToolCall { index: 0, name: name.clone() });
            self.place = Place::Arguments;
            return true;
        }
        match self.held.trim_start().chars().next() {
            None if !is_over => return false,
            Some('{') => self.place = Place::Whole,
            _ => self.place = Place::Text,
        }
        true
    }

    fn text(&mut self, is_over: bool, out: &mut Vec<Piece>) -> bool {
        if let Some(at) = self.held.find(BEGIN) {
            // Space before a call belongs to nobody.
            append(out, Piece::Content(self.held[..at].trim_end().to_owned()));
            self.held.drain(..at + BEGIN.len());
            self.place = Place::Call;
            return true;
        }
        let certain = if is_over {
            self.held.len()
        } else {
            self.held[..self.held.len() - begun(&self.held, BEGIN)].trim_end().len()
        };
        append(out, Piece::Content(self.held.drain(..certain).collect()));
        false
    }

    fn call(&mut self, is_over: bool, out: &mut Vec<Piece>) -> bool {
        let end = self.held.find(END);
        if end.is_none() && !is_over {
            return false;
        }
        let body = self.held[..end.unwrap_or(self.held.len())].to_owned();
        self.held.drain(..end.map_or(self.held.len(), |at| at + END.len()));
        match self.calls(&body, false) {
            Some(calls) => {
                self.tell(calls, out);
                self.place = Place::AfterCall;
            }
            None => {
                let tag = if end.is_some() { END } else { "" };
                append(out, Piece::Content(format!("{BEGIN}{body}{tag}")));
                self.place = Place::Text;
            }
        }
        end.is_some()
    }

    /// The calls that a text is, with their arguments; nothing if it is anything else.
    fn calls(&self, text: &str, is_separated: bool) -> Option<Vec<(String, String)>> {
        let (mut calls, mut rest) = (Vec::new(), text.trim());
        while !rest.is_empty() {
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Json>();
            match values.next()?.ok()? {
                Json::Array(list) => {
                    for call in &list {
                        calls.push(self.one(call)?);
                    }
                }
                call => calls.push(self.one(&call)?),
            }
            rest = rest[values.byte_offset()..].trim_start();
            match rest.strip_prefix(';') {
                Some(more) if is_separated => rest = more.trim_start(),
                _ if rest.is_empty() => {}
                _ => return None,
            }
        }
        (!calls.is_empty()).then_some(calls)
    }

    /// Name and arguments of a call of a tool that was offered.
    fn one(&self, call: &Json) -> Option<(String, String)> {
        let name =
            call.get("name")?.as_str().filter(|name| self.names.iter().any(|n| n == name))?;
        let arguments = match call.get("arguments").or_else(|| call.get("parameters")) {
            None | Some(Json::Null) => "{}".to_owned(),
            Some(arguments @ Json::Object(_)) => arguments.to_string(),
            Some(Json::String(text)) => match serde_json::from_str::<Json>(text) {
                Ok(Json::Object(_)) => text.clone(),
                _ => return None,
            },
            Some(_) => return None,
        };
        Some((name.to_owned(), arguments))
    }

    fn tell(&mut self, calls: Vec<(String, String)>, out: &mut Vec<Piece>) {
        for (name, text) in calls {
            if u64::from(self.num_calls) >= self.calls_max {
                return;
            }
            let index = self.num_calls;
            out.push(Piece::ToolCall { index, name });
            out.push(Piece::Arguments { index, text });
            self.num_calls += 1;
        }
    }
}

const BEGIN: &str = "<tool_call>";
const END: &str = "</tool_call>";
