//! `/v1/embeddings`: answered once there is a plugin that encodes.

use crate::error::ApiError;

/// Turn texts into vectors: not supported yet, since no `encoder` plugin is there.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "OpenAI",
    responses((status = 501, description = "Not supported", body = crate::error::ErrorResponse)),
)]
pub(crate) async fn embed() -> ApiError {
    ApiError::not_there("embeddings", "there is no plugin of the kind `encoder`")
}
