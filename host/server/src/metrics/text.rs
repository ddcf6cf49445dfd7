//! Metrics as Prometheus reads them: text format 0.0.4.

use std::fmt::Write as _;
use std::sync::PoisonError;

use super::{Histogram, Metrics};

/// A document in the making.
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// The help and type of a metric; its samples follow.
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.text, "{PREFIX}{name}");
        for (i, (label, value)) in labels.iter().enumerate() {
            let open = if i == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{open}{label}=\"{}\"", escaped(value));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    /// A metric with one sample.
    pub(crate) fn one(&mut self, name: &str, kind: &str, help: &str, model: &str, value: f64) {
        self.head(name, kind, help);
        self.sample(name, &[("model_name", model)], value);
    }

    /// A metric with a sample for each row: labels and value.
    pub(crate) fn rows(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        rows: &[(Vec<(&str, &str)>, f64)],
    ) {
        self.head(name, kind, help);
        rows.iter().for_each(|(labels, value)| self.sample(name, labels, *value));
    }

    /// A metric of durations, in seconds.
    pub(super) fn histogram(&mut self, name: &str, help: &str, model: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let buckets = histogram.cumulative();
        for (end, count) in &buckets {
            let end = if end.is_infinite() { "+Inf".to_owned() } else { end.to_string() };
            let labels = [("model_name", model), ("le", end.as_str())];
            self.sample(&format!("{name}_bucket"), &labels, *count as f64);
        }
        let labels = [("model_name", model)];
        self.sample(&format!("{name}_sum"), &labels, histogram.sum_seconds());
        let count = buckets.last().map_or(0, |(_, count)| *count);
        self.sample(&format!("{name}_count"), &labels, count as f64);
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// What `metrics` holds; more may be added.
pub(super) fn exposition(metrics: &Metrics, model: &str) -> Exposition {
    let mut to = Exposition { text: String::new() };
    let m = metrics;
    #[rustfmt::skip]
    let counters = [
        ("prompt_tokens_total", "Tokens of prompts of answered requests", &m.prompt_tokens),
        ("generation_tokens_total", "Tokens of answered requests", &m.generation_tokens),
        ("request_cancelled_total", "Requests whose clients went away", &m.cancelled),
        ("request_refused_total", "Requests that the engine did not take", &m.requests_refused),
        ("plugin_swaps_total", "Plugins that were replaced", &m.plugin_swaps),
        ("plugin_swaps_refused_total", "Swaps that were refused or failed", &m.plugin_refusals),
        ("plugin_faults_total", "Failures of plugins", &m.plugin_faults),
        ("request_over_limit_total", "Requests refused since the queue was full", &m.requests_over_limit),
    ];
    for (name, help, counter) in counters {
        to.one(name, "counter", help, model, counter.get() as f64);
    }
    let success = [("stop", &m.stopped), ("length", &m.full_length), ("abort", &m.aborted)];
    let success = success.map(|(reason, counter)| {
        (vec![("model_name", model), ("finished_reason", reason)], counter.get() as f64)
    });
    to.rows("request_success_total", "counter", "Requests that ended, by reason", &success);
    #[rustfmt::skip]
    let histograms = [
        ("time_to_first_token_seconds", "From arrival to the first token", &m.first_token_seconds),
        ("inter_token_latency_seconds", "Between two tokens of an answer", &m.inter_token_seconds),
        ("plugin_swap_seconds", "From asking for a swap to its boundary", &m.plugin_swap_seconds),
        ("e2e_request_latency_seconds", "From arrival to the end", &m.request_seconds),
    ];
    for (name, help, histogram) in histograms {
        to.histogram(name, help, model, histogram);
    }
    let http = m.http.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let http: Vec<_> = http.iter().map(|(key, n)| (key, key.2.to_string(), *n as f64)).collect();
    let rows = http.iter().map(|((method, route, _), status, n)| {
        (vec![("method", method.as_str()), ("path", route), ("status", status)], *n)
    });
    let (name, help) = ("http_requests_total", "Answers by method, route and status");
    to.rows(name, "counter", help, &rows.collect::<Vec<_>>());
    to
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// vLLM's names are `vllm:…`: dashboards need one word changed.
const PREFIX: &str = "jackfield:";
