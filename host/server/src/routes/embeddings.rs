//! `/v1/embeddings`: texts to vectors.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use jackfield_engine::encode::Reply;
use jackfield_engine::model::PlanDigest;
use jackfield_engine::{Embedder, EngineError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::responses::Errors;
use super::wire::tell_digests;
use crate::app::App;
use crate::body::read_json;
use crate::error::ApiError;
use crate::generate::blocking;
use crate::params::{Fields, Prompts, kind_of, read_one, token_ids};

/// Texts to turn into vectors.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingRequest {
    /// The model for embeddings.
    model: String,
    /// A text, texts, token ids, or lists of them: at most 2,048. Ids are taken as they are, so
    /// that they begin and end as the tokenizer of the model has texts begin and end.
    #[schema(value_type = Prompts)]
    input: Value,
    /// How numbers are written. The default is `float`.
    encoding_format: Option<EncodingFormat>,
    /// Numbers in a vector: the model's own, and no other.
    #[schema(minimum = 1)]
    dimensions: Option<u32>,
    /// Who asks; of no consequence.
    #[serde(rename = "user")]
    #[schema(rename = "user")]
    _user: Option<String>,
}

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EncodingFormat {
    /// Numbers.
    Float,
    /// The bytes of 32-bit floats, little-endian, in Base64.
    Base64,
}

/// Vectors, in the order of the texts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingResponse {
    /// `list`.
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: EmbeddingUsage,
}

/// The vector of one text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Embedding {
    /// `embedding`.
    object: &'static str,
    index: usize,
    embedding: Vector,
}

/// A vector of length one, in the format that was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Vector {
    /// Its numbers.
    Float(Vec<f32>),
    /// Their bytes in Base64.
    Base64(String),
}

/// What was counted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingUsage {
    /// Tokens of all texts, with those that the tokenizer puts around each.
    prompt_tokens: usize,
    /// The same.
    total_tokens: usize,
}

/// Turn texts into vectors.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "OpenAI",
    request_body = EmbeddingRequest,
    responses((status = 200, description = "A vector for each text", body = EmbeddingResponse), Errors),
)]
pub(crate) async fn embed(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    static FIELDS: LazyLock<Fields> = LazyLock::new(Fields::of::<EmbeddingRequest>);
    let (parts, body) = request.into_parts();
    let asked: EmbeddingRequest = read_one(&read_json(&app, &parts.headers, body).await?, &FIELDS)?;
    let embedder = app.embedder_named(&asked.model)?;
    let width = embedder.width();
    if let Some(found) = asked.dimensions.filter(|n| *n as usize != width) {
        let expected = format!("{width}: vectors of this model mean nothing when cut");
        return Err(ApiError::invalid("dimensions", &expected, &found.to_string()));
    }
    let inputs = inputs(asked.input)?;
    let held = Arc::clone(&app);
    // Texts may be as long as bodies: they are cut into tokens where nobody else waits.
    let sequences = blocking(move || {
        let embedder = held.embedder.get().ok_or_else(ApiError::loading)?;
        inputs.iter().map(|input| tokens(embedder, input)).collect::<Result<Vec<_>, _>>()
    });
    let sequences = sequences.await??;
    let prompt_tokens: usize = sequences.iter().map(Vec::len).sum();
    let began = Instant::now();
    let (vectors, digest) = vectors(&app, embedder, sequences).await?;
    app.metrics.embedding_tokens.add(prompt_tokens as u64);
    app.metrics.embedding_seconds.observe(began.elapsed());

    let (model, format) = (asked.model, asked.encoding_format);
    let written = blocking(move || {
        let vector = |numbers: &[f32]| match format {
            Some(EncodingFormat::Base64) => Vector::Base64(base64(&bytes_of(numbers))),
            Some(EncodingFormat::Float) | None => Vector::Float(numbers.to_vec()),
        };
        let data = vectors.chunks_exact(width).enumerate().map(|(index, numbers)| Embedding {
            object: "embedding",
            index,
            embedding: vector(numbers),
        });
        let usage = EmbeddingUsage { prompt_tokens, total_tokens: prompt_tokens };
        let response = EmbeddingResponse { object: "list", data: data.collect(), model, usage };
        serde_json::to_vec(&response).unwrap_or_default()
    });
    let mut response = Bytes::from(written.await?).into_response();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    tell_digests(&parts.headers, &[digest], &mut response);
    Ok(response)
}

/// What one vector is made of.
enum Input {
    Text { at: String, text: String },
    Tokens { at: String, ids: Vec<u32> },
}

/// Every text of the field.
fn inputs(value: Value) -> Result<Vec<Input>, ApiError> {
    let expected = "a text, a list of texts, a list of token ids, or a list of such lists";
    let at = |i: usize| format!("input[{i}]");
    let list = match value {
        Value::String(text) => return Ok(vec![Input::Text { at: "input".to_owned(), text }]),
        Value::Array(list) => list,
        other => return Err(ApiError::invalid("input", expected, kind_of(&other))),
    };
    if list.is_empty() {
        return Err(ApiError::invalid("input", "at least one text", "an empty list"));
    }
    if list.iter().all(Value::is_number) {
        let ids = token_ids(&list, "input")?;
        return Ok(vec![Input::Tokens { at: "input".to_owned(), ids }]);
    }
    if list.len() > INPUTS_MAX {
        let expected = format!("at most {INPUTS_MAX} texts");
        return Err(ApiError::invalid("input", &expected, &list.len().to_string()));
    }
    let one = |(i, value)| match value {
        Value::String(text) => Ok(Input::Text { at: at(i), text }),
        Value::Array(ids) => Ok(Input::Tokens { ids: token_ids(&ids, &at(i))?, at: at(i) }),
        other => Err(ApiError::invalid(&at(i), expected, kind_of(&other))),
    };
    list.into_iter().enumerate().map(one).collect()
}

/// The tokens of a text that the model can read.
fn tokens(embedder: &Embedder, input: &Input) -> Result<Vec<u32>, ApiError> {
    let (at, ids) = match input {
        Input::Text { at, text } if text.is_empty() => {
            return Err(ApiError::invalid(at, "a text", "an empty one"));
        }
        Input::Text { at, text } => (at, embedder.tokenizer().encode_framed(text)),
        Input::Tokens { at, ids } => (at, ids.clone()),
    };
    let (tokens_max, vocab_size) = (embedder.tokens_max(), embedder.vocab_size());
    if ids.is_empty() {
        return Err(ApiError::invalid(at, "token ids", "an empty list"));
    }
    if ids.len() > tokens_max {
        let found = ids.len();
        let message = format!("{at}: expected at most {tokens_max} tokens, found {found}");
        return Err(ApiError::too_long(at, message));
    }
    match ids.iter().find(|&&id| id as usize >= vocab_size) {
        Some(id) => {
            let expected = format!("token ids below {vocab_size}");
            Err(ApiError::invalid(at, &expected, &id.to_string()))
        }
        None => Ok(ids),
    }
}

/// Has sequences encoded: vectors one after the other, and what made them.
async fn vectors(
    app: &App,
    embedder: &Embedder,
    sequences: Vec<Vec<u32>>,
) -> Result<(Vec<f32>, PlanDigest), ApiError> {
    let (reply, answered) = oneshot::channel();
    let Ok(digest) = embedder.submit(sequences, Box::new(Waiting(reply))) else {
        app.metrics.requests_over_limit.add(1);
        return Err(ApiError::overloaded(1));
    };
    let time = app.config().request_time;
    match tokio::time::timeout(time, answered).await {
        Ok(Ok(Ok(vectors))) => Ok((vectors, digest)),
        Ok(Ok(Err(error))) => Err(ApiError::failed(&error.to_string())),
        Ok(Err(_)) => Err(ApiError::failed("the thread of the encoder is gone")),
        Err(_) => Err(ApiError::took_too_long(time.as_secs())),
    }
}

/// A request that waits; it is gone when its client is.
struct Waiting(oneshot::Sender<Result<Vec<f32>, EngineError>>);

impl Reply for Waiting {
    fn is_unwanted(&self) -> bool {
        self.0.is_closed()
    }

    fn answer(self: Box<Self>, vectors: Result<Vec<f32>, EngineError>) {
        // Who has left wants no answer.
        let _ = self.0.send(vectors);
    }
}

fn bytes_of(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Source: RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let letter = BASE64[(bits >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Texts in one request, as OpenAI has it.
const INPUTS_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_base64_as_the_rfc_does() {
        let cases = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (n, expected) in cases.into_iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..n]), expected);
        }
    }
}
