//! `/metrics`: what was counted beside what is.

use jackfield_runtime::SlotStatus;

use super::text::Exposition;
use crate::admin::Board;
use crate::app::App;

/// Everything, as Prometheus reads it.
pub(crate) fn page(app: &App) -> String {
    let model = app.model_name();
    let mut to = super::exposition(&app.metrics, &model);
    let load = app.port.load().unwrap_or_default();
    // Requests that the engine has not looked at yet wait as well.
    let waiting = (app.port.num_requests() as u64).saturating_sub(load.running);
    let usage = load.blocks_used as f64 / load.blocks_total.max(1) as f64;
    #[rustfmt::skip]
    let gauges = [
        ("num_requests_running", "Requests with tokens in the cache", load.running as f64),
        ("num_requests_waiting", "Requests without", waiting as f64),
        ("kv_cache_usage_perc", "Share of the cache that is used, 0 to 1", usage),
    ];
    for (name, help, value) in gauges {
        to.one(name, "gauge", help, &model, value);
    }
    #[rustfmt::skip]
    let counters = [
        ("num_preemptions_total", "Sequences that lost their cache to older ones", load.preemptions),
        ("prefix_cache_queries_total", "Tokens of prompts that were begun", load.prompt_tokens),
        ("prefix_cache_hits_total", "Those of them that were in the cache", load.cached_tokens),
        ("spec_decode_num_draft_tokens_total", "Guesses at tokens that were computed", load.draft_tokens),
        ("spec_decode_num_accepted_tokens_total", "Those of them that came true", load.accepted_tokens),
        ("kv_cache_converted_bytes_total", "Bytes of caches that were converted for others", load.converted_bytes),
        ("precise_requests_total", "Requests that went on with weights of more bits", load.precise_requests),
        ("engine_steps_total", "Steps that computed something", load.steps),
        ("engine_tokens_total", "Tokens that were computed, of prompts and answers", load.evaluated_tokens),
    ];
    for (name, help, value) in counters {
        to.one(name, "counter", help, &model, value as f64);
    }
    if let Some(encoder) = &app.config().embedding_model {
        let (tokens, seconds) = (&app.metrics.embedding_tokens, &app.metrics.embedding_seconds);
        let help = "Tokens of texts that became vectors";
        let name = "embedding_prompt_tokens_total";
        to.one(name, "counter", help, encoder, tokens.get() as f64);
        let help = "From tokens to the vectors of a request";
        to.histogram("embedding_request_seconds", help, encoder, seconds);
    }
    if let Some(board) = &app.board {
        slots(board, &mut to);
    }
    to.into_text()
}

/// Name, help, and what is read of a slot.
type SlotNumber = (&'static str, &'static str, fn(&SlotStatus) -> f64);

/// Which plugin fills each slot, how often it was filled, and how many requests it serves.
fn slots(board: &Board, to: &mut Exposition) {
    let slots = board.plugins.slots();
    #[rustfmt::skip]
    let numbers: [SlotNumber; 4] = [
        ("plugin_info", "What fills a slot", |_| 1.0),
        ("plugin_generation", "How often a slot was filled", |s| f64::from(s.active.generation)),
        ("plugin_requests", "Requests that it serves", |s| s.requests as f64),
        ("plugin_draining", "Earlier generations that requests hold", |s| s.draining.len() as f64),
    ];
    for (name, help, number) in numbers {
        let rows = slots.iter().map(|status| {
            let (kind, slot) = (status.kind.as_str(), status.slot.as_str());
            let labels = vec![("kind", kind), ("slot", slot), ("plugin", &status.active.name)];
            (labels, number(status))
        });
        to.rows(name, "gauge", help, &rows.collect::<Vec<_>>());
    }
}
