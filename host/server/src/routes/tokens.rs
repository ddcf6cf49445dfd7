//! `/tokenize` and `/detokenize`, as vLLM has them.

use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::responses::Errors;
use crate::app::App;
use crate::body::read_json;
use crate::error::ApiError;
use crate::generate::blocking;
use crate::params::{Fields, read_one};

/// A text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeRequest {
    /// The model; the one that there is where none is named.
    model: Option<String>,
    /// The text.
    prompt: String,
    /// Put the token that marks the beginning first, where the model has one. The default is true.
    add_special_tokens: Option<bool>,
    /// Names of special tokens in the text are those tokens. The default is false.
    parse_special_tokens: Option<bool>,
}

/// Tokens of a text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenizeResponse {
    tokens: Vec<u32>,
    count: usize,
    /// Tokens of prompt and answer together.
    max_model_len: usize,
}

/// Tokens.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetokenizeRequest {
    /// The model; the one that there is where none is named.
    model: Option<String>,
    /// The tokens.
    tokens: Vec<u32>,
}

/// The text of tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DetokenizeResponse {
    /// Special tokens by their names; bytes that make no character are U+FFFD.
    prompt: String,
}

/// Cut a text into tokens.
#[utoipa::path(
    post,
    path = "/tokenize",
    tag = "Tokens",
    request_body = TokenizeRequest,
    responses((status = 200, description = "Its tokens", body = TokenizeResponse), Errors),
)]
pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<TokenizeResponse>, ApiError> {
    static FIELDS: LazyLock<Fields> = LazyLock::new(Fields::of::<TokenizeRequest>);
    let (parts, body) = request.into_parts();
    let asked: TokenizeRequest = read_one(&read_json(&app, &parts.headers, body).await?, &FIELDS)?;
    let model = Arc::clone(app.model_asked(asked.model.as_deref())?);
    let max_model_len = model.context_length;
    let tokens = blocking(move || {
        let tokenizer = &model.tokenizer;
        let mut tokens = tokenizer.encode(&asked.prompt, asked.parse_special_tokens == Some(true));
        let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
        if let Some(bos) = bos.filter(|_| asked.add_special_tokens != Some(false)) {
            tokens.insert(0, bos);
        }
        tokens
    });
    let tokens = tokens.await?;
    Ok(Json(TokenizeResponse { count: tokens.len(), tokens, max_model_len }))
}

/// Make a text of tokens.
#[utoipa::path(
    post,
    path = "/detokenize",
    tag = "Tokens",
    request_body = DetokenizeRequest,
    responses((status = 200, description = "Their text", body = DetokenizeResponse), Errors),
)]
pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<DetokenizeResponse>, ApiError> {
    static FIELDS: LazyLock<Fields> = LazyLock::new(Fields::of::<DetokenizeRequest>);
    let (parts, body) = request.into_parts();
    let asked: DetokenizeRequest =
        read_one(&read_json(&app, &parts.headers, body).await?, &FIELDS)?;
    let model = Arc::clone(app.model_asked(asked.model.as_deref())?);
    let vocab_size = model.tokenizer.vocab_size();
    if let Some(id) = asked.tokens.iter().find(|id| **id as usize >= vocab_size) {
        let expected = format!("token ids below {vocab_size}");
        return Err(ApiError::invalid("tokens", &expected, &id.to_string()));
    }
    let prompt = blocking(move || model.tokenizer.decode(&asked.tokens, true)).await?;
    Ok(Json(DetokenizeResponse { prompt }))
}
