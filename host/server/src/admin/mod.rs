//! What operators may do and others may not: a listener of its own, with keys of its own.
//!
//! Whoever may load a plugin may run code as this process does. So it listens only where it is told
//! to, and never without a key.

mod adapter;
mod answers;
mod board;
mod documents;
mod events;
mod mask;
mod plugins;
mod quotas;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};

use crate::app::App;
use crate::error::ApiError;
use crate::guard::{key, request_id};

pub(crate) use board::host;
pub use board::{Board, Exchange};

/// Every path of the admin interface.
pub(crate) fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/plugins", get(plugins::list))
        .route("/plugins/load", post(plugins::load))
        .route("/plugins/swap", post(plugins::swap))
        .route("/plugins/rollback", post(plugins::rollback))
        .route("/slots", get(plugins::slots))
        .route("/adapter", post(adapter::exchange))
        .route("/mask", post(mask::exchange))
        .route("/quotas", get(quotas::read).post(quotas::change))
        .route("/events", get(events::tail))
        .route("/openapi.json", get(documents::openapi))
        .fallback(|| async { ApiError::no_path() })
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
        .layer(from_fn_with_state(Arc::clone(app), guard))
        .with_state(Arc::clone(app))
}

/// Asks for a key, always.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let is_known = app.config().admin_keys.contain(key(request.headers()));
    let mut response = match is_known {
        // A browser asks before it sends what a page of another address wants: a key is no cookie,
        // so that whoever wrote the page has to know it.
        _ if request.method() == Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        true => next.run(request).await,
        false => ApiError::unauthorized().into_response(),
    };
    let headers = response.headers_mut();
    headers.insert("x-request-id", id);
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
