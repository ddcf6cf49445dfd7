//! What has happened in a run: kept for those who come later, told to those who are there.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

/// Events of one run, numbered from 1.
pub(super) struct RunLog {
    kept: Mutex<Kept>,
    /// The number of the last event; the sender goes when the run does.
    last: Mutex<Option<watch::Sender<u64>>>,
    changes: watch::Receiver<u64>,
    is_to_stop: AtomicBool,
}

/// How long an event is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// One of many: a step like those around it.
    Thinned,
    /// Until there are too many of its sort.
    Latest,
    /// As long as the run lasts.
    Always,
}

#[derive(Default)]
struct Kept {
    /// Oldest first.
    events: VecDeque<(u64, Keep, Arc<str>)>,
    last: u64,
}

/// Reads events, each once.
pub(super) struct Reader {
    log: Arc<RunLog>,
    changes: watch::Receiver<u64>,
    /// The last that was read.
    read: u64,
    has_begun: bool,
}

impl RunLog {
    pub(super) fn new() -> Self {
        let (sender, changes) = watch::channel(0);
        Self {
            kept: Mutex::default(),
            last: Mutex::new(Some(sender)),
            changes,
            is_to_stop: AtomicBool::new(false),
        }
    }

    /// Adds an event. Steps beyond so many are thinned out: of the older half every other one stays.
    pub(super) fn add(&self, keep: Keep, event: &Value) {
        let mut kept = lock(&self.kept);
        kept.last += 1;
        let number = kept.last;
        kept.events.push_back((number, keep, event.to_string().into()));
        if keep == Keep::Thinned && kept.count(keep) > STEPS_MAX {
            kept.thin_out();
        }
        if keep == Keep::Latest && kept.count(keep) > LATEST_MAX {
            let oldest = kept.events.iter().position(|(_, other, _)| *other == keep);
            oldest.and_then(|at| kept.events.remove(at));
        }
        drop(kept);
        if let Some(sender) = &*lock(&self.last) {
            sender.send_replace(number);
        }
    }

    /// No event follows: readers come to their end.
    pub(super) fn end(&self) {
        lock(&self.last).take();
    }

    pub(super) fn ask_to_stop(&self) {
        self.is_to_stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_to_stop(&self) -> bool {
        self.is_to_stop.load(Ordering::Relaxed)
    }

    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        Reader { log: Arc::clone(self), changes: self.changes.clone(), read: 0, has_begun: false }
    }
}

impl Kept {
    fn count(&self, keep: Keep) -> usize {
        self.events.iter().filter(|(_, other, _)| *other == keep).count()
    }

    fn thin_out(&mut self) {
        let (mut seen, older) = (0, self.count(Keep::Thinned) / 2);
        self.events.retain(|(_, keep, _)| {
            let is_step = *keep == Keep::Thinned;
            seen += usize::from(is_step);
            !is_step || seen > older || seen % 2 == 1
        });
    }
}

impl Reader {
    /// All events that were not read, as soon as there are any; nothing once the run is over.
    pub(super) async fn next(&mut self) -> Option<String> {
        let mut text = String::new();
        if !std::mem::replace(&mut self.has_begun, true) {
            // Whoever waits sees that somebody answers.
            text.push_str(": the run follows\n\n");
        }
        loop {
            for (number, _, event) in &lock(&self.log.kept).events {
                if *number > self.read {
                    // Writing to a `String` does not fail.
                    let _ = write!(text, "data: {event}\n\n");
                    self.read = *number;
                }
            }
            if !text.is_empty() {
                return Some(text);
            }
            self.changes.changed().await.ok()?;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Steps that are kept, and events of which the latest are.
const STEPS_MAX: usize = 2000;
const LATEST_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_long_run_is_thinned_out_and_keeps_its_end() {
        let log = RunLog::new();
        log.add(Keep::Always, &json!({ "topic": "start" }));
        for step in 0..10_000 {
            log.add(if step == 77 { Keep::Latest } else { Keep::Thinned }, &json!(step));
        }
        let kept = lock(&log.kept);
        let numbers = kept.events.iter().filter_map(|(_, _, text)| text.parse().ok());
        let steps: Vec<u64> = numbers.collect();
        assert!(steps.len() <= STEPS_MAX + 1 && steps.len() > STEPS_MAX / 2, "{}", steps.len());
        assert!(steps.is_sorted() && steps[0] == 0 && steps.last() == Some(&9_999));
        assert_eq!(&steps[steps.len() - 500..], (9_500..10_000).collect::<Vec<u64>>());
        assert!(steps.contains(&77), "what is unusual is not thinned out");
        drop(kept);
        for step in 0..2000 {
            log.add(Keep::Latest, &json!({ "saved": step }));
        }
        let kept = lock(&log.kept);
        assert_eq!(kept.count(Keep::Latest), LATEST_MAX);
        assert!(
            kept.events[0].2.contains("start") && kept.events.back().unwrap().2.contains("1999")
        );
    }
}
