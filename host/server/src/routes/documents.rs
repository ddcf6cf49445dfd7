//! The interface described: for programs at `/openapi.json`, for people at `/docs`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse as _, Response};

use crate::app::App;
use crate::openapi;

/// The interface as OpenAPI 3.1 has it.
pub(crate) async fn openapi(State(app): State<Arc<App>>) -> Response {
    let mut response = openapi::json(&app).into_response();
    let media_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// The same for people: one page that needs nothing from elsewhere.
pub(crate) async fn page() -> Html<&'static str> {
    Html(include_str!("documents.html"))
}
