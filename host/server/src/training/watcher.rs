//! The hooks that gather what the page of a run shows.

use std::sync::{Arc, Mutex, PoisonError};

use jackfield_runtime::Bus;
use plugin_api::events::{Flow, Subscriptions};
use serde_json::{Map, Value, json};

use super::layers::Layers;
use super::log::{Keep, RunLog};
use crate::admin::host;

/// What the hooks are called on the bus.
pub(super) const NAME: &str = "http-run";

/// Subscribes to a run.
pub(super) fn subscribe(bus: &Bus, log: &Arc<RunLog>) {
    let mut on = Subscriptions::new();
    of_steps(&mut on, log);
    of_run(&mut on, log);
    bus.subscribe(&host(NAME), on);
}

/// Gathered until a step is over.
#[derive(Default)]
struct Step {
    layers: Layers,
    norms: Map<String, Value>,
    unusual: Map<String, Value>,
}

fn of_steps(on: &mut Subscriptions, log: &Arc<RunLog>) {
    let step: Arc<Mutex<Step>> = Arc::default();
    let (begun, added, ended) = (Arc::clone(&step), Arc::clone(&step), Arc::clone(&step));
    on.train_before_step(move |_, _| {
        let mut step = begun.lock().unwrap_or_else(PoisonError::into_inner);
        step.layers.begin();
        (step.norms, step.unusual) = (Map::new(), Map::new());
        Flow::Continue
    });
    on.train_gradient(move |event, _| {
        let mut step = added.lock().unwrap_or_else(PoisonError::into_inner);
        step.layers.add(event.name, event.norm);
        Flow::Continue
    });
    on.train_after_backward(move |_, _| {
        let mut step = ended.lock().unwrap_or_else(PoisonError::into_inner);
        (step.norms, step.unusual) = step.layers.end();
        Flow::Continue
    });
    let told = Arc::clone(log);
    on.train_after_step(move |event, _| {
        let mut step = step.lock().unwrap_or_else(PoisonError::into_inner);
        let (norms, unusual) = (std::mem::take(&mut step.norms), std::mem::take(&mut step.unusual));
        // What stands out is kept when others are thinned out.
        let keep = if unusual.is_empty() { Keep::Thinned } else { Keep::Latest };
        let line = json!({
            "topic": "step", "step": event.step, "loss": event.loss, "grad_norm": event.grad_norm,
            "learning_rate": event.learning_rate, "tokens": event.tokens, "step_us": event.step_us,
            "layers": norms, "unusual": unusual,
        });
        told.add(keep, &line);
        if told.is_to_stop() { Flow::StopRun } else { Flow::Continue }
    });
}

fn of_run(on: &mut Subscriptions, log: &Arc<RunLog>) {
    let tell = Arc::clone(log);
    on.train_run_start(move |event, _| {
        tell.add(
            Keep::Always,
            &json!({
                "topic": "start", "step": event.step, "num_steps": event.num_steps,
                "num_elements": event.num_elements,
            }),
        );
        Flow::Continue
    });
    let tell = Arc::clone(log);
    on.train_epoch(move |event, _| {
        tell.add(
            Keep::Latest,
            &json!({ "topic": "epoch", "step": event.step, "epoch": event.epoch }),
        );
        Flow::Continue
    });
    let tell = Arc::clone(log);
    on.train_after_evaluate(move |event, _| {
        tell.add(
            Keep::Latest,
            &json!({ "topic": "evaluate", "step": event.step, "loss": event.loss }),
        );
        Flow::Continue
    });
    let tell = Arc::clone(log);
    on.train_after_checkpoint(move |event, _| {
        tell.add(
            Keep::Latest,
            &json!({ "topic": "checkpoint", "step": event.step, "path": event.path }),
        );
        Flow::Continue
    });
    let tell = Arc::clone(log);
    on.train_after_restore(move |event, _| {
        tell.add(Keep::Latest, &json!({ "topic": "restore", "step": event.step }));
        Flow::Continue
    });
    let tell = Arc::clone(log);
    on.after_swap(move |event, _| {
        let said = format!("{}: {} #{}", event.kind, event.name, event.generation);
        tell.add(Keep::Latest, &json!({ "topic": "swap", "plugin": said }));
        Flow::Continue
    });
    let tell = Arc::clone(log);
    on.train_exception(move |event, _| {
        let error = event.error.to_string();
        tell.add(
            Keep::Latest,
            &json!({ "topic": "exception", "step": event.step, "error": error }),
        );
        Flow::Continue
    });
    let tell = Arc::clone(log);
    on.train_run_end(move |event, _| {
        tell.add(Keep::Latest, &json!({ "topic": "end", "step": event.step }));
        tell.end();
        Flow::Continue
    });
}
