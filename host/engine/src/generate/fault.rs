//! Faults: what plugins do wrong ends the request it concerns, and is told.

use std::marker::PhantomData;

use plugin_api::events::OnFault;
use plugin_api::kinds::kv_cache::SeqId;
use plugin_api::{DecodingStrategy, Error, Kind};

use super::engine::Engine;
use super::step::Sink;

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

    /// The request that a sequence belongs to, or 0.
    pub(super) fn request_of(&self, seq: SeqId) -> u64 {
        let sequence = self.sequences.get(seq.0 as usize);
        let group = sequence.and_then(|s| self.groups.get(s.group));
        group.map_or(0, |group| group.request.0)
    }
}
