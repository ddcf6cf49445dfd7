//! `/v1/chat/completions`.

use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use jackfield_engine::model::{LoadedModel, Message, PlanDigest};
use jackfield_engine::{Prompt, Stats};
use plugin_api::kinds::output_parser::Piece;
use serde::Serialize;
use utoipa::ToSchema;

use super::calls::{self, CallDelta, ToolCall};
use super::memory::{MemoryReport, Session};
use super::responses::Errors;
use super::wire::{StreamEvent, TokenLogprob, Usage, digests, tell_digests, token_logprob};
use crate::app::{App, now};
use crate::body::read_json;
use crate::engine_thread::Token;
use crate::error::ApiError;
use crate::generate::{self, Collected, Stage, Wire};
use crate::ids::Id;
use crate::params::{ChatRequest, Choice, Tools};

/// A whole answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatCompletion {
    id: String,
    /// `chat.completion`.
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: String,
    choices: Vec<ChatChoice>,
    usage: Usage,
    /// What made the first tokens: the beginning of the digest of plan and plugins.
    system_fingerprint: String,
    /// Of requests with a `session_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryReport>,
}

/// One answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChoice {
    index: usize,
    message: AnswerMessage,
    #[schema(required)]
    logprobs: Option<ChatLogprobs>,
    /// `stop`, `length`, `tool_calls` or `content_filter`.
    finish_reason: &'static str,
}

/// What was answered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnswerMessage {
    /// `assistant`.
    role: &'static str,
    /// Null where the answer is calls of tools and nothing else.
    #[schema(required)]
    pub(super) content: Option<String>,
    /// What led to it, of models that think aloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_content: Option<String>,
    /// Tools to be called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<ToolCall>,
    /// Null.
    #[schema(required)]
    refusal: Option<String>,
}

impl AnswerMessage {
    /// A message that says nothing.
    pub(crate) fn empty() -> Self {
        let (content, reasoning_content, refusal) = (None, None, None);
        Self { role: "assistant", content, reasoning_content, tool_calls: Vec::new(), refusal }
    }
}

/// Logarithms of the tokens' probabilities.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatLogprobs {
    content: Vec<TokenLogprob>,
    /// Null.
    #[schema(required)]
    refusal: Option<Vec<TokenLogprob>>,
}

/// One event of a stream.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChunk {
    id: String,
    /// `chat.completion.chunk`.
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<ChunkChoice>,
    system_fingerprint: String,
    /// Null but in the last event, and only with `stream_options.include_usage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    /// Of requests with a `session_id`, in an event of its own after the choices have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryReport>,
}

/// What is new of one answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChunkChoice {
    index: usize,
    delta: Delta,
    #[schema(required)]
    logprobs: Option<ChatLogprobs>,
    #[schema(required)]
    finish_reason: Option<&'static str>,
}

/// Text to append.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<CallDelta>,
}

/// Answer a conversation.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    tag = "OpenAI",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The answer, or a stream of `ChatChunk` that ends with `[DONE]`",
            content((ChatCompletion = "application/json"), (StreamEvent = "text/event-stream"))),
        Errors,
    ),
)]
pub(crate) async fn complete(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let body = read_json(&app, &parts.headers, body).await?;
    let request = ChatRequest::read(&body)?;
    let sampling = request.sampling;
    let model = Arc::clone(app.model_named(&sampling.model)?);
    let n = sampling.num_choices();
    generate::check_choices(&app, 1, n)?;
    let max_tokens = request.max_tokens.map_or(model.context_length as u64, u64::from);
    let mut params = sampling.params(max_tokens, request.logprobs, &app.readers)?;
    let tools = request.tools;
    calls::set(tools.as_ref(), &sampling, &app.readers, &mut params)?;
    let (session, messages) = match &request.session_id {
        Some(id) => {
            let (session, messages) = Session::open(&app, &model, id, request.messages).await?;
            (Some(session), messages)
        }
        None => (None, request.messages),
    };
    let (of, offered) = (Arc::clone(&model), tools.clone());
    let prompt = generate::blocking(move || templated(&of, &messages, offered.as_ref())).await??;
    params.set("reasoning_begun", calls::begins_to_reason(&prompt));
    let prompt = generate::check_length(&app, prompt, "messages").await?;
    let requests = (0..n).map(|choice| {
        let mut request = sampling.request(&params, choice);
        request.prompt = prompt.clone();
        request
    });
    let answers = generate::start(&app, requests.collect(), "messages").await;
    let is_guided = tools.as_ref().is_some_and(Tools::is_guided);
    let answers = answers.map_err(|error| match is_guided {
        true => error.moved("guided_json", "tools"),
        false => sampling.placed(error),
    })?;
    let digest = answers.digest;
    let mut answer = Answer {
        id: format!("chatcmpl-{}", Id::new()),
        created: now(),
        model_name: sampling.model.clone(),
        fingerprint: fingerprint(&digest),
        has_logprobs: request.logprobs.is_wanted,
        includes_usage: sampling.includes_usage(),
        n,
        calls: vec![Vec::new(); n],
        session,
        is_named: tools.is_some_and(|tools| matches!(tools.choice, Choice::Named(_))),
        model,
    };
    let (mut response, made_by) = if sampling.is_stream() {
        (generate::stream(answers, answer), vec![digest])
    } else {
        let collected = generate::collect(answers).await?;
        let made_by = digests(&collected);
        let session = answer.session.take();
        let mut whole = answer.whole(collected);
        if let (Some(mut session), Some(first)) = (session, whole.choices.first()) {
            session.hear(first.message.content.as_deref().unwrap_or_default());
            whole.memory = Some(session.remember().await);
        }
        (Json(whole).into_response(), made_by)
    };
    tell_digests(&parts.headers, &made_by, &mut response);
    Ok(response)
}

/// The text that the model's chat template makes of a conversation.
fn templated(
    model: &LoadedModel,
    messages: &[Message],
    tools: Option<&Tools>,
) -> Result<Prompt, ApiError> {
    let Some(template) = &model.chat_template else {
        let why = "this model has no chat template; ask /v1/completions";
        return Err(ApiError::unsupported("messages", why));
    };
    let token = |id: Option<u32>| id.and_then(|id| model.tokenizer.id_to_token(id)).unwrap_or("");
    let (bos, eos) = (token(model.tokenizer.bos()), token(model.tokenizer.eos()));
    let text = template.render(messages, true, tools.map(|tools| &tools.list), bos, eos);
    let text = text.map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        ApiError::invalid(
            "messages",
            "a conversation that the model's template takes",
            &source.unwrap_or_default(),
        )
    })?;
    Ok(Prompt::Templated(text))
}

/// The beginning of a digest.
pub(crate) fn fingerprint(digest: &PlanDigest) -> String {
    format!("fp_{:.12}", digest.to_string())
}

/// What is alike in everything that is sent of one request.
struct Answer {
    id: String,
    created: u64,
    model_name: String,
    fingerprint: String,
    has_logprobs: bool,
    includes_usage: bool,
    n: usize,
    /// The calls that each choice has been told to make, by their ids.
    calls: Vec<Vec<String>>,
    /// Whose memory it is.
    session: Option<Session>,
    /// The client chose the tool: that it is called is no reason to end.
    is_named: bool,
    model: Arc<LoadedModel>,
}

impl Answer {
    fn whole(&self, collected: Vec<Collected>) -> ChatCompletion {
        let stats: Vec<Stats> = collected.iter().map(|answer| answer.stats).collect();
        let choices = collected.into_iter().enumerate().map(|(index, answer)| {
            let (logprobs, reason) = (&answer.tokens, answer.finish_reason);
            let logprobs = self.has_logprobs.then(|| self.logprobs(logprobs));
            let message = calls::message(answer.pieces);
            let finish_reason = self.reason(reason, !message.tool_calls.is_empty());
            ChatChoice { index, message, logprobs, finish_reason }
        });
        ChatCompletion {
            choices: choices.collect(),
            usage: Usage::of(&stats, self.n),
            id: self.id.clone(),
            object: "chat.completion",
            created: self.created,
            model: self.model_name.clone(),
            system_fingerprint: self.fingerprint.clone(),
            memory: None,
        }
    }

    /// Why an answer ended, in the words of the interface.
    fn reason(&self, reason: &'static str, has_calls: bool) -> &'static str {
        if reason == "stop" && has_calls && !self.is_named { "tool_calls" } else { reason }
    }

    /// What the first choice says is what is remembered.
    fn hear(&mut self, choice: usize, pieces: &[Piece]) {
        for piece in pieces {
            if let (0, Some(session), Piece::Content(text)) = (choice, &mut self.session, piece) {
                session.hear(text);
            }
        }
    }

    fn logprobs(&self, tokens: &[Token]) -> ChatLogprobs {
        let content = tokens.iter().map(|token| token_logprob(token, &self.model.tokenizer));
        ChatLogprobs { content: content.collect(), refusal: None }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<Usage>) -> ChatChunk {
        ChatChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk",
            created: self.created,
            model: self.model_name.clone(),
            choices,
            system_fingerprint: self.fingerprint.clone(),
            usage: self.includes_usage.then_some(usage),
            memory: None,
        }
    }
}

impl Wire for Answer {
    type Event = ChatChunk;

    fn event(&mut self, index: usize, stage: Stage<'_>) -> Option<ChatChunk> {
        let (mut delta, mut logprobs, mut finish_reason) = (Delta::default(), None, None);
        match stage {
            Stage::Begin => {
                let (role, content) = (Some("assistant"), Some(String::new()));
                delta = Delta { role, content, ..Delta::default() };
            }
            Stage::Token(token) if token.pieces.is_empty() && !self.has_logprobs => return None,
            Stage::Token(token) => {
                delta.take(&token.pieces, &mut self.calls[index]);
                self.hear(index, &token.pieces);
                logprobs = self.has_logprobs.then(|| self.logprobs(std::slice::from_ref(token)));
            }
            Stage::End { pieces, reason, .. } => {
                delta.take(pieces, &mut self.calls[index]);
                self.hear(index, pieces);
                finish_reason = Some(self.reason(reason, !self.calls[index].is_empty()));
            }
        }
        Some(self.chunk(vec![ChunkChoice { index, delta, logprobs, finish_reason }], None))
    }

    fn last(&mut self) -> Option<Pin<Box<dyn Future<Output = ChatChunk> + Send>>> {
        let remembering = self.session.take()?.remember();
        let chunk = self.chunk(Vec::new(), None);
        Some(Box::pin(async move { ChatChunk { memory: Some(remembering.await), ..chunk } }))
    }

    fn usage(&mut self, stats: &[Stats]) -> Option<ChatChunk> {
        self.includes_usage.then(|| self.chunk(Vec::new(), Some(Usage::of(stats, self.n))))
    }
}
