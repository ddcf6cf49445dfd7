//! The body of `/v1/chat/completions`.

use std::sync::LazyLock;

use axum::body::Bytes;
use jackfield_engine::model::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use super::fields::{Fields, kind_of, read, side_by_side, typed};
use super::sampling::{LogprobsWanted, Sampling};
use super::tools::{Tool, ToolChoice, Tools};
use crate::error::ApiError;

/// What a chat has besides the fields of every request.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct ChatFields {
    /// The conversation so far.
    #[schema(value_type = Vec<ChatMessage>, min_items = 1)]
    messages: Vec<Map<String, Value>>,
    /// Most tokens of an answer; the name that `max_tokens` has since.
    #[schema(minimum = 1, maximum = 1_073_741_824)]
    max_completion_tokens: Option<u32>,
    /// Send the logarithms of the tokens' probabilities.
    logprobs: Option<bool>,
    /// Alternatives for each token; only with `logprobs`.
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<u32>,
    /// Tools that the answer may call.
    #[schema(value_type = Option<Vec<Tool>>, max_items = 128)]
    tools: Option<Value>,
    /// Which of them it calls: `none`, what the model likes (`auto`), any of them (`required`), or one.
    #[schema(value_type = Option<ToolChoice>)]
    tool_choice: Option<Value>,
    /// With `false`, calls after the first are left out.
    parallel_tool_calls: Option<bool>,
    /// Whose memory the conversation is: what memories recall for it goes in front of the question, and the answer
    /// is remembered. Whoever names a session reads it, so that it should be hard to guess. Without, nothing is
    /// recalled and nothing kept.
    #[schema(min_length = 1, max_length = 128)]
    session_id: Option<String>,
    /// Only `["text"]`.
    modalities: Option<Vec<String>>,
}

/// One message.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatMessage {
    /// Who said it.
    role: Role,
    /// What was said.
    #[schema(value_type = Content)]
    content: Option<Value>,
    /// Who said it, among those of the same role.
    name: Option<String>,
    /// Only null, as answers have it.
    refusal: Option<String>,
    /// What led to it, as answers have it.
    reasoning_content: Option<String>,
    /// Tools that an answer called.
    #[schema(value_type = Option<Vec<CalledTool>>)]
    tool_calls: Option<Value>,
    /// Which call a tool answers.
    tool_call_id: Option<String>,
}

/// A tool that an answer called.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "a schema")]
pub(crate) struct CalledTool {
    id: String,
    /// `function`.
    r#type: CalledType,
    function: CalledFunction,
}

/// What a called tool is.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "a schema")]
pub(crate) enum CalledType {
    Function,
}

/// Name and arguments of a call.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "a schema")]
pub(crate) struct CalledFunction {
    name: String,
    /// JSON, as text.
    arguments: String,
}

/// Who says something. `developer` is what newer clients call `system`.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

/// A text, or parts of one.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "a schema: values are read by hand, for the sake of their errors")]
pub(crate) enum Content {
    /// A text.
    Text(String),
    /// Texts, one after the other.
    Parts(Vec<TextPart>),
}

/// A part of a message.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "a schema")]
pub(crate) struct TextPart {
    /// Only `text`.
    r#type: PartType,
    /// The text.
    text: String,
}

/// What a part is.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "a schema")]
pub(crate) enum PartType {
    Text,
}

/// A chat: the fields of every request beside those of a chat.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub(crate) sampling: Sampling,
    pub(crate) messages: Vec<Message>,
    pub(crate) logprobs: LogprobsWanted,
    pub(crate) tools: Option<Tools>,
    /// Most tokens of an answer, if the client says so.
    pub(crate) max_tokens: Option<u32>,
    pub(crate) session_id: Option<String>,
}

impl PartialSchema for ChatRequest {
    fn schema() -> RefOr<Schema> {
        side_by_side::<Sampling, ChatFields>()
    }
}

impl ToSchema for ChatRequest {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Sampling::schemas(schemas);
        ChatFields::schemas(schemas);
    }
}

impl ChatRequest {
    /// Reads a body.
    pub(crate) fn read(body: &Bytes) -> Result<Self, ApiError> {
        static FIELDS: LazyLock<(Fields, Fields)> =
            LazyLock::new(|| (Fields::of::<Sampling>(), Fields::of::<ChatFields>()));
        let (sampling, chat): (Sampling, ChatFields) = read(body, &FIELDS)?;
        refuse_other_formats(&chat)?;
        let logprobs = wanted(&chat)?;
        let is_parallel = chat.parallel_tool_calls != Some(false);
        let tools = Tools::read(chat.tools.as_ref(), chat.tool_choice.as_ref(), is_parallel)?;
        let max_tokens = match (sampling.max_tokens, chat.max_completion_tokens) {
            (Some(old), Some(new)) if old != new => {
                let expected = "the same as max_tokens, or one of both";
                return Err(ApiError::invalid("max_completion_tokens", expected, &new.to_string()));
            }
            (old, new) => new.or(old),
        };
        if max_tokens == Some(0) {
            return Err(ApiError::invalid("max_tokens", "at least 1", "0"));
        }
        if chat.messages.is_empty() {
            return Err(ApiError::invalid("messages", "at least one message", "none"));
        }
        let messages = chat.messages.into_iter().enumerate();
        let messages = messages.map(|(i, message)| read_message(i, message));
        let messages = messages.collect::<Result<_, _>>()?;
        let session_id = chat.session_id;
        Ok(Self { sampling, messages, logprobs, tools, max_tokens, session_id })
    }
}

fn refuse_other_formats(chat: &ChatFields) -> Result<(), ApiError> {
    if chat.modalities.as_ref().is_some_and(|list| list != &["text"]) {
        return Err(ApiError::unsupported("modalities", "answers are text"));
    }
    Ok(())
}

fn wanted(chat: &ChatFields) -> Result<LogprobsWanted, ApiError> {
    let (is_wanted, top) = (chat.logprobs == Some(true), chat.top_logprobs.unwrap_or(0));
    if top > 20 {
        return Err(ApiError::invalid("top_logprobs", "a number in 0..=20", &top.to_string()));
    }
    if top > 0 && !is_wanted {
        return Err(ApiError::invalid("top_logprobs", "logprobs to be true", "a request without"));
    }
    Ok(LogprobsWanted { is_wanted, top: top as usize })
}

fn read_message(index: usize, mut message: Map<String, Value>) -> Result<Message, ApiError> {
    message.retain(|_, value| !value.is_null());
    let at = |field: &str| format!("messages[{index}].{field}");
    for field in ["function_call", "audio"] {
        if message.contains_key(field) {
            let why = "calls are in `tool_calls`, and answers are text";
            return Err(ApiError::unsupported(&at(field), why));
        }
    }
    // An answer that called tools may have said nothing.
    let is_call = message.contains_key("tool_calls");
    for field in ["role", "content"] {
        let may_lack = is_call && field == "content";
        if !message.contains_key(field) && !may_lack {
            return Err(ApiError::missing(&at(field)));
        }
    }
    let message: ChatMessage =
        typed(message).map_err(|error| error.within(&format!("messages[{index}]")))?;
    if message.refusal.is_some() {
        return Err(ApiError::unsupported(&at("refusal"), "answers have none"));
    }
    let role = match message.role {
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let content = message.content.map_or(Ok(String::new()), |it| text_of(it, &at("content")))?;
    let mut read = Message::new(role, content);
    let texts = [
        ("name", message.name),
        ("reasoning_content", message.reasoning_content),
        ("tool_call_id", message.tool_call_id),
    ];
    for (field, text) in texts {
        if let Some(text) = text {
            read.extra.insert(field.to_owned(), Value::String(text));
        }
    }
    if let Some(calls) = message.tool_calls {
        if role != "assistant" {
            let expected = "a message of the role assistant";
            return Err(ApiError::invalid(&at("tool_calls"), expected, role));
        }
        read.extra.insert("tool_calls".to_owned(), called(calls, &at("tool_calls"))?);
    }
    Ok(read)
}

/// Calls as templates take them: with the arguments as an object.
fn called(mut calls: Value, at: &str) -> Result<Value, ApiError> {
    let expected =
        "a list of calls with an id, the type function, and a function with name and arguments";
    let list = calls.as_array_mut().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| ApiError::invalid(at, expected, "something else"))?;
    for (i, call) in list.iter_mut().enumerate() {
        let at = format!("{at}[{i}]");
        let is_fair = call.get("id").is_some_and(Value::is_string)
            && call.get("type").is_some_and(|kind| kind == "function")
            && call.get("function").and_then(|f| f.get("name")).is_some_and(Value::is_string);
        let arguments = call.get_mut("function").and_then(|f| f.get_mut("arguments"));
        let Some(arguments) = arguments.filter(|_| is_fair) else {
            return Err(ApiError::invalid(&at, expected, "something else"));
        };
        let text = arguments.as_str().unwrap_or_default();
        match serde_json::from_str::<Value>(text) {
            Ok(object @ Value::Object(_)) => *arguments = object,
            _ => {
                let at = format!("{at}.function.arguments");
                return Err(ApiError::invalid(
                    &at,
                    "a text of a JSON object",
                    &arguments.to_string(),
                ));
            }
        }
    }
    Ok(calls)
}

/// The text of a message: as it is, or its parts with a line between two.
fn text_of(content: Value, at: &str) -> Result<String, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        other => return Err(ApiError::invalid(at, "a text or a list of parts", kind_of(&other))),
    };
    let mut texts = Vec::with_capacity(parts.len());
    for (i, part) in parts.iter().enumerate() {
        let kind = part.get("type").and_then(Value::as_str);
        match (kind, part.get("text"), part.as_object().map(Map::len)) {
            (Some("text"), Some(Value::String(text)), Some(2)) => texts.push(text.as_str()),
            (Some(other), ..) if other != "text" => {
                let why = format!("parts of type `{other}`: answers and questions are text");
                return Err(ApiError::unsupported(&format!("{at}[{i}].type"), &why));
            }
            _ => {
                let expected = "an object of \"type\": \"text\" and \"text\"";
                return Err(ApiError::invalid(&format!("{at}[{i}]"), expected, "something else"));
            }
        }
    }
    Ok(texts.join("\n"))
}
