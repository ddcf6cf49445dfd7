//! The body of `/v1/completions`.

use std::sync::LazyLock;

use axum::body::Bytes;
use jackfield_engine::Prompt;
use serde::Deserialize;
use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, Object, ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::fields::{Fields, kind_of, read, side_by_side};
use super::sampling::{LogprobsWanted, Sampling};
use crate::error::ApiError;

/// What a completion has besides the fields of every request.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct CompletionFields {
    /// What is continued: a text, texts, token ids, or lists of them.
    #[schema(value_type = Prompts)]
    prompt: Value,
    /// Send the prompt before the answer.
    echo: Option<bool>,
    /// Send the logarithms of the tokens' probabilities, with so many alternatives.
    #[schema(minimum = 0, maximum = 20)]
    logprobs: Option<u32>,
}

/// What is continued, as a schema: values are read by hand, for the sake of their errors.
pub(crate) struct Prompts;

impl PartialSchema for Prompts {
    fn schema() -> RefOr<Schema> {
        let list = |items: RefOr<Schema>| {
            RefOr::T(Schema::Array(ArrayBuilder::new().items(items).min_items(Some(1)).build()))
        };
        let token = || RefOr::T(Schema::Object(u32_object()));
        let any = AnyOfBuilder::new()
            .item(String::schema())
            .item(list(String::schema()))
            .item(list(token()))
            .item(list(list(token())))
            .description(Some("A text, texts, token ids, or lists of token ids"));
        RefOr::T(Schema::AnyOf(any.build()))
    }
}

impl ToSchema for Prompts {}

/// A token id.
fn u32_object() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .maximum(Some(f64::from(u32::MAX)))
        .build()
}

/// A completion: the fields of every request beside those of a completion.
#[derive(Debug)]
pub(crate) struct CompletionRequest {
    pub(crate) sampling: Sampling,
    pub(crate) prompts: Vec<Prompt>,
    pub(crate) echoes: bool,
    pub(crate) logprobs: LogprobsWanted,
}

impl PartialSchema for CompletionRequest {
    fn schema() -> RefOr<Schema> {
        side_by_side::<Sampling, CompletionFields>()
    }
}

impl ToSchema for CompletionRequest {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Sampling::schemas(schemas);
        CompletionFields::schemas(schemas);
    }
}

impl CompletionRequest {
    /// Reads a body.
    pub(crate) fn read(body: &Bytes) -> Result<Self, ApiError> {
        static FIELDS: LazyLock<(Fields, Fields)> =
            LazyLock::new(|| (Fields::of::<Sampling>(), Fields::of::<CompletionFields>()));
        let (sampling, fields): (Sampling, CompletionFields) = read(body, &FIELDS)?;
        let prompts = prompts(&fields.prompt)?;
        let echoes = fields.echo == Some(true);
        if sampling.max_tokens == Some(0) && !echoes {
            return Err(ApiError::invalid("max_tokens", "at least 1, or echo to be true", "0"));
        }
        let top = fields.logprobs.unwrap_or(0);
        if top > 20 {
            return Err(ApiError::invalid("logprobs", "a number in 0..=20", &top.to_string()));
        }
        let logprobs = LogprobsWanted { is_wanted: fields.logprobs.is_some(), top: top as usize };
        Ok(Self { sampling, prompts, echoes, logprobs })
    }
}

/// Every prompt of a value.
fn prompts(value: &Value) -> Result<Vec<Prompt>, ApiError> {
    let expected = "a text, a list of texts, a list of token ids, or a list of such lists";
    let list = match value {
        Value::String(text) => return Ok(vec![Prompt::Text(text.clone())]),
        Value::Array(list) if list.is_empty() => {
            return Err(ApiError::invalid("prompt", "at least one prompt", "an empty list"));
        }
        Value::Array(list) => list,
        other => return Err(ApiError::invalid("prompt", expected, kind_of(other))),
    };
    if list.iter().all(Value::is_number) {
        return Ok(vec![Prompt::Tokens(token_ids(list, "prompt")?)]);
    }
    let one = |(i, value): (usize, &Value)| match value {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(ids) => Ok(Prompt::Tokens(token_ids(ids, &format!("prompt[{i}]"))?)),
        other => Err(ApiError::invalid(&format!("prompt[{i}]"), expected, kind_of(other))),
    };
    list.iter().enumerate().map(one).collect()
}

/// Token ids of a list.
pub(crate) fn token_ids(list: &[Value], at: &str) -> Result<Vec<u32>, ApiError> {
    let id = |id: &Value| {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        number.ok_or_else(|| ApiError::invalid(at, "token ids", &id.to_string()))
    };
    list.iter().map(id).collect()
}
