//! What a line of a data file says: text, a prompt with its completion, a conversation, or a preference.
//!
//! The layouts are those of TRL's data sets. Columns beside those that are known are left alone.

use std::fmt;

use serde_json::{Map, Value};

use crate::model::Message;

/// One example.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    /// `{"text": "…"}`: every token is learnt.
    Text(String),
    /// `{"prompt": …, "completion": …}`: the completion is learnt.
    Completion {
        /// What comes before it.
        prompt: Turns,
        /// What is learnt.
        completion: Turns,
    },
    /// `{"messages": […]}`: what the assistant says is learnt.
    Chat(Vec<Message>),
    /// `{"prompt": …, "chosen": …, "rejected": …}`: the first answer is preferred to the second.
    Preference {
        /// What both answer.
        prompt: Turns,
        /// The preferred one.
        chosen: Turns,
        /// The other.
        rejected: Turns,
    },
    /// `{"prompt": …}`, and maybe `"expected": …`: the model answers, and what it says is rated.
    Prompt {
        /// What it answers.
        prompt: Turns,
        /// What an answer should come to.
        expected: Option<String>,
    },
}

/// Text, or messages that a chat template makes text of.
#[derive(Debug, Clone, PartialEq)]
pub enum Turns {
    /// As it is.
    Text(String),
    /// Of a conversation, at least one.
    Messages(Vec<Message>),
}

/// Which of the layouts an example has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// [`Example::Text`].
    Text,
    /// [`Example::Completion`].
    Completion,
    /// [`Example::Chat`].
    Chat,
    /// [`Example::Preference`].
    Preference,
    /// [`Example::Prompt`].
    Prompt,
}

/// Why a line is no example: what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineError {
    /// With the name of the column.
    pub expected: String,
    /// In its place.
    pub found: String,
}

impl Example {
    /// Reads one line.
    ///
    /// # Errors
    ///
    /// [`LineError`] for what is no UTF-8, no JSON object, or has not exactly the columns of one layout with the types
    /// that it asks for.
    pub fn parse(line: &[u8]) -> Result<Self, LineError> {
        let text = std::str::from_utf8(line).map_err(|error| {
            let at = error.valid_up_to();
            LineError::new("UTF-8", format!("the byte {:#04x} at {at}", line[at]))
        })?;
        if text.trim().is_empty() {
            return Err(LineError::new("a JSON object", "an empty line"));
        }
        let mut columns: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| LineError::new("a JSON object", error.to_string()))?;
        let format = Format::of(&columns)?;
        let mut take = |name: &str| columns.remove(name).unwrap_or_default();
        Ok(match format {
            Format::Text => match take("text") {
                Value::String(text) => Self::Text(text),
                other => return Err(LineError::of("text", "text", &other)),
            },
            Format::Chat => Self::Chat(messages("messages", take("messages"))?),
            Format::Completion => {
                let prompt = turns("prompt", take("prompt"))?;
                let completion = turns("completion", take("completion"))?;
                alike(&prompt, "completion", &completion)?;
                Self::Completion { prompt, completion }
            }
            Format::Preference => {
                let prompt = turns("prompt", take("prompt"))?;
                let chosen = turns("chosen", take("chosen"))?;
                let rejected = turns("rejected", take("rejected"))?;
                alike(&prompt, "chosen", &chosen)?;
                alike(&prompt, "rejected", &rejected)?;
                Self::Preference { prompt, chosen, rejected }
            }
            Format::Prompt => {
                let prompt = turns("prompt", take("prompt"))?;
                Self::Prompt { prompt, expected: expected(take("expected"))? }
            }
        })
    }

    /// Its layout.
    pub fn format(&self) -> Format {
        match self {
            Self::Text(_) => Format::Text,
            Self::Completion { .. } => Format::Completion,
            Self::Chat(_) => Format::Chat,
            Self::Preference { .. } => Format::Preference,
            Self::Prompt { .. } => Format::Prompt,
        }
    }
}

impl Format {
    /// The one layout whose columns are all there.
    fn of(columns: &Map<String, Value>) -> Result<Self, LineError> {
        let has = |names: &[&str]| names.iter().all(|name| columns.contains_key(*name));
        let answers = ["completion", "chosen", "rejected", "messages", "text"];
        if has(&["prompt"]) && !answers.iter().any(|name| has(&[name])) {
            return Ok(Self::Prompt);
        }
        let mut found = LAYOUTS.into_iter().filter(|(_, names)| has(names));
        match (found.next(), found.next()) {
            (Some((format, _)), None) => Ok(format),
            (Some((one, _)), Some((other, _))) => {
                Err(LineError::new("the columns of one layout", format!("{one} and {other}")))
            }
            (None, _) => {
                let layouts: Vec<String> =
                    LAYOUTS.iter().map(|(format, _)| format.to_string()).collect();
                let expected = format!("the columns {}", layouts.join(", or "));
                let mut names: Vec<String> =
                    columns.keys().take(SHOWN_MAX).map(|name| shown(name)).collect();
                if names.is_empty() {
                    names.push("none".to_owned());
                }
                Err(LineError::new(expected, names.join(", ")))
            }
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = LAYOUTS.iter().find(|(format, _)| format == self);
        let names = row.map_or(&["prompt"][..], |row| row.1);
        write!(f, "`{}`", names.join("`, `"))
    }
}

/// A prompt alone is none of these but for itself.
const LAYOUTS: [(Format, &[&str]); 4] = [
    (Format::Chat, &["messages"]),
    (Format::Text, &["text"]),
    (Format::Completion, &["prompt", "completion"]),
    (Format::Preference, &["prompt", "chosen", "rejected"]),
];

impl LineError {
    fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        let found: String = found.into();
        let end = found.char_indices().nth(FOUND_CHARS_MAX);
        let found = match end {
            // A parser's words may quote all that it was given.
            Some((end, _)) => format!("{}…", &found[..end]),
            None => found,
        };
        Self { expected: expected.into(), found }
    }

    fn of(column: &str, expected: &str, found: &Value) -> Self {
        Self::new(format!("{expected} in `{column}`"), name_of(found))
    }
}

/// Text, or a number as it is written.
fn expected(value: Value) -> Result<Option<String>, LineError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        other => Err(LineError::of("expected", "text or a number", &other)),
    }
}

fn turns(column: &str, value: Value) -> Result<Turns, LineError> {
    match value {
        Value::String(text) => Ok(Turns::Text(text)),
        list @ Value::Array(_) => messages(column, list).map(Turns::Messages),
        other => Err(LineError::of(column, "text or a list of messages", &other)),
    }
}

/// The columns of an example are all text or all messages.
fn alike(prompt: &Turns, column: &str, other: &Turns) -> Result<(), LineError> {
    match (prompt, other) {
        (Turns::Text(_), Turns::Text(_)) | (Turns::Messages(_), Turns::Messages(_)) => Ok(()),
        (Turns::Text(_), _) => {
            Err(LineError::new(format!("text in `{column}`, as in `prompt`"), "a list"))
        }
        _ => Err(LineError::new(format!("messages in `{column}`, as in `prompt`"), "text")),
    }
}

fn messages(column: &str, value: Value) -> Result<Vec<Message>, LineError> {
    let list = match value {
        Value::Array(list) if !list.is_empty() => list,
        Value::Array(_) => {
            return Err(LineError::new(format!("a message in `{column}`"), "an empty list"));
        }
        other => return Err(LineError::of(column, "a list of messages", &other)),
    };
    list.into_iter().enumerate().map(|(at, value)| message(column, at, value)).collect()
}

fn message(column: &str, at: usize, value: Value) -> Result<Message, LineError> {
    let place = |key: &str| format!("{column}[{at}]{key}");
    let Value::Object(mut fields) = value else {
        return Err(LineError::of(&place(""), "an object", &value));
    };
    let role = match fields.remove("role") {
        Some(Value::String(role)) => role,
        other => return Err(LineError::of(&place(".role"), "text", &other.unwrap_or_default())),
    };
    let content = match fields.remove("content") {
        Some(text @ Value::String(_)) => text,
        // What calls a tool and says nothing.
        None | Some(Value::Null) if fields.contains_key("tool_calls") => Value::Null,
        other => {
            return Err(LineError::of(&place(".content"), "text", &other.unwrap_or_default()));
        }
    };
    Ok(Message { role, content, extra: fields })
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The beginning of a name that a stranger wrote.
fn shown(name: &str) -> String {
    let mut short: String = name.chars().take(SHOWN_CHARS_MAX).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    format!("`{}`", short.escape_debug())
}

/// Columns that an error names.
const SHOWN_MAX: usize = 8;
const SHOWN_CHARS_MAX: usize = 40;
const FOUND_CHARS_MAX: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layout_is_read() {
        let text = |text: &str| Turns::Text(text.to_owned());
        let said = |role: &str, text: &str| Turns::Messages(vec![Message::new(role, text)]);
        #[rustfmt::skip]
        let cases = [
            (r#"{"text": "a", "source": 3}"#, Example::Text("a".to_owned())),
            (r#"{"messages": [{"role": "user", "content": "a"}]}"#, Example::Chat(vec![Message::new("user", "a")])),
            (r#"{"prompt": "a", "completion": "b"}"#, Example::Completion { prompt: text("a"), completion: text("b") }),
            (r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#,
                Example::Preference { prompt: text("a"), chosen: text("b"), rejected: text("c") }),
            (r#" {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]} "#,
                Example::Completion { prompt: said("user", "a"), completion: said("assistant", "b") }),
        ];
        for (line, expected) in cases {
            assert_eq!(Example::parse(line.as_bytes()).unwrap(), expected, "{line}");
        }
        let calls = r#"{"messages": [{"role": "assistant", "content": null, "tool_calls": []}]}"#;
        assert!(Example::parse(calls.as_bytes()).is_ok());
    }

    #[test]
    fn what_is_no_example_says_what_was_expected_and_found() {
        #[rustfmt::skip]
        let cases: [(&[u8], &str); 18] = [
            (b"",                                   "a JSON object, found an empty line"),
            (b"  ",                                 "a JSON object, found an empty line"),
            (b"{\"text\": \"\xff\"}",               "UTF-8, found the byte 0xff at 10"),
            (b"{\"text\": \"a\"",                   "a JSON object, found EOF while parsing an object at line 1 column 12"),
            (b"[1]",                                "a JSON object, found invalid type: sequence, expected a map"),
            (b"{\"text\": \"a\"} {}",               "a JSON object, found trailing characters"),
            (b"\xef\xbb\xbf{\"text\": \"a\"}",      "a JSON object, found expected value at line 1 column 1"),
            (b"{}",                                 "or `prompt`, `chosen`, `rejected`, found none"),
            (b"{\"prompt\": \"a\", \"chosen\": 1}", "found `prompt`, `chosen`"),
            (b"{\"text\": 1}",                      "text in `text`, found a number"),
            (b"{\"text\": null}",                   "text in `text`, found nothing"),
            (b"{\"text\": \"a\", \"messages\": []}", "the columns of one layout, found `messages` and `text`"),
            (b"{\"messages\": []}",                 "a message in `messages`, found an empty list"),
            (b"{\"messages\": \"a\"}",              "a list of messages in `messages`, found text"),
            (b"{\"messages\": [3]}",                "an object in `messages[0]`, found a number"),
            (b"{\"messages\": [{\"content\": \"a\"}]}", "text in `messages[0].role`, found nothing"),
            (b"{\"messages\": [{\"role\": \"user\", \"content\": [1]}]}", "text in `messages[0].content`, found a list"),
            (b"{\"prompt\": \"a\", \"completion\": [{\"role\": \"user\", \"content\": \"b\"}]}",
                "text in `completion`, as in `prompt`, found a list"),
        ];
        for (line, expected) in cases {
            let LineError { expected: e, found } = Example::parse(line).unwrap_err();
            let error = format!("{e}, found {found}");
            let line = String::from_utf8_lossy(line);
            assert!(error.contains(expected), "{line}: {error}");
        }
        // As deep as one likes.
        let deep = format!("{{\"text\": {}", "[".repeat(100_000));
        assert!(Example::parse(deep.as_bytes()).is_err());
        let long = format!("{{\"{}\": 1}}", "a".repeat(100_000));
        assert!(Example::parse(long.as_bytes()).unwrap_err().found.len() < 60);
    }
}
