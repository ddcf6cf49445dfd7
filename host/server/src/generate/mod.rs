//! From a request that was read to tokens on their way: admission, submission, collecting, streaming.

mod collect;
mod stream;

use std::time::Duration;

use jackfield_engine::model::PlanDigest;
use jackfield_engine::{Admitted, Encoded, EngineError, Prompt, Request};
use plugin_api::kinds::decoding_strategy::FinishReason;

use crate::app::App;
use crate::engine_thread::{AnswerStream, Ending};
use crate::error::ApiError;

pub(crate) use collect::{Collected, collect};
pub(crate) use stream::{Stage, Wire, stream};

/// Answers on their way, one for each choice.
pub(crate) struct Answers {
    pub(crate) streams: Vec<AnswerStream>,
    /// What makes their first tokens.
    pub(crate) digest: PlanDigest,
    pub(crate) time: Duration,
    pub(crate) unread_max: usize,
}

/// Hands requests to the engine, all or none. `param` is what the prompt is called in the body.
pub(crate) async fn start(
    app: &App,
    requests: Vec<Request>,
    param: &str,
) -> Result<Answers, ApiError> {
    let config = app.config();
    let permits = app.port.admit(requests.len()).ok_or_else(|| {
        app.metrics.requests_over_limit.add(1);
        let seconds = app.metrics.mean_request_seconds().unwrap_or(1.0).ceil();
        ApiError::overloaded(seconds.clamp(1.0, 60.0) as u64)
    })?;
    let (mut streams, mut digest) = (Vec::with_capacity(requests.len()), None);
    let refused = |error: Option<EngineError>| match error {
        Some(error) => ApiError::of_engine(&error, param),
        None => ApiError::draining(),
    };
    for (request, permit) in requests.into_iter().zip(permits) {
        let leaving = Leaving(Some(app));
        let admitted = app.port.ask(request).await.map_err(refused);
        let encoded = match admitted {
            Ok(admitted) => encode(app, admitted).await,
            Err(error) => Err(error),
        };
        leaving.stays();
        let encoded = encoded?;
        let entered = app.port.enter(encoded, permit, config.unread_tokens_max).await;
        let (of, stream) = entered.map_err(refused)?;
        digest.get_or_insert(of);
        streams.push(stream);
    }
    let digest = digest.ok_or_else(|| ApiError::missing(param))?;
    let (time, unread_max) = (config.request_time, config.unread_tokens_max);
    Ok(Answers { streams, digest, time, unread_max })
}

/// Counts a client that goes away before its request enters the engine, which counts from then on.
struct Leaving<'a>(Option<&'a App>);

impl Leaving<'_> {
    fn stays(mut self) {
        self.0 = None;
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if let Some(app) = self.0 {
            app.metrics.cancelled.add(1);
        }
    }
}

/// Cuts a prompt into tokens, here if it is short, on a thread for such things if not: never on the
/// engine's, whose streams would wait.
async fn encode(app: &App, admitted: Admitted) -> Result<Encoded, ApiError> {
    let model = std::sync::Arc::clone(app.port.model().ok_or_else(ApiError::loading)?);
    if admitted.text_bytes() <= SHORT_BYTES {
        return Ok(admitted.encode(&model.tokenizer));
    }
    blocking(move || admitted.encode(&model.tokenizer)).await
}

/// Refuses more answers than one request may ask for.
pub(crate) fn check_choices(app: &App, prompts: usize, n: usize) -> Result<(), ApiError> {
    let (asked, max) = (prompts.saturating_mul(n), app.config().max_choices);
    if asked <= max {
        return Ok(());
    }
    let param = if n > 1 { "n" } else { "prompt" };
    Err(ApiError::invalid(
        param,
        &format!("at most {max} answers of one request"),
        &asked.to_string(),
    ))
}

/// Refuses texts that are too long, before hooks would have to read them. `param` is
/// what the prompt is called in the body.
pub(crate) async fn check_length(
    app: &App,
    prompt: Prompt,
    param: &str,
) -> Result<Prompt, ApiError> {
    let (text, is_templated) = match &prompt {
        Prompt::Text(text) | Prompt::Raw(text) => (text, false),
        Prompt::Templated(text) => (text, true),
        Prompt::Tokens(_) => return Ok(prompt),
    };
    if text.len() <= SHORT_BYTES {
        return Ok(prompt);
    }
    let model = std::sync::Arc::clone(app.model()?);
    let text = text.clone();
    let max = model.context_length;
    let count = move || model.tokenizer.encode(&text, is_templated).len();
    let tokens = blocking(count).await?;
    if tokens < max {
        return Ok(prompt);
    }
    let message = format!("{param}: expected less than {max} tokens, found {tokens}");
    Err(ApiError::too_long(param, message))
}

/// Does what takes its time on a thread for such things.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::failed(&error.to_string()))
}

/// The word for a reason, or the error that it is.
pub(crate) fn finish_reason(ending: &Ending, unread_max: usize) -> Result<&'static str, ApiError> {
    match ending {
        Ending::Done { error: Some(error), .. } => Err(match error {
            plugin_api::Error::NoSpace { .. } => ApiError::no_room(&error.to_string()),
            other => ApiError::failed(&other.to_string()),
        }),
        Ending::Done { reason, .. } => match reason {
            FinishReason::Stop => Ok("stop"),
            FinishReason::Length => Ok("length"),
            FinishReason::Refused => Ok("content_filter"),
            FinishReason::Aborted => Err(ApiError::failed("the request was aborted")),
        },
        Ending::Failed(message) => Err(ApiError::failed(message)),
        Ending::Unread => Err(ApiError::slow_reader(unread_max)),
        Ending::Stopped => Err(ApiError::draining()),
    }
}

/// Shorter texts are read faster than threads are changed.
const SHORT_BYTES: usize = 32 << 10;
