//! Short paths that other programs ask: `/generate`, and what only `jackfield train` does.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::{Request, State};
use jackfield_engine::Prompt;
use plugin_api::Config;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::responses::Errors;
use crate::app::App;
use crate::body::read_json;
use crate::error::ApiError;
use crate::generate::{self, collect};
use crate::params::{Fields, read_one};

/// A text to be continued.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GenerateRequest {
    /// The text.
    prompt: String,
    /// Most tokens of the answer.
    #[schema(minimum = 1, maximum = 2048)]
    max_length: Option<u32>,
    /// Flattens (above 1) or sharpens (below 1) the distribution; 0 takes the likeliest token.
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    /// Keep so many of the likeliest tokens.
    #[schema(minimum = 0, maximum = 1_073_741_824)]
    top_k: Option<u32>,
    /// Keep the likeliest tokens that together reach this probability.
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f64>,
    /// Only 1: there is no plugin that searches with beams.
    #[schema(minimum = 1, maximum = 1)]
    num_beams: Option<u32>,
    /// Draw tokens; without, the likeliest is taken.
    do_sample: Option<bool>,
}

/// The text with what continues it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GenerateResponse {
    /// What continues the text.
    generated_text: String,
    /// The text.
    input_text: String,
    /// How long it took, in milliseconds.
    generation_time_ms: f64,
    /// What was asked for, defaults included.
    #[schema(value_type = BTreeMap<String, Value>)]
    parameters: BTreeMap<&'static str, Value>,
}

/// Continue a text: `/v1/completions` with fewer words.
#[utoipa::path(
    post,
    path = "/generate",
    tag = "Aliases",
    request_body = GenerateRequest,
    responses((status = 200, description = "The answer", body = GenerateResponse), Errors),
)]
pub(crate) async fn generate(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<GenerateResponse>, ApiError> {
    static FIELDS: LazyLock<Fields> = LazyLock::new(Fields::of::<GenerateRequest>);
    let (parts, body) = request.into_parts();
    let asked: GenerateRequest = read_one(&read_json(&app, &parts.headers, body).await?, &FIELDS)?;
    app.model()?;
    let (params, parameters) = asked.params()?;
    let prompt = Prompt::Text(asked.prompt.clone());
    let prompt = generate::check_length(&app, prompt, "prompt").await?;
    let mut request = jackfield_engine::Request::new("");
    (request.prompt, request.params) = (prompt, params);
    let answers = generate::start(&app, vec![request], "prompt").await?;
    let answer = collect(answers).await?.pop().ok_or_else(|| ApiError::failed("no answer"))?;
    Ok(Json(GenerateResponse {
        generated_text: answer.text,
        input_text: asked.prompt,
        generation_time_ms: answer.stats.total_us as f64 / 1e3,
        parameters,
    }))
}

impl GenerateRequest {
    /// Parameters for the engine, and the same for the client.
    fn params(&self) -> Result<(Config, BTreeMap<&'static str, Value>), ApiError> {
        let max_length = self.max_length.unwrap_or(50);
        if !(1..=2048).contains(&max_length) {
            let found = max_length.to_string();
            return Err(ApiError::invalid("max_length", "a number in 1..=2048", &found));
        }
        if self.num_beams.unwrap_or(1) != 1 {
            return Err(ApiError::unsupported("num_beams", "no plugin searches with beams"));
        }
        let is_greedy = self.do_sample == Some(false);
        let temperature = if is_greedy { 0.0 } else { self.temperature.unwrap_or(1.0) };
        for (name, value, max) in
            [("temperature", temperature, 2.0), ("top_p", self.top_p.unwrap_or(1.0), 1.0)]
        {
            if !(0.0..=max).contains(&value) {
                let expected = format!("a number in 0..={max}");
                return Err(ApiError::invalid(name, &expected, &value.to_string()));
            }
        }
        let mut params = Config::at("request")
            .with("max_tokens", i64::from(max_length))
            .with("temperature", temperature);
        let mut told: BTreeMap<&'static str, Value> =
            [("max_length", max_length.into()), ("temperature", temperature.into())].into();
        if let Some(k) = self.top_k {
            params.set("top_k", i64::from(k));
            told.insert("top_k", k.into());
        }
        if let Some(p) = self.top_p {
            params.set("top_p", p);
            told.insert("top_p", p.into());
        }
        Ok((params, told))
    }
}

/// Training: a server does not train.
#[utoipa::path(
    post,
    path = "/train",
    tag = "Aliases",
    responses((status = 501, description = "Not supported", body = crate::error::ErrorResponse)),
)]
pub(crate) async fn train() -> ApiError {
    ApiError::not_there("training", "a server generates only: `jackfield train` trains")
}

/// Checkpoints of training: a server writes none.
#[utoipa::path(
    get,
    path = "/checkpoint",
    tag = "Aliases",
    responses((status = 501, description = "Not supported", body = crate::error::ErrorResponse)),
)]
pub(crate) async fn checkpoint() -> ApiError {
    ApiError::not_there("checkpoints", "a server generates only: `jackfield train` writes them")
}

/// Plugins: on the listener for operators, with a key of theirs.
#[utoipa::path(
    get,
    path = "/plugins",
    tag = "Aliases",
    responses((status = 403, description = "Not here", body = crate::error::ErrorResponse)),
)]
pub(crate) async fn plugins() -> ApiError {
    ApiError::elsewhere("plugins: ask the listener for operators (`server.admin_address`)")
}
