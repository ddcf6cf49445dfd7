//! Bodies of requests: of the right type, whole, in time, and not larger than they may be.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;

use crate::app::App;
use crate::error::ApiError;

/// Reads a body of JSON.
pub(crate) async fn read_json(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<Bytes, ApiError> {
    // Browsers send other types to strangers without asking them first, but not this one.
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media_type.and_then(|text| text.split(';').next()).unwrap_or("").trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::wrong_media_type());
    }
    let config = app.config();
    let bytes_max = config.body_bytes_max;
    let told = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if told.and_then(|text| text.parse::<u64>().ok()).is_some_and(|n| n > bytes_max as u64) {
        return Err(ApiError::large_body(bytes_max));
    }
    let whole = tokio::time::timeout(config.body_time, gather(body, bytes_max)).await;
    whole.map_err(|_| ApiError::slow_body(config.body_time.as_secs()))?
}

async fn gather(body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let mut stream = body.into_data_stream();
    let mut whole = Vec::new();
    while let Some(part) = stream.next().await {
        let part = part.map_err(|_| ApiError::broken_body())?;
        if whole.len() + part.len() > bytes_max {
            return Err(ApiError::large_body(bytes_max));
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole.into())
}
