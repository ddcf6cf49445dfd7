//! What the server counts, in atomics: written by the engine's thread and by routes, read by
//! whoever asks for `/metrics`.

mod histogram;
mod page;
mod text;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jackfield_engine::Stats;
use plugin_api::kinds::decoding_strategy::FinishReason;

pub(crate) use histogram::Histogram;
pub(crate) use page::page;
use text::exposition;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is counted since the server was started.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) prompt_tokens: Counter,
    pub(crate) generation_tokens: Counter,
    pub(crate) stopped: Counter,
    pub(crate) full_length: Counter,
    pub(crate) aborted: Counter,
    /// Requests whose clients went away.
    pub(crate) cancelled: Counter,
    /// Requests that the engine did not take.
    pub(crate) requests_refused: Counter,
    /// Requests for which there was no room.
    pub(crate) requests_over_limit: Counter,
    pub(crate) plugin_swaps: Counter,
    /// Swaps that were refused or failed.
    pub(crate) plugin_refusals: Counter,
    pub(crate) plugin_faults: Counter,
    pub(crate) plugin_swap_seconds: Histogram,
    pub(crate) first_token_seconds: Histogram,
    pub(crate) inter_token_seconds: Histogram,
    pub(crate) request_seconds: Histogram,
    /// Tokens of texts that became vectors.
    pub(crate) embedding_tokens: Counter,
    pub(crate) embedding_seconds: Histogram,
    /// Answers of HTTP by method, route and status.
    http: Mutex<BTreeMap<(String, String, u16), u64>>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            prompt_tokens: Counter::default(),
            generation_tokens: Counter::default(),
            stopped: Counter::default(),
            full_length: Counter::default(),
            aborted: Counter::default(),
            cancelled: Counter::default(),
            requests_refused: Counter::default(),
            requests_over_limit: Counter::default(),
            plugin_swaps: Counter::default(),
            plugin_refusals: Counter::default(),
            plugin_faults: Counter::default(),
            plugin_swap_seconds: Histogram::new(&INTER_TOKEN_SECONDS),
            first_token_seconds: Histogram::new(&FIRST_TOKEN_SECONDS),
            inter_token_seconds: Histogram::new(&INTER_TOKEN_SECONDS),
            request_seconds: Histogram::new(&REQUEST_SECONDS),
            embedding_tokens: Counter::default(),
            embedding_seconds: Histogram::new(&FIRST_TOKEN_SECONDS),
            http: Mutex::default(),
        }
    }

    /// A request was answered.
    pub(crate) fn finished(&self, reason: FinishReason, stats: &Stats, has_failed: bool) {
        self.prompt_tokens.add(stats.prompt_tokens as u64);
        self.generation_tokens.add(stats.tokens as u64);
        self.first_token_seconds.observe(Duration::from_micros(stats.ttft_us));
        self.request_seconds.observe(Duration::from_micros(stats.total_us));
        let counter = match reason {
            _ if has_failed => &self.aborted,
            FinishReason::Length => &self.full_length,
            FinishReason::Aborted => &self.aborted,
            FinishReason::Stop | FinishReason::Refused => &self.stopped,
        };
        counter.add(1);
    }

    /// A request of HTTP was answered.
    pub(crate) fn answered(&self, method: &str, route: &str, status: u16) {
        let mut http = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        *http.entry((method.to_owned(), route.to_owned(), status)).or_default() += 1;
    }

    /// Seconds that a request takes on average, as far as that is known.
    pub(crate) fn mean_request_seconds(&self) -> Option<f64> {
        self.request_seconds.mean()
    }
}

/// Upper ends of the buckets, in seconds: those of vLLM.
const FIRST_TOKEN_SECONDS: [f64; 17] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    80.0,
];
const INTER_TOKEN_SECONDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 1.0, 2.5];
const REQUEST_SECONDS: [f64; 15] =
    [0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 480.0];
