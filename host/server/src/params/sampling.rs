//! Fields that chats and completions have alike: which model, how tokens are chosen, how the answer
//! is sent.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use jackfield_engine::Request;
use plugin_api::{Config, Value as Param};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::constraint::{Constraint, ResponseFormat, StructuredOutputs};
use super::fields::kind_of;
use crate::error::ApiError;

/// Fields that chats and completions have alike.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub(crate) struct Sampling {
    /// The model, as `/v1/models` names it.
    pub(crate) model: String,
    /// Send the answer while it grows, as server-sent events.
    pub(crate) stream: Option<bool>,
    /// How a stream is sent; only with `stream`.
    pub(crate) stream_options: Option<StreamOptions>,
    /// Answers to each prompt.
    #[schema(minimum = 1, maximum = 128)]
    pub(crate) n: Option<u32>,
    /// Most tokens of an answer.
    #[schema(minimum = 0, maximum = 1_073_741_824)]
    pub(crate) max_tokens: Option<u32>,
    /// Flattens (above 1) or sharpens (below 1) the distribution; 0 takes the likeliest token.
    #[schema(minimum = 0, maximum = 2)]
    pub(crate) temperature: Option<f64>,
    /// Keep the likeliest tokens that together reach this probability.
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) top_p: Option<f64>,
    /// Keep so many of the likeliest tokens; 0 and -1 keep all.
    #[schema(minimum = -1, maximum = 1_073_741_824)]
    pub(crate) top_k: Option<i64>,
    /// Keep tokens at least so many times as likely as the likeliest.
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) min_p: Option<f64>,
    /// Divides positive and multiplies negative logits of tokens that occurred; 1 changes nothing.
    #[schema(minimum = 0.01, maximum = 100)]
    pub(crate) repetition_penalty: Option<f64>,
    /// Subtracted from the logits of tokens that the answer holds.
    #[schema(minimum = -2, maximum = 2)]
    pub(crate) presence_penalty: Option<f64>,
    /// Subtracted from the logits of tokens, as often as the answer holds them.
    #[schema(minimum = -2, maximum = 2)]
    pub(crate) frequency_penalty: Option<f64>,
    /// Added to the logits of tokens: token id, as text, to -100 … 100.
    #[schema(value_type = Option<std::collections::BTreeMap<String, f64>>)]
    pub(crate) logit_bias: Option<Value>,
    /// Makes sampling repeatable.
    pub(crate) seed: Option<i64>,
    /// Text, or up to 16 texts, that end the answer; they are no part of it.
    #[schema(value_type = Option<Stop>)]
    pub(crate) stop: Option<Value>,
    /// Go on past the token that ends an answer.
    pub(crate) ignore_eos: Option<bool>,
    /// Higher goes first, where the scheduler looks at it.
    pub(crate) priority: Option<i32>,
    /// The decoding strategy, such as `greedy`.
    pub(crate) decoding_strategy: Option<String>,
    /// What its strategy reads beside that, such as `num_beams`: numbers, texts, `true` and `false` by their names.
    #[schema(value_type = Option<Object>)]
    pub(crate) decoding_options: Option<Map<String, Value>>,
    /// What the answer looks like.
    #[schema(value_type = Option<ResponseFormat>)]
    pub(crate) response_format: Option<Value>,
    /// What the answer is, in one of several ways.
    #[schema(value_type = Option<StructuredOutputs>)]
    pub(crate) structured_outputs: Option<Value>,
    /// A JSON Schema, as an object or as text: the answer is JSON that it allows.
    #[schema(value_type = Option<Object>)]
    pub(crate) guided_json: Option<Value>,
    /// A regular expression that matches the whole answer.
    #[schema(value_type = Option<String>)]
    pub(crate) guided_regex: Option<Value>,
    /// The answer is one of these.
    #[schema(value_type = Option<Vec<String>>)]
    pub(crate) guided_choice: Option<Value>,
    /// A grammar in the syntax of Lark, which the answer is a text of.
    #[schema(value_type = Option<String>)]
    pub(crate) guided_grammar: Option<Value>,
    /// Who asks; without effect.
    #[allow(dead_code, reason = "accepted, and says nothing")]
    user: Option<String>,
    /// Who asks; without effect.
    #[allow(dead_code, reason = "accepted, and says nothing")]
    safety_identifier: Option<String>,
    /// What requests with the same beginning share; without effect, since prefixes are found.
    #[allow(dead_code, reason = "accepted, and says nothing")]
    prompt_cache_key: Option<String>,
    /// Notes of the client; without effect.
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    #[allow(dead_code, reason = "accepted, and says nothing")]
    metadata: Option<Map<String, Value>>,
    /// Only `false`: nothing is kept.
    pub(crate) store: Option<bool>,
    /// Only `auto` or `default`: there is one tier.
    pub(crate) service_tier: Option<String>,
}

/// How a stream is sent.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    /// Send the number of tokens in an event of its own at the end.
    pub(crate) include_usage: Option<bool>,
}

/// Text or texts that end an answer, as a schema: values are read by hand, for the sake of their
/// errors.
pub(crate) struct Stop;

impl PartialSchema for Stop {
    fn schema() -> RefOr<Schema> {
        let text = || {
            let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
            RefOr::T(Schema::Object(text.max_length(Some(STOP_BYTES_MAX / 4)).build()))
        };
        let list = ArrayBuilder::new().items(text()).max_items(Some(STOP_TEXTS_MAX)).build();
        let any = AnyOfBuilder::new().item(text()).item(RefOr::T(Schema::Array(list)));
        RefOr::T(Schema::AnyOf(any.description(Some("A text, or up to 16 texts")).build()))
    }
}

impl ToSchema for Stop {}

/// Which logarithms of probabilities go with the tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LogprobsWanted {
    pub(crate) is_wanted: bool,
    /// Alternatives for each token.
    pub(crate) top: usize,
}

/// Parameters with the plugin that reads them, and the value that changes nothing.
#[rustfmt::skip]
const READERS: [(&str, &str, f64); 7] = [
    ("temperature",        "temperature",        1.0),
    ("top_p",              "top-p",              1.0),
    ("top_k",              "top-k",              0.0),
    ("min_p",              "min-p",              0.0),
    ("repetition_penalty", "repetition-penalty", 1.0),
    ("presence_penalty",   "occurrence-penalty", 0.0),
    ("frequency_penalty",  "occurrence-penalty", 0.0),
];

/// Parameters that name a grammar.
const GUIDED: [&str; 6] = [
    "response_format",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
];

/// Parameters that none of these plugins reads.
pub(crate) fn unread(readers: &BTreeSet<String>) -> impl Iterator<Item = &'static str> {
    let others = [("logit_bias", "logit-bias", 0.0), ("stop", "stop-words", 0.0)];
    let others = others.into_iter().chain(GUIDED.map(|param| (param, "guided", 0.0)));
    let all = READERS.into_iter().chain(others);
    all.filter(|(_, reader, _)| !readers.contains(*reader)).map(|(param, _, _)| param)
}

impl Sampling {
    pub(crate) fn is_stream(&self) -> bool {
        self.stream == Some(true)
    }

    pub(crate) fn includes_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|o| o.include_usage == Some(true))
    }

    pub(crate) fn num_choices(&self) -> usize {
        self.n.unwrap_or(1) as usize
    }

    /// The parameters of a request to the engine. `readers` are the plugins that run: what nobody
    /// reads is refused.
    pub(crate) fn params(
        &self,
        max_tokens: u64,
        logprobs: LogprobsWanted,
        readers: &BTreeSet<String>,
    ) -> Result<Config, ApiError> {
        self.check()?;
        let mut params = Config::at("request");
        params.set("max_tokens", max_tokens as i64);
        for (name, value, range) in self.numbers() {
            let Some(value) = value else { continue };
            if !range.contains(&value) {
                let expected = format!("a number in {}..={}", range.start(), range.end());
                return Err(ApiError::invalid(name, &expected, &value.to_string()));
            }
            let neutral = READERS.iter().find(|(param, _, _)| *param == name);
            let Some((_, reader, neutral)) = neutral else { continue };
            if readers.contains(*reader) {
                set_number(&mut params, name, value);
            } else if value != *neutral {
                return Err(ApiError::unsupported(name, &format!("no plugin `{reader}` runs")));
            }
        }
        if let Some(bias) = &self.logit_bias {
            read_by("logit_bias", "logit-bias", readers)?;
            params.set("logit_bias", logit_bias(bias)?);
        }
        let stop = self.stop.as_ref().map_or(Ok(Vec::new()), stop_texts)?;
        if !stop.is_empty() {
            read_by("stop", "stop-words", readers)?;
            params.set("stop", Param::List(stop));
        }
        if let Some(Constraint { place, key, value }) = Constraint::of(self)? {
            read_by(place, "guided", readers)?;
            params.set(key, value);
        }
        if let Some(options) = &self.decoding_options {
            params.set("decoding_options", Param::Table(decoding_options(options)?));
        }
        params.set("ignore_eos", self.ignore_eos == Some(true));
        params.set("logprobs", logprobs.is_wanted);
        if logprobs.top > 0 {
            params.set("top_logprobs", logprobs.top as i64);
        }
        Ok(params)
    }

    /// Whether the answer is to keep to a grammar.
    pub(crate) fn has_grammar(&self) -> Result<bool, ApiError> {
        Ok(Constraint::of(self)?.is_some())
    }

    /// What the engine says of a parameter, in the words of the field that it came from.
    pub(crate) fn placed(&self, error: ApiError) -> ApiError {
        match Constraint::of(self) {
            Ok(Some(constraint)) => constraint.placed(error),
            _ => error,
        }
    }

    /// The request for one of the answers.
    pub(crate) fn request(&self, params: &Config, choice: usize) -> Request {
        let mut request = Request::new("");
        request.params = params.fresh();
        request.strategy.clone_from(&self.decoding_strategy);
        request.priority = self.priority.unwrap_or(0);
        if let Some(seed) = self.seed {
            // The first answer has the seed itself, so that n = 1 and n = 2 begin alike.
            let seed = (seed as u64).wrapping_add((choice as u64).wrapping_mul(SEED_STEP));
            request.params.set("seed", (seed & i64::MAX as u64) as i64);
        }
        if choice > 0 {
            // Of a search, whose answers are the same whatever the seed, the next best.
            request.params.set("choice", choice as i64);
        }
        request
    }

    fn check(&self) -> Result<(), ApiError> {
        if self.stream_options.is_some() && !self.is_stream() {
            let found = "a request that is not streamed";
            return Err(ApiError::invalid("stream_options", "stream to be true", found));
        }
        if !(1..=128).contains(&self.num_choices()) {
            let found = self.num_choices().to_string();
            return Err(ApiError::invalid("n", "a number in 1..=128", &found));
        }
        if self.store == Some(true) {
            return Err(ApiError::unsupported("store", "nothing is kept"));
        }
        match self.service_tier.as_deref() {
            None | Some("auto" | "default") => Ok(()),
            Some(other) => Err(ApiError::invalid("service_tier", "auto or default", other)),
        }
    }

    fn numbers(&self) -> [(&'static str, Option<f64>, RangeInclusive<f64>); 7] {
        [
            ("temperature", self.temperature, 0.0..=2.0),
            ("top_p", self.top_p, 0.0..=1.0),
            ("top_k", self.top_k.map(|k| k as f64), -1.0..=f64::from(1 << 30)),
            ("min_p", self.min_p, 0.0..=1.0),
            ("repetition_penalty", self.repetition_penalty, 0.01..=100.0),
            ("presence_penalty", self.presence_penalty, -2.0..=2.0),
            ("frequency_penalty", self.frequency_penalty, -2.0..=2.0),
        ]
    }
}

fn set_number(params: &mut Config, name: &str, value: f64) {
    if name == "top_k" {
        params.set(name, value.max(0.0) as i64);
    } else {
        params.set(name, value);
    }
}

fn read_by(param: &str, reader: &str, readers: &BTreeSet<String>) -> Result<(), ApiError> {
    if readers.contains(reader) {
        return Ok(());
    }
    Err(ApiError::unsupported(param, &format!("no plugin `{reader}` runs")))
}

/// Text or texts, none empty.
fn stop_texts(stop: &Value) -> Result<Vec<Param>, ApiError> {
    let expected = format!("a text or up to {STOP_TEXTS_MAX} texts");
    let list = match stop {
        Value::Array(list) if list.len() > STOP_TEXTS_MAX => {
            return Err(ApiError::invalid("stop", &expected, &format!("a list of {}", list.len())));
        }
        Value::Array(list) => list.as_slice(),
        other => std::slice::from_ref(other),
    };
    let text = |text: &Value| match text {
        Value::String(text) if text.len() > STOP_BYTES_MAX => {
            let expected = format!("texts of at most {STOP_BYTES_MAX} bytes");
            Err(ApiError::invalid("stop", &expected, &format!("one of {}", text.len())))
        }
        Value::String(text) if text.is_empty() => {
            Err(ApiError::invalid("stop", "texts that are not empty", "an empty one"))
        }
        Value::String(text) => Ok(Param::from(text.as_str())),
        other => Err(ApiError::invalid("stop", &expected, kind_of(other))),
    };
    list.iter().map(text).collect()
}

/// Parameters of a strategy, each a single value: which there are is known to the strategy.
fn decoding_options(options: &Map<String, Value>) -> Result<Config, ApiError> {
    let mut table = Config::at("request.decoding_options");
    for (key, value) in options {
        let value = match value {
            Value::Bool(flag) => Param::from(*flag),
            Value::String(text) => Param::from(text.as_str()),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Param::Int(whole),
                (None, number) => Param::Float(number.unwrap_or(f64::NAN)),
            },
            other => {
                let place = format!("decoding_options.{key}");
                let expected = "a number, a text, true or false";
                return Err(ApiError::invalid(&place, expected, kind_of(other)));
            }
        };
        table.set(key, value);
    }
    Ok(table)
}

/// Token ids, as text, with numbers.
fn logit_bias(bias: &Value) -> Result<Config, ApiError> {
    let Value::Object(map) = bias else {
        return Err(ApiError::invalid("logit_bias", "an object", kind_of(bias)));
    };
    if map.len() > BIASES_MAX {
        let expected = format!("at most {BIASES_MAX} tokens");
        return Err(ApiError::invalid("logit_bias", &expected, &map.len().to_string()));
    }
    let mut table = Config::at("logit_bias");
    for (token, value) in map {
        if token.parse::<u32>().is_err() {
            return Err(ApiError::invalid("logit_bias", "token ids as keys", token));
        }
        let number = value.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
        let Some(number) = number else {
            let found = value.to_string();
            return Err(ApiError::invalid("logit_bias", "numbers in -100..=100", &found));
        };
        table.set(token, number);
    }
    Ok(table)
}

/// As many as the hook that reads them takes.
const STOP_TEXTS_MAX: usize = 16;
/// Text up to so long is held back from a stream.
const STOP_BYTES_MAX: usize = 4096;
/// As the OpenAI interface has it.
const BIASES_MAX: usize = 1024;
/// An odd constant far from small seeds: the golden ratio in 64 bits.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;
