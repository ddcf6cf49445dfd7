//! Errors as clients of the OpenAI interface expect them: one object, one status each.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jackfield_engine::EngineError;
use serde::Serialize;
use utoipa::ToSchema;

/// What every answer with a status of 400 and above holds.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ErrorResponse {
    pub(crate) error: ErrorObject,
}

/// Why a request was not answered.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ErrorObject {
    /// What was wrong, for people.
    pub(crate) message: String,
    /// The family of the error, such as `invalid_request_error`.
    #[schema(examples("invalid_request_error"))]
    pub(crate) r#type: String,
    /// The field of the request that it is about.
    #[schema(required)]
    pub(crate) param: Option<String>,
    /// The error, for programs.
    #[schema(required)]
    pub(crate) code: Option<String>,
}

/// A request that is not answered as it asked to be.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    /// Seconds after which to try again.
    retry_after: Option<u64>,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: String) -> Self {
        Self { status, kind, code: Some(code), param: None, message, retry_after: None }
    }

    fn about(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The same about a field of a field.
    pub(crate) fn within(self, place: &str) -> Self {
        match &self.param {
            Some(param) => {
                let message = format!("{place}.{}", self.message);
                Self { param: Some(format!("{place}.{param}")), message, ..self }
            }
            None => Self { message: format!("{place}: {}", self.message), ..self }.about(place),
        }
    }

    /// The same, if it is about a field that the client wrote as another.
    pub(crate) fn moved(self, from: &str, to: &str) -> Self {
        if self.param.as_deref() != Some(from) {
            return self;
        }
        let message = match self.message.strip_prefix(from) {
            Some(rest) => format!("{to}{rest}"),
            None => self.message.clone(),
        };
        Self { message, ..self }.about(to)
    }

    /// A value that a field cannot have.
    pub(crate) fn invalid(param: &str, expected: &str, found: &str) -> Self {
        let message = format!("{param}: expected {expected}, found {}", shortened(found));
        Self::new(StatusCode::BAD_REQUEST, INVALID, "invalid_value", message).about(param)
    }

    /// A body, or a field of it, that is not of the right type.
    pub(crate) fn wrong_type(param: Option<&str>, message: &str) -> Self {
        let text = param.map_or_else(String::new, |param| format!("{param}: "));
        let message = format!("{text}{}", shortened(message));
        let error = Self::new(StatusCode::BAD_REQUEST, INVALID, "invalid_type", message);
        Self { param: param.map(str::to_owned), ..error }
    }

    /// A field that has to be there.
    pub(crate) fn missing(param: &str) -> Self {
        let message = format!("{param}: expected a value, found none");
        let code = "missing_required_parameter";
        Self::new(StatusCode::BAD_REQUEST, INVALID, code, message).about(param)
    }

    /// A field that nobody knows.
    pub(crate) fn unknown_field(param: &str) -> Self {
        let param = shortened(param);
        let message = format!("{param}: no such parameter; see /docs");
        Self::new(StatusCode::BAD_REQUEST, INVALID, "unknown_parameter", message).about(param)
    }

    /// A field that means something that is not there; it is never ignored.
    pub(crate) fn unsupported(param: &str, why: &str) -> Self {
        let message = format!("{param}: not supported: {why}");
        Self::new(StatusCode::BAD_REQUEST, INVALID, "unsupported_parameter", message).about(param)
    }

    pub(crate) fn not_json(message: &str) -> Self {
        let message = format!("body: expected JSON: {message}");
        Self::new(StatusCode::BAD_REQUEST, INVALID, "invalid_json", message)
    }

    pub(crate) fn too_long(param: &str, message: String) -> Self {
        let code = "context_length_exceeded";
        Self::new(StatusCode::BAD_REQUEST, INVALID, code, message).about(param)
    }

    pub(crate) fn unauthorized() -> Self {
        let message = "authorization: expected `Bearer` with a key of this server".to_owned();
        let code = "invalid_api_key";
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", code, message)
    }

    /// Somebody's browser was told that this machine has another name.
    pub(crate) fn wrong_host() -> Self {
        let message = "host: expected this machine's own name, or one of `server.hosts`".to_owned();
        Self::new(StatusCode::FORBIDDEN, "permission_error", "invalid_host", message)
    }

    pub(crate) fn no_model(model: &str, known: &str) -> Self {
        let message = format!("model: expected {known}, found `{}`", shortened(model));
        Self::new(StatusCode::NOT_FOUND, "not_found_error", "model_not_found", message)
            .about("model")
    }

    pub(crate) fn no_path() -> Self {
        let message = "path: nothing is there; see /docs".to_owned();
        Self::new(StatusCode::NOT_FOUND, "not_found_error", "unknown_url", message)
    }

    pub(crate) fn wrong_method() -> Self {
        let message = "method: this path takes another one; see the header `allow`".to_owned();
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, "method_not_allowed", message)
    }

    pub(crate) fn slow_body(seconds: u64) -> Self {
        let message = format!("body: expected all of it within {seconds} s");
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout_error", "request_timeout", message)
    }

    pub(crate) fn large_body(bytes_max: usize) -> Self {
        let message = format!("body: expected at most {bytes_max} bytes, found more");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, "request_too_large", message)
    }

    pub(crate) fn broken_body() -> Self {
        let message = "body: it ended before its length".to_owned();
        Self::new(StatusCode::BAD_REQUEST, INVALID, "incomplete_body", message)
    }

    pub(crate) fn wrong_media_type() -> Self {
        let message = "content-type: expected application/json, found something else".to_owned();
        let code = "unsupported_media_type";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, code, message)
    }

    /// The queue is full.
    pub(crate) fn overloaded(retry_after: u64) -> Self {
        let message = format!("the queue is full: try again in {retry_after} s");
        let status = StatusCode::TOO_MANY_REQUESTS;
        let error = Self::new(status, "rate_limit_error", "queue_full", message);
        Self { retry_after: Some(retry_after), ..error }
    }

    pub(crate) fn loading() -> Self {
        let message = "the model is being loaded".to_owned();
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let error = Self::new(status, "unavailable_error", "model_loading", message);
        Self { retry_after: Some(1), ..error }
    }

    pub(crate) fn draining() -> Self {
        let message = "this server is being stopped and takes no new requests".to_owned();
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let error = Self::new(status, "unavailable_error", "shutting_down", message);
        Self { retry_after: Some(5), ..error }
    }

    /// What took longer than it may.
    pub(crate) fn took_too_long(seconds: u64) -> Self {
        let message = format!("the answer took longer than {seconds} s");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout_error", "generation_timeout", message)
    }

    /// The client reads its stream more slowly than tokens are made.
    pub(crate) fn slow_reader(tokens_max: usize) -> Self {
        let message = format!("the stream was ended: more than {tokens_max} tokens were unread");
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout_error", "slow_reader", message)
    }

    pub(crate) fn not_there(what: &str, why: &str) -> Self {
        let message = format!("{what}: not supported: {why}");
        Self::new(StatusCode::NOT_IMPLEMENTED, "not_supported_error", "unsupported", message)
    }

    /// A plugin or the host failed while it worked on the request.
    pub(crate) fn failed(message: &str) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, SERVER, "engine_error", shortened(message))
    }

    /// A memory could not recall: nothing was generated.
    pub(crate) fn forgot(message: &str) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, SERVER, "memory_error", shortened(message)).about("session_id")
    }

    /// No plugin or memory was left for the request while it ran.
    pub(crate) fn no_room(message: &str) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let error = Self::new(status, "unavailable_error", "no_cache_space", shortened(message));
        Self { retry_after: Some(1), ..error }
    }

    /// A plugin was not replaced, and everything is as it was.
    pub(crate) fn conflict(message: &str) -> Self {
        let message = format!("refused, everything is as it was: {}", shortened(message));
        Self::new(StatusCode::CONFLICT, "conflict_error", "swap_refused", message)
    }

    /// What only operators may ask.
    pub(crate) fn elsewhere(message: &str) -> Self {
        let status = StatusCode::FORBIDDEN;
        Self::new(status, "permission_error", "operators_only", message.to_owned())
    }

    /// A hook would not have it.
    pub(crate) fn refused() -> Self {
        let message = "the request was refused by a hook of this server".to_owned();
        Self::new(StatusCode::FORBIDDEN, "permission_error", "refused", message)
    }

    /// What the engine says of a request that it does not take; `prompt` is what the prompt is
    /// called there.
    pub(crate) fn of_engine(error: &EngineError, prompt: &str) -> Self {
        match error {
            EngineError::Request { what: "request", .. } => Self::refused(),
            EngineError::PromptTooLong { tokens, tokens_max } => {
                let message =
                    format!("{prompt}: expected 1 to {tokens_max} tokens, found {tokens}");
                Self::too_long(prompt, message)
            }
            EngineError::Request { what: "prompt", expected, found } => {
                Self::invalid(prompt, expected, found)
            }
            EngineError::Request { what: "strategy", expected, found } => {
                Self::invalid("decoding_strategy", expected, found)
            }
            EngineError::Request { what, expected, found } => Self::invalid(what, expected, found),
            EngineError::Plugin {
                source: plugin_api::Error::Config { key, expected, found },
                ..
            } => Self::invalid(key.trim_start_matches("request."), expected, found),
            other => Self::failed(&other.to_string()),
        }
    }

    /// The object that goes to the client.
    pub(crate) fn object(&self) -> ErrorResponse {
        ErrorResponse {
            error: ErrorObject {
                message: self.message.clone(),
                r#type: self.kind.to_owned(),
                param: self.param.clone(),
                code: self.code.map(str::to_owned),
            },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.object()).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // What is left of a body that was not read is not waited for.
        if matches!(self.status, StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// What a client sent, as far as it is worth repeating.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

const CHARACTERS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_four_fields_whatever_they_hold() {
        let error = serde_json::to_value(ApiError::loading().object()).unwrap();
        let keys: Vec<&String> = error["error"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["message", "type", "param", "code"]);
        assert!(error["error"]["param"].is_null() && error["error"]["code"].is_string());
    }

    #[test]
    fn repeats_little_of_what_was_sent() {
        let error = ApiError::invalid("stop", "a text", &"é".repeat(100_000));
        assert!(error.object().error.message.len() < 500);
    }
}
