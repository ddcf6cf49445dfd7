//! Replacing the plugin that describes an encoder, while requests run.
//!
//! Everything slow happens in the thread that asks. Then one pointer changes: requests that come
//! after get the new plan, those that are there keep theirs.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jackfield_runtime::{
    Bus, Clock, DRAINING_MAX, Label, Reach, Replacement, SlotStatus, SwapError, SwapTarget,
    Swapped, Topic,
};
use plugin_api::events::{AfterRollback, AfterSwap, BeforeSwap, Flow};
use plugin_api::{Encoder, Kind};

use super::embedder::Shared;
use super::model::EncoderPlan;
use crate::error::EngineError;

/// Swaps the encoder of an [`Embedder`](super::Embedder), from any thread.
pub struct EncoderSwapper {
    shared: Weak<Shared>,
    clock: Arc<dyn Clock>,
    /// One swap at a time.
    state: Mutex<State>,
}

struct State {
    /// Plans that may still have jobs, oldest first.
    earlier: Vec<Weak<EncoderPlan>>,
    before_swap: Topic<BeforeSwap<'static>>,
    after_swap: Topic<AfterSwap<'static>>,
    after_rollback: Topic<AfterRollback<'static>>,
}

impl EncoderSwapper {
    pub(super) fn new(shared: &Arc<Shared>, bus: &Bus, clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::new(State {
            earlier: Vec::new(),
            before_swap: bus.topic(),
            after_swap: bus.topic(),
            after_rollback: bus.topic(),
        });
        Self { shared: Arc::downgrade(shared), clock, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Describes and compiles, and puts the new plan into its place.
    fn put(
        &self,
        shared: &Shared,
        state: &mut State,
        next: &Label,
        instance: Box<dyn Any + Send>,
    ) -> Result<Swapped, SwapError> {
        state.earlier.retain(|plan| plan.strong_count() > 0);
        // The slot's own and this one are not of jobs.
        let is_busy = Arc::strong_count(&shared.active()) > 2;
        let draining = state.earlier.len() + usize::from(is_busy);
        if draining > DRAINING_MAX {
            let slot = SLOT.to_owned();
            return Err(SwapError::TooManyDraining { slot, draining, draining_max: DRAINING_MAX });
        }
        let start_us = self.clock.now_us();
        let wrong = |_| SwapError::WrongInstance { kind: SLOT.to_owned(), name: next.name.clone() };
        let encoder = instance.downcast::<Box<dyn Encoder>>().map_err(wrong)?;
        let plan = shared.core.describe(next.clone(), &**encoder).map_err(refused)?;
        let prepare_us = self.clock.now_us() - start_us;
        let mut active = shared.active.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *active, Arc::new(plan));
        drop(active);
        let retired = old.label.clone();
        let waits = Arc::downgrade(&old);
        // Dropped here, unless jobs have it: then by the last of them.
        drop(old);
        let is_gone = waits.strong_count() == 0;
        if !is_gone {
            state.earlier.push(waits);
        }
        Ok(Swapped {
            retired: is_gone.then_some(retired),
            active: next.clone(),
            reach: Reach::NewRequests,
            prepare_us,
            wait_us: 0,
        })
    }

    /// Asks the hooks, puts the encoder into its place, and tells.
    fn swap_one(&self, name: &str, instance: Box<dyn Any + Send>) -> Result<Swapped, SwapError> {
        let kind = SLOT;
        let ended = || SwapError::Ended { slot: SLOT.to_owned() };
        let mut state = self.state();
        let shared = self.shared.upgrade().ok_or_else(ended)?;
        let next = shared.active().label.next(name);
        let (generation, lent) = (next.generation, PhantomData);
        state.before_swap.refresh();
        let mut event = BeforeSwap { kind, name, generation, lent };
        let done = match state.before_swap.emit(&mut event) {
            Flow::Refuse => Err(SwapError::Vetoed { slot: SLOT.to_owned() }),
            _ => self.put(&shared, &mut state, &next, instance),
        };
        match &done {
            Ok(swapped) => {
                let (prepare_us, wait_us) = (swapped.prepare_us, swapped.wait_us);
                let is_mid_stream = false;
                state.after_swap.refresh();
                let mut event = AfterSwap {
                    kind,
                    name,
                    generation,
                    is_mid_stream,
                    prepare_us,
                    wait_us,
                    lent: PhantomData,
                };
                let _ = state.after_swap.emit(&mut event);
            }
            Err(error) => {
                let reason = error.to_string();
                state.after_rollback.refresh();
                let mut event =
                    AfterRollback { kind, name, generation, reason: &reason, lent: PhantomData };
                let _ = state.after_rollback.emit(&mut event);
            }
        }
        done
    }
}

impl SwapTarget for EncoderSwapper {
    fn swap_all(&self, set: Vec<Replacement>, _limit: Duration) -> Result<Vec<Swapped>, SwapError> {
        for Replacement { slot, .. } in &set {
            let (kind, of_kind) = slot.split_once('/').unwrap_or((slot, slot));
            if (kind, of_kind) != (SLOT, SLOT) {
                let (kind, name) = (kind.to_owned(), of_kind.to_owned());
                return Err(SwapError::UnknownSlot { kind, name, known: vec![SLOT.to_owned()] });
            }
        }
        if set.len() > 1 {
            return Err(SwapError::Twice { slot: SLOT.to_owned() });
        }
        let swapped = set.into_iter().map(|one| self.swap_one(&one.name, one.instance));
        swapped.collect()
    }

    fn slots(&self) -> Vec<SlotStatus> {
        let Some(shared) = self.shared.upgrade() else { return Vec::new() };
        let active = shared.active();
        // All but the slot's own and the one just taken are held by jobs.
        let requests = Arc::strong_count(&active).saturating_sub(2);
        let state = self.state();
        let earlier = state.earlier.iter().filter_map(Weak::upgrade);
        let draining = earlier.map(|plan| (plan.label.clone(), Arc::strong_count(&plan) - 1));
        vec![SlotStatus {
            kind: SLOT.to_owned(),
            slot: SLOT.to_owned(),
            active: active.label.clone(),
            requests,
            draining: draining.collect(),
            is_swapping: false,
        }]
    }
}

impl fmt::Debug for EncoderSwapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncoderSwapper").finish_non_exhaustive()
    }
}

fn refused(error: EngineError) -> SwapError {
    let slot = SLOT.to_owned();
    match error {
        EngineError::Plugin { what, source } => SwapError::Plugin { slot, what, source },
        EngineError::Inconsistent { what, expected, found } => {
            SwapError::Differs { slot, what, expected, found }
        }
        other => SwapError::Differs {
            slot,
            what: "plan".to_owned(),
            expected: "one that the encoder runs".to_owned(),
            found: other.to_string(),
        },
    }
}

/// The one slot, called as its kind.
const SLOT: &str = <dyn Encoder>::NAME;
