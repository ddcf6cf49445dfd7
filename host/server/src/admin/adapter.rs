//! Another adapter beside the weights, for requests that come after.

use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::{Request, State};
use jackfield_runtime::{Reach, Swapped};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::board::Exchange;
use super::plugins::{Refused, absolute, board};
use crate::app::App;
use crate::body::read_json;
use crate::error::ApiError;
use crate::generate::blocking;
use crate::params::{Fields, read_one};
use crate::routes::responses::Errors;

/// Let requests that come from now on have another adapter.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExchangeRequest {
    /// The folder on this machine, in the layout of PEFT; null for none.
    folder: Option<String>,
}

/// What an exchange did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Exchanged {
    /// Name of the folder or of the weights, and generation.
    active: String,
    /// When it counts: `new-requests` or `next-boundary`. Requests that run keep what they began with.
    reach: &'static str,
    /// How long making it took, beside the steps, in microseconds.
    prepare_us: u64,
    /// How long it waited for a boundary of steps, in microseconds.
    wait_us: u64,
}

/// Let requests that come from now on have another adapter.
#[utoipa::path(
    post,
    path = "/adapter",
    tag = "Plugins",
    request_body = ExchangeRequest,
    responses((status = 200, description = "What it did", body = Exchanged), Refused, Errors),
)]
pub(crate) async fn exchange(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Exchanged>, ApiError> {
    static FIELDS: LazyLock<Fields> = LazyLock::new(Fields::of::<ExchangeRequest>);
    let (parts, body) = request.into_parts();
    let asked: ExchangeRequest = read_one(&read_json(&app, &parts.headers, body).await?, &FIELDS)?;
    let folder = asked.folder.map(|folder| absolute("folder", folder)).transpose()?;
    exchanged(board(&app)?.adapter, folder).await
}

/// Lets new requests have something else, beside the threads that answer.
pub(super) async fn exchanged<T: Send + Sync + 'static>(
    exchange: Exchange<T>,
    with: T,
) -> Result<Json<Exchanged>, ApiError> {
    let work = move || exchange.get().map(|exchange| exchange(&with));
    let done = blocking(work).await?.ok_or_else(ApiError::loading)?;
    let swapped = done.map_err(|error| ApiError::conflict(&error.to_string()))?;
    Ok(Json(Exchanged::of(&swapped)))
}

impl Exchanged {
    fn of(swapped: &Swapped) -> Self {
        let reach = match swapped.reach {
            Reach::NextBoundary => "next-boundary",
            _ => "new-requests",
        };
        let Swapped { active, prepare_us, wait_us, .. } = swapped;
        Self { active: active.to_string(), reach, prepare_us: *prepare_us, wait_us: *wait_us }
    }
}
