//! The slots that an engine has, as swappers see them first.

use std::sync::Arc;

use jackfield_runtime::{RequestSlot, Slot};
use plugin_api::{
    Adapter, Backend, DecodingStrategy, Kind, KvCache, LogitsProcessor, OutputParser, Quantizer,
    Scheduler,
};

use super::state::{Role, SlotState};
use crate::generate::plans::CompiledPlan;
use crate::model::{adapter, precise};

/// Everything that fills a slot of an engine.
pub(crate) struct Filled<'a> {
    pub(crate) plan: &'a CompiledPlan,
    pub(crate) cache: &'a Slot<dyn KvCache>,
    pub(crate) scheduler: &'a Slot<dyn Scheduler>,
    pub(crate) quantizers: &'a [Slot<dyn Quantizer>],
    pub(crate) processors: &'a [(String, RequestSlot<dyn LogitsProcessor>)],
    pub(crate) strategies: &'a [(String, RequestSlot<dyn DecodingStrategy>)],
    pub(crate) parsers: &'a [(String, RequestSlot<dyn OutputParser>)],
}

impl Filled<'_> {
    /// The slots, in the order in which digests name them.
    pub(crate) fn slots(&self) -> Vec<SlotState> {
        let one = |kind: &str, role, label: &jackfield_runtime::Label| {
            SlotState::shared(kind, kind, role, label.clone())
        };
        let mut slots = vec![
            one(<dyn Backend>::NAME, Role::Backend, &self.plan.backend.label),
            one(<dyn KvCache>::NAME, Role::Cache, self.cache.label()),
            one(<dyn Scheduler>::NAME, Role::Scheduler, self.scheduler.label()),
        ];
        let parts = self.plan.parts.iter();
        slots.extend(parts.map(|(kind, part)| one(kind, Role::Traced, &part.label)));
        let (kind, label) = (<dyn Adapter>::NAME, self.plan.companions.adapter.0.clone());
        slots.push(SlotState::shared(kind, adapter::SLOT, Role::Adapter, label));
        let (label, stand_ins) = &self.plan.companions.precise;
        if stand_ins.files.is_some() {
            let (kind, name) = precise::SLOT;
            slots.push(SlotState::shared(kind, name, Role::Mask, label.clone()));
        }
        slots.extend(self.quantizers.iter().enumerate().map(|(place, slot)| {
            let (label, role) = (slot.label().clone(), Role::Quantizer(place));
            SlotState::shared(<dyn Quantizer>::NAME, &label.name.clone(), role, label)
        }));
        slots.extend(of_requests(self.processors, Role::Processor));
        slots.extend(of_requests(self.strategies, Role::Strategy));
        slots.extend(of_requests(self.parsers, Role::Parser));
        slots
    }
}

fn of_requests<K: Kind + ?Sized>(
    slots: &[(String, RequestSlot<K>)],
    role: impl Fn(usize) -> Role,
) -> impl Iterator<Item = SlotState> {
    slots.iter().enumerate().map(move |(place, (name, slot))| {
        let active = slot.active();
        let mut state = SlotState::shared(K::NAME, name, role(place), active.label.clone());
        state.requests = Some(Arc::downgrade(&active.requests));
        state
    })
}
