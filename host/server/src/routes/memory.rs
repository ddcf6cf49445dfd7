//! What memories recall for a chat, and what they keep of its answer.

use std::pin::Pin;
use std::sync::Arc;

use jackfield_engine::Memories;
use jackfield_engine::memory::{self, Recalled};
use jackfield_engine::model::{LoadedModel, Message};
use plugin_api::host::{SESSION_BYTES_MAX, is_session};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::error::ApiError;
use crate::generate::blocking;

/// What memories did, in requests with a `session_id`.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct MemoryReport {
    /// Where what stood in front of the question comes from, most important first: memory, then what it calls it.
    recalled: Vec<String>,
    /// Whether everything that is worth keeping of the turn is kept.
    remembered: bool,
    /// What people should know of it: contradictions, directives that could not be read.
    notes: Vec<String>,
    /// Why a memory has not kept the turn; the answer stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A chat that will be remembered.
pub(crate) struct Session {
    recalled: Recalled,
    /// What the first choice says, as far as it has come.
    said: String,
}

/// What is told once an answer is remembered.
pub(crate) type Remembering = Pin<Box<dyn Future<Output = MemoryReport> + Send>>;

/// The memories of a conversation.
pub(super) fn of(app: &App, session: &str) -> Result<Memories, ApiError> {
    if !is_session(session) {
        let expected = format!("1 to {SESSION_BYTES_MAX} bytes without control characters");
        return Err(ApiError::invalid("session_id", &expected, session));
    }
    let memories = app.memories.get().filter(|memories| !memories.is_empty());
    memories.cloned().ok_or_else(|| {
        let why = "no memory runs: name one in `memory` of [plugins]";
        ApiError::unsupported("session_id", why)
    })
}

impl Session {
    /// Lets memories put what they recall into the conversation of `id`.
    pub(crate) async fn open(
        app: &App,
        model: &Arc<LoadedModel>,
        id: &str,
        mut messages: Vec<Message>,
    ) -> Result<(Self, Vec<Message>), ApiError> {
        let memories = of(app, id)?;
        let (turn, model) = (memory::turn(id, &messages), Arc::clone(model));
        let count = move |text: &str| model.tokenizer.encode(text, false).len();
        let recalled = blocking(move || memories.recall(turn, &count)).await?;
        // Without what it should know, an answer would be wrong and nobody would notice.
        let recalled = recalled.map_err(|error| ApiError::forgot(&error.to_string()))?;
        memory::place(recalled.passages(), &mut messages);
        Ok((Self { recalled, said: String::new() }, messages))
    }

    /// Takes what follows in the first choice.
    pub(crate) fn hear(&mut self, text: &str) {
        self.said.push_str(text);
    }

    /// Keeps the turn. The answer has been given: what fails is told with it.
    pub(crate) fn remember(self) -> Remembering {
        let Self { recalled, said } = self;
        let sources = recalled.passages().iter().map(|passage| passage.source.clone());
        let report = MemoryReport { recalled: sources.collect(), ..MemoryReport::default() };
        Box::pin(async move {
            let kept = blocking(move || recalled.remember(&said)).await;
            match kept {
                Ok(Ok(notes)) => MemoryReport { remembered: true, notes, ..report },
                Ok(Err(error)) => MemoryReport { error: Some(error.to_string()), ..report },
                Err(_) => MemoryReport { error: Some("a memory panicked".to_owned()), ..report },
            }
        })
    }
}
