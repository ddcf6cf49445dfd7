//! `/metrics`: what was counted beside what is.

use jackfield_runtime::SlotStatus;

use super::text::Exposition;
use crate::admin::Board;
use crate::app::App;

/// Everything, as Prometheus reads it.
pub(crate) fn page(app: &App) -> String {
    let model = app.model_name();
    let mut to = super::exposition(&app.metrics, &model);
    let in_engine = app.port.num_requests();
    let running = in_engine.min(app.running_max);
    #[rustfmt::skip]
    let gauges = [
        ("num_requests_running", "Requests that the engine works on", running as f64),
        ("num_requests_waiting", "Requests that wait", (in_engine - running) as f64),
    ];
    for (name, help, value) in gauges {
        to.one(name, "gauge", help, &model, value);
    }
    if let Some(board) = &app.board {
        slots(board, &mut to);
    }
    to.into_text()
}

/// Which plugin fills each slot, how often it was filled, and how many requests it serves.
fn slots(board: &Board, to: &mut Exposition) {
    let slots = board.plugins.slots();
    #[rustfmt::skip]
    let numbers: [(&str, &str, fn(&SlotStatus) -> f64); 4] = [
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
