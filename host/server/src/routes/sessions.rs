//! Conversations that memories keep.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::memory;
use super::responses::Errors;
use crate::app::App;
use crate::error::ApiError;
use crate::generate::blocking;

/// A conversation that is forgotten.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeletedSession {
    /// Its `session_id`.
    id: String,
    /// Always `session.deleted`.
    object: &'static str,
    /// Whether anything of it was kept.
    deleted: bool,
}

/// Forget a conversation: everything that the memories that run keep of it.
#[utoipa::path(
    delete,
    path = "/v1/sessions/{session_id}",
    tag = "Memory",
    params(("session_id" = String, Path, description = "As in the chats of the conversation")),
    responses((status = 200, description = "It is forgotten", body = DeletedSession), Errors),
)]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<DeletedSession>, ApiError> {
    let memories = memory::of(&app, &id)?;
    let session = id.clone();
    let rows = blocking(move || memories.forget(&session)).await?;
    let rows = rows.map_err(|error| ApiError::forgot(&error.to_string()))?;
    Ok(Json(DeletedSession { id, object: "session.deleted", deleted: rows > 0 }))
}
