//! Replacing memories while requests run: new requests get the new one, those that are there keep theirs.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use jackfield_runtime::{
    Bus, Clock, DRAINING_MAX, Generation, Label, Reach, Replacement, SlotStatus, SwapError,
    SwapTarget, Swapped, Topic,
};
use plugin_api::Kind;
use plugin_api::events::{AfterRollback, AfterSwap, BeforeSwap, Flow};
use plugin_api::kinds::memory::Memory;

use super::{MemorySlot, Shared};

/// Swaps the memories of a [`Memories`](super::Memories), from any thread.
pub struct MemorySwapper {
    shared: Weak<Shared>,
    clock: Arc<dyn Clock>,
    /// One swap at a time.
    topics: Mutex<Topics>,
}

struct Topics {
    before_swap: Topic<BeforeSwap<'static>>,
    after_swap: Topic<AfterSwap<'static>>,
    after_rollback: Topic<AfterRollback<'static>>,
}

impl MemorySwapper {
    pub(super) fn new(shared: &Arc<Shared>, bus: &Bus, clock: Arc<dyn Clock>) -> Self {
        let topics = Topics {
            before_swap: bus.topic(),
            after_swap: bus.topic(),
            after_rollback: bus.topic(),
        };
        Self { shared: Arc::downgrade(shared), clock, topics: Mutex::new(topics) }
    }

    /// Asks the hooks, puts the memory into its place, and tells.
    fn swap_one(
        &self,
        topics: &mut Topics,
        place: &MemorySlot,
        one: Replacement,
    ) -> Result<Swapped, SwapError> {
        let (start_us, name) = (self.clock.now_us(), one.name);
        let next = place.lock().active().label.next(&name);
        let (generation, lent) = (next.generation, PhantomData);
        topics.before_swap.refresh();
        let mut event = BeforeSwap { kind: KIND, name: &name, generation, lent };
        let done = match topics.before_swap.emit(&mut event) {
            Flow::Refuse => Err(SwapError::Vetoed { slot: path(place) }),
            _ => put(place, next, one.instance),
        };
        let prepare_us = self.clock.now_us().saturating_sub(start_us);
        let done = done.map(|swapped| Swapped { prepare_us, ..swapped });
        match &done {
            Ok(_) => {
                topics.after_swap.refresh();
                let mut event = AfterSwap {
                    kind: KIND,
                    name: &name,
                    generation,
                    is_mid_stream: false,
                    prepare_us,
                    wait_us: 0,
                    lent: PhantomData,
                };
                let _ = topics.after_swap.emit(&mut event);
            }
            Err(error) => {
                let reason = &*error.to_string();
                topics.after_rollback.refresh();
                let lent = PhantomData;
                let mut event = AfterRollback { kind: KIND, name: &name, generation, reason, lent };
                let _ = topics.after_rollback.emit(&mut event);
            }
        }
        done
    }
}

/// Puts a memory into its place; what it replaces ends here unless a request holds it.
fn put(
    place: &MemorySlot,
    next: Label,
    instance: Box<dyn Any + Send>,
) -> Result<Swapped, SwapError> {
    let wrong = |_| SwapError::WrongInstance { kind: KIND.to_owned(), name: next.name.clone() };
    let memory = *instance.downcast::<Box<dyn Memory>>().map_err(wrong)?;
    let replaced = place.lock().replace(Generation::new(next.clone(), memory));
    let Ok(retired) = replaced else {
        let slot = path(place);
        let draining = DRAINING_MAX + 1;
        return Err(SwapError::TooManyDraining { slot, draining, draining_max: DRAINING_MAX });
    };
    let retired = retired.map(|old| old.label);
    Ok(Swapped { retired, active: next, reach: Reach::NewRequests, prepare_us: 0, wait_us: 0 })
}

impl SwapTarget for MemorySwapper {
    /// Sets of one: memories know nothing of each other.
    fn swap_all(&self, set: Vec<Replacement>, _limit: Duration) -> Result<Vec<Swapped>, SwapError> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = || SwapError::Ended { slot: KIND.to_owned() };
        let shared = self.shared.upgrade().ok_or_else(ended)?;
        let mut places = Vec::with_capacity(set.len());
        for one in &set {
            let (kind, name) = one.slot.split_once('/').unwrap_or((&one.slot, &one.name));
            let place = shared.slots.iter().position(|slot| slot.name == name && kind == KIND);
            places.push(place.ok_or_else(|| SwapError::UnknownSlot {
                kind: kind.to_owned(),
                name: name.to_owned(),
                known: shared.slots.iter().map(path).collect(),
            })?);
        }
        if let [first, second, ..] = places[..] {
            let (slot, other) = (path(&shared.slots[first]), path(&shared.slots[second]));
            return Err(SwapError::Apart { slot, other });
        }
        let swapped = set.into_iter().zip(places);
        swapped.map(|(one, place)| self.swap_one(&mut topics, &shared.slots[place], one)).collect()
    }

    fn slots(&self) -> Vec<SlotStatus> {
        let Some(shared) = self.shared.upgrade() else { return Vec::new() };
        let status = |place: &MemorySlot| {
            let slot = place.lock();
            let requests = |it: &Generation<dyn Memory>| it.requests.load(Ordering::Relaxed);
            let earlier = slot.earlier().iter().map(|it| (it.label.clone(), requests(it)));
            SlotStatus {
                kind: KIND.to_owned(),
                slot: place.name.clone(),
                active: slot.active().label.clone(),
                requests: requests(slot.active()),
                draining: earlier.collect(),
                is_swapping: false,
            }
        };
        shared.slots.iter().map(status).collect()
    }
}

impl fmt::Debug for MemorySwapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySwapper").finish_non_exhaustive()
    }
}

fn path(place: &MemorySlot) -> String {
    format!("{KIND}/{}", place.name)
}

const KIND: &str = <dyn Memory>::NAME;
