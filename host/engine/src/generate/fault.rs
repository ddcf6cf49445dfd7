//! Faults: what plugins do wrong ends the request it concerns, and is told.

use std::marker::PhantomData;

use jackfield_runtime::{HookFault, RequestSlot, Topic};
use plugin_api::events::OnFault;
use plugin_api::kinds::kv_cache::SeqId;
use plugin_api::kinds::logits_processor::BatchChange;
use plugin_api::{DecodingStrategy, Error, Hook, Kind, LogitsProcessor};

use super::engine::Engine;
use super::step::Sink;

/// The processors of an engine, by name.
type Processors = [(String, RequestSlot<dyn LogitsProcessor>)];

/// Tells processors of a change to a row: all of them, each in the generation that the row's
/// request holds. Those that cannot follow are told of, and the first error is returned.
pub(super) fn follow(
    processors: &mut Processors,
    on_fault: &mut Topic<OnFault<'static>>,
    request: u64,
    generations: &[u32],
    change: &BatchChange<'_>,
) -> Result<(), Error> {
    let mut result = Ok(());
    for ((name, slot), &generation) in processors.iter_mut().zip(generations) {
        if let Err(error) = slot.get_mut(generation).batch(change) {
            let kind = <dyn LogitsProcessor>::NAME;
            let (plugin, lent) = (name.as_str(), PhantomData);
            let _ = on_fault.emit(&mut OnFault { kind, plugin, request, error: &error, lent });
            result = result.and(Err(error));
        }
    }
    result
}

impl Engine {
    /// Ends a request whose strategy failed.
    pub(super) fn strategy_failed(&mut self, index: usize, error: &Error, sink: Sink<'_>) {
        if let Some(group) = self.groups.get(index) {
            let (request, name) = (group.request.0, self.strategies[group.strategy.0].0.clone());
            self.tell_fault(<dyn DecodingStrategy>::NAME, &name, request, error);
        }
        self.abort(index, error, sink);
    }

    /// Tells the hooks of `on-fault`.
    pub(super) fn tell_fault(&mut self, kind: &str, plugin: &str, request: u64, error: &Error) {
        let mut event = OnFault { kind, plugin, request, error, lent: PhantomData };
        let _ = self.topics.on_fault.emit(&mut event);
    }

    /// Tells of hooks that failed since the last boundary; one atomic load when none did.
    pub(super) fn tell_hook_faults(&mut self) {
        for HookFault { plugin, error } in self.bus.faults() {
            self.tell_fault(<dyn Hook>::NAME, &plugin, 0, &error);
        }
    }

    /// The request that a sequence belongs to, or 0.
    pub(super) fn request_of(&self, seq: SeqId) -> u64 {
        let sequence = self.sequences.get(seq.0 as usize);
        let group = sequence.and_then(|s| self.groups.get(s.group));
        group.map_or(0, |group| group.request.0)
    }
}
