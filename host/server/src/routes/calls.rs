//! What parsers found in an answer, as messages and deltas have it: content, reasoning, calls of tools.

use std::collections::BTreeSet;

use jackfield_engine::Prompt;
use plugin_api::Config;
use plugin_api::kinds::output_parser::Piece;
use serde::Serialize;
use utoipa::ToSchema;

use super::chat::{AnswerMessage, Delta};
use crate::error::ApiError;
use crate::ids::Id;
use crate::params::{Sampling, Tools};

/// A tool to be called.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ToolCall {
    /// What the answer of the tool refers to.
    id: String,
    /// `function`.
    r#type: &'static str,
    function: Called,
}

/// Name and arguments of a call.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Called {
    name: String,
    /// JSON, as text.
    arguments: String,
}

/// What is new of a call.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CallDelta {
    /// Which call of the answer.
    index: u32,
    /// With the first that is told of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// `function`, with the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: CalledDelta,
}

/// Name, with the first, and text to append to the arguments.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CalledDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

/// Sets what plugins read of the tools of a request, and has its answer read.
pub(crate) fn set(
    tools: Option<&Tools>,
    sampling: &Sampling,
    readers: &BTreeSet<String>,
    params: &mut Config,
) -> Result<(), ApiError> {
    params.set("parse_output", true);
    let Some(tools) = tools else { return Ok(()) };
    let guided = tools.is_guided().then_some("guided");
    for reader in ["tool-calls"].into_iter().chain(guided) {
        if !readers.contains(reader) {
            return Err(ApiError::unsupported("tools", &format!("no plugin `{reader}` runs")));
        }
    }
    if guided.is_some() && sampling.has_grammar()? {
        let expected = "auto or none beside a grammar for the answer";
        return Err(ApiError::invalid("tool_choice", expected, "another"));
    }
    tools.set(params);
    Ok(())
}

/// Whether a prompt ends within reasoning: some templates begin it.
pub(crate) fn begins_to_reason(prompt: &Prompt) -> bool {
    match prompt {
        Prompt::Templated(text) => text.trim_end().ends_with("<think>"),
        _ => false,
    }
}

/// The message that an answer is.
pub(crate) fn message(pieces: Vec<Piece>) -> AnswerMessage {
    let mut message = AnswerMessage::empty();
    let (mut content, mut reasoning) = (String::new(), String::new());
    for piece in pieces {
        match piece {
            Piece::Content(text) => content.push_str(&text),
            Piece::Reasoning(text) => reasoning.push_str(&text),
            Piece::ToolCall { name, .. } => {
                let (id, arguments) = (call_id(), String::new());
                let function = Called { name, arguments };
                message.tool_calls.push(ToolCall { id, r#type: "function", function });
            }
            Piece::Arguments { index, text } => {
                if let Some(call) = message.tool_calls.get_mut(index as usize) {
                    call.function.arguments.push_str(&text);
                }
            }
        }
    }
    let is_call = content.is_empty() && !message.tool_calls.is_empty();
    message.content = (!is_call).then_some(content);
    message.reasoning_content = (!reasoning.is_empty()).then_some(reasoning);
    message
}

impl Delta {
    /// Adds what was found; `calls` are the ids of those that were told before.
    pub(crate) fn take(&mut self, pieces: &[Piece], calls: &mut Vec<String>) {
        for piece in pieces {
            match piece {
                Piece::Content(text) => self.content.get_or_insert_default().push_str(text),
                Piece::Reasoning(text) => {
                    self.reasoning_content.get_or_insert_default().push_str(text);
                }
                Piece::ToolCall { index, name } => {
                    let id = call_id();
                    calls.push(id.clone());
                    let function =
                        CalledDelta { name: Some(name.clone()), arguments: String::new() };
                    let (id, r#type) = (Some(id), Some("function"));
                    self.tool_calls.push(CallDelta { index: *index, id, r#type, function });
                }
                Piece::Arguments { index, text } => self.arguments(*index, text),
            }
        }
    }

    fn arguments(&mut self, index: u32, text: &str) {
        match self.tool_calls.last_mut().filter(|call| call.index == index) {
            Some(call) => call.function.arguments.push_str(text),
            None => {
                let function = CalledDelta { name: None, arguments: text.to_owned() };
                self.tool_calls.push(CallDelta { index, id: None, r#type: None, function });
            }
        }
    }
}

fn call_id() -> String {
    format!("call_{}", Id::new())
}
