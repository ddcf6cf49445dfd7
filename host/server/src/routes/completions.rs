//! `/v1/completions`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use jackfield_engine::Stats;
use jackfield_engine::model::LoadedModel;
use serde::Serialize;
use utoipa::ToSchema;

use super::chat::fingerprint;
use super::responses::Errors;
use super::wire::{CompletionLogprobs, StreamEvent, Usage, digests, tell_digests};
use crate::app::{App, now};
use crate::body::read_json;
use crate::engine_thread::Token;
use crate::error::ApiError;
use crate::generate::{self, Collected, Stage, Wire};
use crate::ids::Id;
use crate::params::{CompletionRequest, LogprobsWanted};

/// A whole answer, or one event of a stream.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Completion {
    id: String,
    /// `text_completion`.
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: String,
    choices: Vec<CompletionChoice>,
    /// What made the first tokens: the beginning of the digest of plan and plugins.
    system_fingerprint: String,
    /// Absent in events of a stream without `stream_options.include_usage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

/// One answer, or what is new of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CompletionChoice {
    index: usize,
    text: String,
    #[schema(required)]
    logprobs: Option<CompletionLogprobs>,
    /// `stop`, `length` or `content_filter`; null while the answer grows.
    #[schema(required)]
    finish_reason: Option<&'static str>,
}

/// Continue a text.
#[utoipa::path(
    post,
    path = "/v1/completions",
    tag = "OpenAI",
    request_body = CompletionRequest,
    responses(
        (status = 200, description = "The answer, or a stream of `Completion` that ends with `[DONE]`",
            content((Completion = "application/json"), (StreamEvent = "text/event-stream"))),
        Errors,
    ),
)]
pub(crate) async fn complete(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let body = read_json(&app, &parts.headers, body).await?;
    let request = CompletionRequest::read(&body)?;
    let sampling = &request.sampling;
    let model = Arc::clone(app.model_named(&sampling.model)?);
    let n = sampling.num_choices();
    generate::check_choices(&app, request.prompts.len(), n)?;
    let max_tokens = sampling.max_tokens.unwrap_or(MAX_TOKENS);
    // The engine answers with one token at least: who asks for none is not told of it.
    let is_prompt_only = max_tokens == 0;
    let max_tokens = u64::from(max_tokens.max(1));
    let mut params = sampling.params(max_tokens, request.logprobs, &app.readers)?;
    if request.echoes && request.logprobs.is_wanted {
        params.set("prompt_logprobs", true);
    }
    let (mut requests, mut echoed) = (Vec::new(), Vec::new());
    for prompt in &request.prompts {
        let prompt = generate::check_length(&app, prompt.clone(), "prompt").await?;
        for choice in 0..n {
            let mut one = sampling.request(&params, choice);
            one.prompt = prompt.clone();
            requests.push(one);
        }
        echoed.push(if request.echoes { text_of(&prompt, &model) } else { String::new() });
    }
    let answers = generate::start(&app, requests, "prompt").await;
    let answers = answers.map_err(|error| sampling.placed(error))?;
    let digest = answers.digest;
    let num_choices = answers.streams.len();
    let answer = Answer {
        id: format!("cmpl-{}", Id::new()),
        created: now(),
        model_name: sampling.model.clone(),
        fingerprint: fingerprint(&digest),
        logprobs: request.logprobs,
        is_prompt_only,
        includes_usage: sampling.includes_usage(),
        n,
        offsets: echoed.iter().flat_map(|text| vec![text.chars().count(); n]).collect(),
        echoed,
        model,
    };
    debug_assert_eq!(answer.offsets.len(), num_choices);
    let (mut response, made_by) = if sampling.is_stream() {
        (generate::stream(answers, answer), vec![digest])
    } else {
        let collected = generate::collect(answers).await?;
        let made_by = digests(&collected);
        (Json(answer.whole(collected)).into_response(), made_by)
    };
    tell_digests(&parts.headers, &made_by, &mut response);
    Ok(response)
}

/// The text of a prompt.
fn text_of(prompt: &jackfield_engine::Prompt, model: &LoadedModel) -> String {
    use jackfield_engine::Prompt;
    match prompt {
        Prompt::Text(text) | Prompt::Raw(text) | Prompt::Templated(text) => text.clone(),
        Prompt::Tokens(tokens) => model.tokenizer.decode(tokens, false),
    }
}

/// What is alike in everything that is sent of one request.
struct Answer {
    id: String,
    created: u64,
    model_name: String,
    fingerprint: String,
    logprobs: LogprobsWanted,
    /// Nothing but the prompt is asked for.
    is_prompt_only: bool,
    includes_usage: bool,
    n: usize,
    /// What is put before the answers, by prompt.
    echoed: Vec<String>,
    /// Characters of each choice that were sent.
    offsets: Vec<usize>,
    model: Arc<LoadedModel>,
}

impl Answer {
    fn whole(mut self, collected: Vec<Collected>) -> Completion {
        let stats: Vec<Stats> = collected.iter().map(|answer| answer.stats).collect();
        let choices = collected.into_iter().enumerate().map(|(index, answer)| {
            let text = if self.is_prompt_only { "" } else { &answer.text };
            CompletionChoice {
                index,
                logprobs: self.logprobs(index, &answer.tokens),
                text: format!("{}{text}", self.echoed[index / self.n]),
                finish_reason: Some(self.finish_reason(answer.finish_reason)),
            }
        });
        let choices = choices.collect();
        let usage = self.count(&stats);
        Completion { usage: Some(Some(usage)), ..self.event_with(choices) }
    }

    /// Of tokens of a choice, if they are wanted.
    fn logprobs(&mut self, choice: usize, tokens: &[Token]) -> Option<CompletionLogprobs> {
        let mut all = CompletionLogprobs::default();
        for token in tokens {
            if !token.prompt.is_empty() {
                let num_chars = self.offsets[choice];
                all.push_prompt(&token.prompt, num_chars, &self.model.tokenizer);
            }
            if self.is_prompt_only {
                break;
            }
            let offset = self.offsets[choice];
            self.offsets[choice] += token.text.chars().count();
            if self.logprobs.is_wanted {
                all.push(token, offset, &self.model.tokenizer);
            }
        }
        self.logprobs.is_wanted.then_some(all)
    }

    fn count(&self, stats: &[Stats]) -> Usage {
        let tokens = |one: &Stats| if self.is_prompt_only { 0 } else { one.tokens };
        let stats: Vec<Stats> =
            stats.iter().map(|one| Stats { tokens: tokens(one), ..*one }).collect();
        Usage::of(&stats, self.n)
    }

    fn finish_reason(&self, reason: &'static str) -> &'static str {
        if self.is_prompt_only { "length" } else { reason }
    }

    fn event_with(&self, choices: Vec<CompletionChoice>) -> Completion {
        Completion {
            id: self.id.clone(),
            object: "text_completion",
            created: self.created,
            model: self.model_name.clone(),
            choices,
            system_fingerprint: self.fingerprint.clone(),
            usage: self.includes_usage.then_some(None),
        }
    }
}

impl Wire for Answer {
    type Event = Completion;

    fn event(&mut self, index: usize, stage: Stage<'_>) -> Option<Completion> {
        let (mut logprobs, mut finish_reason) = (None, None);
        let text = match stage {
            Stage::Begin => self.echoed[index / self.n].clone(),
            Stage::Token(token) => {
                logprobs = self.logprobs(index, std::slice::from_ref(token));
                if self.is_prompt_only { String::new() } else { token.text.clone() }
            }
            Stage::End { text, reason, .. } => {
                finish_reason = Some(self.finish_reason(reason));
                if self.is_prompt_only { String::new() } else { text.to_owned() }
            }
        };
        if text.is_empty() && logprobs.is_none() && finish_reason.is_none() {
            return None;
        }
        Some(self.event_with(vec![CompletionChoice { index, text, logprobs, finish_reason }]))
    }

    fn usage(&mut self, stats: &[Stats]) -> Option<Completion> {
        let usage = self.count(stats);
        let event = || Completion { usage: Some(Some(usage)), ..self.event_with(Vec::new()) };
        self.includes_usage.then(event)
    }
}

/// Most tokens where a request sets no limit, as the OpenAI interface has it.
const MAX_TOKENS: u32 = 16;
