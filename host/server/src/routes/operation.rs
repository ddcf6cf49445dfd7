//! What operators ask: is it well, is it ready, which version is it, what does it count.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::responses::Errors;
use crate::app::App;
use crate::error::ApiError;
use crate::metrics;

/// A word.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Status {
    /// `ok`.
    status: &'static str,
}

/// Which program this is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Version {
    /// Of the program.
    version: &'static str,
    /// Of the boundary that plugins speak.
    plugin_api: &'static str,
}

/// Is the model loaded? 503 until it is; 200 from then on, also while the server is being stopped.
#[utoipa::path(
    get,
    path = "/health",
    tag = "Operation",
    responses((status = 200, description = "It is", body = Status), Errors),
)]
pub(crate) async fn health(State(app): State<Arc<App>>) -> Result<Json<Status>, ApiError> {
    let model = app.port.model();
    model.map(|_| Json(Status { status: "ok" })).ok_or_else(ApiError::loading)
}

/// Are requests taken? 503 until the model is loaded, and from when on the server is being stopped.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "Operation",
    responses((status = 200, description = "They are", body = Status), Errors),
)]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Json<Status>, ApiError> {
    app.model().map(|_| Json(Status { status: "ok" }))
}

/// Which program is this?
#[utoipa::path(
    get,
    path = "/version",
    tag = "Operation",
    responses((status = 200, description = "Its version", body = Version), Errors),
)]
pub(crate) async fn version() -> Json<Version> {
    let version = env!("CARGO_PKG_VERSION");
    Json(Version { version, plugin_api: "0.0" })
}

/// Numbers for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "Operation",
    responses(
        (status = 200, description = "Text format 0.0.4", body = String, content_type = "text/plain"),
        Errors,
    ),
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = metrics::page(&app);
    let mut response = text.into_response();
    let media_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}
