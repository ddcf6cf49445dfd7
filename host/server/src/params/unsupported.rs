//! Fields of the OpenAI interface that mean something which is not there. They are refused by name:
//! whoever asks for a tool call and gets prose would otherwise look for the mistake elsewhere.

use serde_json::{Map, Value};

use crate::error::ApiError;

/// Fields, and what is missing.
#[rustfmt::skip]
const UNSUPPORTED: [(&str, &str); 9] = [
    ("audio",                "answers are text"),
    ("best_of",              "ask for n answers and choose"),
    ("function_call",        "ask with `tools` and `tool_choice`"),
    ("functions",            "ask with `tools` and `tool_choice`"),
    ("prediction",           "there is no plugin that speculates"),
    ("reasoning_effort",     "there is no plugin that reads reasoning"),
    ("suffix",               "there is no model that fills in"),
    ("verbosity",            "say in the prompt how long the answer should be"),
    ("web_search_options",   "there is no plugin that searches"),
];

/// Refuses what a request asks for and is not there. Nulls and empty lists ask for nothing.
pub(super) fn refuse_unsupported(left: &Map<String, Value>) -> Result<(), ApiError> {
    for (field, why) in UNSUPPORTED {
        if left.contains_key(field) {
            return Err(ApiError::unsupported(field, why));
        }
    }
    Ok(())
}
