//! Other weights of the model in more bits, for requests that come after.

use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::{Request, State};
use serde::Deserialize;
use utoipa::ToSchema;

use super::adapter::{Exchanged, exchanged};
use super::plugins::{Refused, board};
use crate::app::App;
use crate::body::read_json;
use crate::error::ApiError;
use crate::params::{Fields, read_one};
use crate::routes::responses::Errors;

/// Let requests that come from now on have other weights of the model in more bits.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MaskRequest {
    /// Names of weights; `*` is any text. An empty list for none.
    weights: Vec<String>,
}

/// Let requests that come from now on have other weights of the model in more bits.
#[utoipa::path(
    post,
    path = "/mask",
    tag = "Plugins",
    request_body = MaskRequest,
    responses((status = 200, description = "What it did", body = Exchanged), Refused, Errors),
)]
pub(crate) async fn exchange(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Exchanged>, ApiError> {
    static FIELDS: LazyLock<Fields> = LazyLock::new(Fields::of::<MaskRequest>);
    let (parts, body) = request.into_parts();
    let asked: MaskRequest = read_one(&read_json(&app, &parts.headers, body).await?, &FIELDS)?;
    exchanged(board(&app)?.mask, asked.weights).await
}
