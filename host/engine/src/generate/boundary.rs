//! The boundary between two steps: where subscriptions and swaps take effect.

use std::sync::atomic::Ordering;

use jackfield_runtime::{DRAINING_MAX, SwapError};
use plugin_api::{
    DecodingStrategy, Handover, Kind, KvCache, LogitsProcessor, OutputParser, Scheduler,
};

use super::convert::Conversion;
use super::engine::Engine;
use crate::swap::{Change, Leftover, Note, Offer, Successor};

impl Engine {
    /// Takes in what was offered and subscribed; a few atomic loads when nothing was. Every step
    /// begins with it: to be called where no step follows for a while.
    pub fn boundary(&mut self) {
        self.topics.before_step.refresh();
        self.topics.after_step.refresh();
        self.topics.after_token.refresh();
        self.topics.after_generate.refresh();
        self.topics.on_cancel.refresh();
        self.topics.on_fault.refresh();
        self.tell_hook_faults();
        let offers = self.shared.mailbox.take();
        if offers.is_empty() && self.conversion.is_none() {
            return;
        }
        let taken_us = self.clock.now_us();
        let mut has_changed = !offers.is_empty();
        for Offer { ticket, mut change } in offers {
            // Noted once it is through.
            if let Some(memory) = change.memory.take() {
                self.conversion = Some(Conversion::new(ticket, change, memory));
                continue;
            }
            let (result, leftover) = self.take(change);
            self.shared.note(Note { ticket, result, taken_us, leftover });
        }
        if let Some((ticket, result, leftover)) = self.convert() {
            self.shared.note(Note { ticket, result, taken_us, leftover });
            has_changed = true;
        }
        if has_changed {
            self.update_digests();
        }
    }

    /// Takes in all of what was offered, or nothing: first everything that can fail, which changes
    /// nothing that runs, then only what lies where. What is out of use afterwards, or refused, is
    /// left over: nothing is dropped on the step thread.
    pub(super) fn take(&mut self, mut change: Box<Change>) -> (Result<(), SwapError>, Leftover) {
        let admitted = self.admit(&mut change);
        let mut leftover = Leftover::new();
        if admitted.is_ok() {
            self.put(&mut change, &mut leftover);
        }
        leftover.push(change);
        (admitted, leftover)
    }

    /// Everything that can fail: room for generations that drain, and handovers into instances that
    /// nothing runs yet.
    fn admit(&mut self, change: &mut Change) -> Result<(), SwapError> {
        if change.plans.iter().any(|next| !self.plans.has_room_for(next)) {
            return Err(too_many_draining(change.planned_by.clone()));
        }
        for (place, _) in &change.processors {
            let (name, slot) = &self.processors[*place];
            if !slot.has_room() {
                return Err(too_many_draining(format!("{}/{name}", <dyn LogitsProcessor>::NAME)));
            }
        }
        for (place, _) in &change.strategies {
            let (name, slot) = &self.strategies[*place];
            if !slot.has_room() {
                return Err(too_many_draining(format!("{}/{name}", <dyn DecodingStrategy>::NAME)));
            }
        }
        for (place, _) in &change.parsers {
            let (name, slot) = &self.parsers[*place];
            if !slot.has_room() {
                return Err(too_many_draining(format!("{}/{name}", <dyn OutputParser>::NAME)));
            }
        }
        if let Some(successor) = &mut change.scheduler {
            self.tell_scheduler(successor)?;
        }
        if let Some(Successor { next, room }) = &mut change.cache
            && self.cache.get().usage().used > 0
        {
            hand_over(self.cache.get_mut(), &mut *next.instance, room)?;
        }
        Ok(())
    }

    /// Passes the state of the scheduler on to another generation of the same plugin, if both hand
    /// over: one of another name knows nothing of its bytes. What one holds that has failed is
    /// worth nothing, and must not keep its successor out.
    fn tell_scheduler(
        &mut self,
        Successor { next, room }: &mut Successor<dyn Scheduler>,
    ) -> Result<(), SwapError> {
        let is_same = self.scheduler.label().name == next.label.name;
        if !is_same || !self.scheduler_faults.is_empty() {
            return Ok(());
        }
        match (self.scheduler.get_mut().handover(), next.instance.handover()) {
            (Some(from), Some(into)) => pass_on(<dyn Scheduler>::NAME, from, into, room),
            _ => Ok(()),
        }
    }

    /// Only what lies where. Nothing here can fail: there is room, and state has been handed over.
    fn put(&mut self, change: &mut Change, leftover: &mut Leftover) {
        for plan in change.plans.drain(..) {
            let (Ok(retired) | Err(retired)) = self.plans.replace(plan).map_err(Some);
            leftover.push(Box::new(retired));
        }
        if let Some(larger) = &mut change.scratch {
            self.shared.scratch_bytes.store(larger.as_slice().len(), Ordering::Relaxed);
            std::mem::swap(&mut self.scratch, larger);
        }
        if let Some(memory) = &mut change.memory {
            std::mem::swap(&mut self.state, &mut memory.state);
            std::mem::swap(&mut self.layout, &mut memory.layout);
        }
        if let Some(Successor { next, room }) = change.cache.take() {
            leftover.push(Box::new((self.cache.replace(next), room)));
            self.sequences.iter_mut().for_each(|sequence| sequence.chain.unpublish());
        }
        if let Some(Successor { next, room }) = change.scheduler.take() {
            self.scheduler_faults.clear();
            leftover.push(Box::new((self.scheduler.replace(next), room)));
        }
        for (place, next) in change.quantizers.drain(..) {
            leftover.push(Box::new(self.quantizers[place].replace(next)));
        }
        for (place, next) in change.processors.drain(..) {
            let (Ok(retired) | Err(retired)) = self.processors[place].1.replace(next).map_err(Some);
            leftover.push(Box::new(retired));
        }
        for (place, next) in change.strategies.drain(..) {
            let (Ok(retired) | Err(retired)) = self.strategies[place].1.replace(next).map_err(Some);
            leftover.push(Box::new(retired));
        }
        for (place, next) in change.parsers.drain(..) {
            let (Ok(retired) | Err(retired)) = self.parsers[place].1.replace(next).map_err(Some);
            leftover.push(Box::new(retired));
        }
    }

    /// Works out again what running requests are made by.
    fn update_digests(&mut self) {
        for place in 0..self.groups.end() {
            self.update_digest(place);
            self.update_seed(place);
        }
    }

    /// Works out again what a running request is made by.
    pub(super) fn update_digest(&mut self, index: usize) {
        let Some(group) = self.groups.get(index) else { return };
        let (plan, is_precise) = (self.plans.get(group.plan), group.is_precise);
        let digest = self.digest_of(plan, &group.processors, group.strategy, is_precise);
        if let Some(group) = self.groups.get_mut(index) {
            group.digest = digest;
        }
    }
}

/// Saves the tables of one cache and restores them in another of the same pool.
fn hand_over(
    old: &mut dyn KvCache,
    new: &mut dyn KvCache,
    room: &mut Vec<u8>,
) -> Result<(), SwapError> {
    let missing = |which: &str| SwapError::Differs {
        slot: "kv-cache".to_owned(),
        what: "handover, while sequences hold tokens".to_owned(),
        expected: "caches that save and restore their tables".to_owned(),
        found: format!("{which} that does not: try again while nothing runs"),
    };
    let from = old.handover().ok_or_else(|| missing("an old one"))?;
    let into = new.handover().ok_or_else(|| missing("a new one"))?;
    pass_on("kv-cache", from, into, room)?;
    let (before, after) = (old.usage().used, new.usage().used);
    if before == after {
        return Ok(());
    }
    Err(SwapError::Differs {
        slot: "kv-cache".to_owned(),
        what: "blocks in use after the handover".to_owned(),
        expected: before.to_string(),
        found: after.to_string(),
    })
}

/// Saves what one plugin holds and restores it in another.
fn pass_on(
    slot: &str,
    from: &mut dyn Handover,
    into: &mut dyn Handover,
    room: &mut Vec<u8>,
) -> Result<(), SwapError> {
    let failed = |what: &str| {
        let (slot, what) = (slot.to_owned(), format!("handover: {what}"));
        move |source| SwapError::Plugin { slot, what, source }
    };
    from.save(room).map_err(failed("save"))?;
    into.restore(room).map_err(failed("restore"))
}

fn too_many_draining(slot: String) -> SwapError {
    SwapError::TooManyDraining { slot, draining: DRAINING_MAX + 1, draining_max: DRAINING_MAX }
}
