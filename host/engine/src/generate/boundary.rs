//! The boundary between two steps: where subscriptions and swaps take effect.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use jackfield_runtime::{DRAINING_MAX, Generation, SwapError};
use plugin_api::{Handover, KvCache, Scheduler};

use super::convert::Conversion;
use super::engine::Engine;
use super::plans::CompiledPlan;
use crate::model::memory::AlignedBytes;
use crate::swap::{Change, Leftover, Note, Offer};

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
        for Offer { ticket, change } in offers {
            let mut leftover = Leftover::new();
            let result = match change {
                // Noted once it is through.
                Change::Convert(takeover) => {
                    self.conversion = Some(Conversion::new(ticket, *takeover));
                    continue;
                }
                change => self.take(change, &mut leftover),
            };
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

    /// Puts what was offered into its slot. What is out of use afterwards, or refused, is left
    /// over: nothing is dropped on the step thread.
    fn take(&mut self, change: Change, leftover: &mut Leftover) -> Result<(), SwapError> {
        match change {
            Change::Plans { plans, scratch } => return self.take_plans(plans, scratch, leftover),
            Change::Cache { next, room } => return self.take_cache(next, room, leftover),
            Change::Scheduler { next, room } => return self.take_scheduler(next, room, leftover),
            Change::Convert(takeover) => leftover.push(takeover),
            Change::Quantizer(place, next) => {
                leftover.push(Box::new(self.quantizers[place].replace(next)));
            }
            Change::Processor(place, next) => {
                let (name, slot) = &mut self.processors[place];
                match slot.replace(next) {
                    Ok(retired) => leftover.push(Box::new(retired)),
                    Err(refused) => {
                        leftover.push(Box::new(refused));
                        return Err(too_many_draining("logits-processor", name));
                    }
                }
            }
            Change::Strategy(place, next) => {
                let (name, slot) = &mut self.strategies[place];
                match slot.replace(next) {
                    Ok(retired) => leftover.push(Box::new(retired)),
                    Err(refused) => {
                        leftover.push(Box::new(refused));
                        return Err(too_many_draining("decoding-strategy", name));
                    }
                }
            }
        }
        Ok(())
    }

    fn take_plans(
        &mut self,
        plans: Vec<Arc<CompiledPlan>>,
        scratch: Option<AlignedBytes>,
        leftover: &mut Leftover,
    ) -> Result<(), SwapError> {
        for plan in plans {
            match self.plans.replace(plan) {
                Ok(retired) => leftover.push(Box::new(retired)),
                // Only a new generation is refused, and it comes alone.
                Err(refused) => {
                    leftover.push(Box::new(refused));
                    return Err(too_many_draining("plan", "plan"));
                }
            }
        }
        if let Some(larger) = scratch {
            self.shared.scratch_bytes.store(larger.as_slice().len(), Ordering::Relaxed);
            leftover.push(Box::new(std::mem::replace(&mut self.scratch, larger)));
        }
        Ok(())
    }

    /// Replaces the cache. Where sequences hold tokens, the old one's tables are handed over.
    fn take_cache(
        &mut self,
        mut next: Generation<dyn KvCache>,
        mut room: Vec<u8>,
        leftover: &mut Leftover,
    ) -> Result<(), SwapError> {
        let mut result = Ok(());
        if self.cache.get().usage().used > 0 {
            result = hand_over(self.cache.get_mut(), &mut *next.instance, &mut room);
            leftover.push(Box::new(room));
        }
        match result {
            Ok(()) => {
                leftover.push(Box::new(self.cache.replace(next)));
                self.sequences.iter_mut().for_each(|sequence| sequence.chain.unpublish());
            }
            Err(_) => leftover.push(Box::new(next)),
        }
        result
    }

    /// Replaces the scheduler. Another generation of the same plugin takes its state over, if both
    /// hand over: one of another name knows nothing of its bytes. What one holds that has failed is
    /// worth nothing, and must not keep its successor out.
    fn take_scheduler(
        &mut self,
        mut next: Generation<dyn Scheduler>,
        mut room: Vec<u8>,
        leftover: &mut Leftover,
    ) -> Result<(), SwapError> {
        let mut result = Ok(());
        let is_same = self.scheduler.label().name == next.label.name;
        if is_same && self.scheduler_faults.is_empty() {
            let ends = (self.scheduler.get_mut().handover(), next.instance.handover());
            if let (Some(from), Some(into)) = ends {
                result = pass_on("scheduler", from, into, &mut room);
            }
        }
        leftover.push(Box::new(room));
        match result {
            Ok(()) => {
                self.scheduler_faults.clear();
                leftover.push(Box::new(self.scheduler.replace(next)));
            }
            Err(_) => leftover.push(Box::new(next)),
        }
        result
    }

    /// Works out again what running requests are made by.
    fn update_digests(&mut self) {
        for place in 0..self.groups.end() {
            let Some(group) = self.groups.get(place) else { continue };
            let plan = self.plans.get(group.plan);
            let digest = self.digest_of(plan, &group.processors, group.strategy);
            if let Some(group) = self.groups.get_mut(place) {
                group.digest = digest;
            }
            self.update_seed(place);
        }
    }
}

/// Saves the tables of one cache and restores them in another of the same pool.
pub(super) fn hand_over(
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

fn too_many_draining(kind: &str, name: &str) -> SwapError {
    let slot = if kind == name { kind.to_owned() } else { format!("{kind}/{name}") };
    SwapError::TooManyDraining { slot, draining: DRAINING_MAX + 1, draining_max: DRAINING_MAX }
}
