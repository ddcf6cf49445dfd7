//! Paths: one file for each group.

mod calls;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod documents;
pub(crate) mod embeddings;
mod memory;
pub(crate) mod models;
pub(crate) mod operation;
pub(crate) mod page;
pub(crate) mod responses;
pub(crate) mod seeds;
pub(crate) mod sessions;
pub(crate) mod tokens;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};

use crate::app::App;
use crate::error::ApiError;
use crate::guard;

/// Every path of the interface.
pub(crate) fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*model}", get(models::one))
        .route("/v1/completions", post(completions::complete))
        .route("/v1/chat/completions", post(chat::complete))
        .route("/v1/embeddings", post(embeddings::embed))
        .route("/v1/sessions/{session_id}", delete(sessions::delete))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/health", get(operation::health))
        .route("/ready", get(operation::ready))
        .route("/version", get(operation::version))
        .route("/metrics", get(operation::metrics))
        .route("/", get(page::index))
        .route("/page/{file}", get(page::file))
        .route("/openapi.json", get(documents::openapi))
        .route("/docs", get(documents::page))
        .route("/generate", post(seeds::generate))
        .route("/api/generate", post(seeds::generate))
        .route("/train", post(seeds::train))
        .route("/evaluate", post(seeds::train))
        .route("/checkpoint", get(seeds::checkpoint))
        .route("/plugins", get(seeds::plugins))
        .fallback(|| async { ApiError::no_path() })
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
        .layer(from_fn_with_state(Arc::clone(app), guard::guard))
        .with_state(Arc::clone(app))
}
