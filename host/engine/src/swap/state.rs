//! What a swapper knows of an engine: slots, live plans, swaps under way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jackfield_runtime::{Label, Reach, SlotStatus, SwapError, Swapped};

use super::book::Shared;
use crate::generate::plans::CompiledPlan;
use crate::model::memory::StateLayout;

/// Where a slot stands in the list.
pub(super) type SlotIndex = usize;

/// Which slot of the engine is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Backend,
    /// The traced part that carries the kind's name.
    Traced,
    Cache,
    Scheduler,
    /// The index among the processors; likewise below.
    Processor(usize),
    Strategy(usize),
    Quantizer(usize),
}

/// What fills a slot.
pub(crate) struct SlotState {
    pub(crate) kind: String,
    /// The name among slots of its kind; the kind where there is only one.
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) active: Label,
    /// Requests pinned to the active generation; `None` where nothing is pinned.
    pub(crate) requests: Option<Weak<AtomicUsize>>,
    /// Earlier generations, which are gone once nobody counts their requests.
    pub(crate) earlier: Vec<(Label, Weak<AtomicUsize>)>,
}

/// Everything that swappers share, behind one lock that no step takes.
pub(crate) struct State {
    pub(crate) slots: Vec<SlotState>,
    /// How the cache's memory lies.
    pub(crate) layout: Arc<StateLayout>,
    /// Live plan generations, oldest first; the engine owns them.
    pub(crate) plans: Vec<Weak<CompiledPlan>>,
    /// Plan generations so far.
    pub(crate) num_plans: u32,
    /// The engine is gone.
    pub(crate) has_ended: bool,
    next_ticket: u64,
    under_way: Vec<UnderWay>,
    /// What came of swaps that somebody waits for.
    outcomes: Vec<(u64, Result<Swapped, SwapError>)>,
}

/// One swap between its first question and its booking.
struct UnderWay {
    ticket: u64,
    slot: SlotIndex,
    /// Whether it replaces plans, too, whatever its slot is.
    takes_plans: bool,
    /// Set once it is offered.
    pending: Option<Pending>,
    /// Whether the caller still waits for the outcome.
    is_awaited: bool,
}

/// What becomes true when an offer is taken in.
pub(super) struct Pending {
    pub(super) swapped: Swapped,
    pub(super) offered_us: u64,
    /// Plans that take the place of their generation.
    pub(super) plans: Vec<Weak<CompiledPlan>>,
    /// How the cache's memory will lie, if otherwise than before.
    pub(super) layout: Option<Arc<StateLayout>>,
    /// Requests that will be pinned to it.
    pub(super) requests: Option<Weak<AtomicUsize>>,
}

impl State {
    pub(crate) fn new(
        slots: Vec<SlotState>,
        plan: &Arc<CompiledPlan>,
        layout: &Arc<StateLayout>,
    ) -> Self {
        Self {
            slots,
            layout: Arc::clone(layout),
            plans: vec![Arc::downgrade(plan)],
            num_plans: plan.generation,
            has_ended: false,
            next_ticket: 1,
            under_way: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    /// Whether a swap of this slot, or of one that has to fit to it, is under way.
    fn is_busy(&self, slot: SlotIndex) -> bool {
        self.under_way
            .iter()
            .any(|other| other.slot == slot || (self.is_plan(slot) && self.replaces_plans(other)))
    }

    fn is_plan(&self, slot: SlotIndex) -> bool {
        matches!(self.slots[slot].role, Role::Backend | Role::Traced)
    }

    fn replaces_plans(&self, swap: &UnderWay) -> bool {
        swap.takes_plans || self.is_plan(swap.slot)
    }

    /// Lets a swap of another slot replace plans, too.
    pub(super) fn claim_plans(&mut self, ticket: u64) -> Result<(), SwapError> {
        if let Some(other) = self.under_way.iter().find(|other| self.replaces_plans(other)) {
            return Err(SwapError::Pending { slot: self.slots[other.slot].path() });
        }
        if let Some(swap) = self.under_way.iter_mut().find(|swap| swap.ticket == ticket) {
            swap.takes_plans = true;
        }
        Ok(())
    }

    fn find(&self, slot: &str, name: &str) -> Result<SlotIndex, SwapError> {
        let (kind, name) = slot.split_once('/').unwrap_or((slot, name));
        let is_it = |s: &SlotState| s.kind == kind && (s.name == name || s.name == s.kind);
        self.slots.iter().position(is_it).ok_or_else(|| SwapError::UnknownSlot {
            kind: kind.to_owned(),
            name: name.to_owned(),
            known: self.slots.iter().map(SlotState::path).collect(),
        })
    }

    /// Notes that the swap waits for a boundary.
    pub(super) fn offered(&mut self, ticket: u64, pending: Pending) {
        if let Some(u) = self.under_way.iter_mut().find(|u| u.ticket == ticket) {
            u.pending = Some(pending);
        }
    }

    /// Applies what became of an offer and returns what to tell: the slot, and what to call it.
    pub(super) fn settle(
        &mut self,
        ticket: u64,
        result: Result<(), SwapError>,
        taken_us: u64,
    ) -> Option<(SlotIndex, Label, Result<Swapped, SwapError>)> {
        let u = self.under_way.iter_mut().find(|u| u.ticket == ticket)?;
        let (index, pending) = (u.slot, u.pending.take()?);
        let Pending { mut swapped, offered_us, plans, layout, requests } = pending;
        swapped.wait_us = taken_us.saturating_sub(offered_us);
        let next = swapped.active.clone();
        if let Err(error) = result {
            return Some((index, next, Err(error)));
        }
        for plan in plans {
            self.settle_plan(plan);
        }
        if let Some(layout) = layout {
            self.layout = layout;
        }
        let slot = &mut self.slots[index];
        let old = std::mem::replace(&mut slot.active, next.clone());
        slot.earlier.retain(|(_, requests)| requests.strong_count() > 0);
        let held = std::mem::replace(&mut slot.requests, requests);
        let mut is_held = held.as_ref().is_some_and(|requests| read(requests) > 0);
        slot.earlier.extend(held.map(|requests| (old.clone(), requests)));
        is_held |= self.held_parts(index).any(|(label, _)| label == old);
        swapped.retired = (!is_held).then_some(old);
        Some((index, next, Ok(swapped)))
    }

    /// Parts of a slot that live plans were made of, but for the active one, and the requests that
    /// hold those plans.
    fn held_parts(&self, index: SlotIndex) -> impl Iterator<Item = (Label, usize)> {
        let slot = &self.slots[index];
        let plans = self.plans.iter().filter_map(Weak::upgrade);
        plans.filter_map(|plan| {
            let part = plan.parts.get(&slot.kind).filter(|_| slot.role == Role::Traced)?;
            let requests = plan.requests.load(Ordering::Relaxed);
            (part.label != slot.active && requests > 0).then(|| (part.label.clone(), requests))
        })
    }

    fn settle_plan(&mut self, next: Weak<CompiledPlan>) {
        let Some(plan) = next.upgrade() else { return };
        // A plan that was replaced is alive until it is dropped, after this booking.
        let place = self
            .plans
            .iter_mut()
            .find(|old| old.upgrade().is_some_and(|old| old.generation == plan.generation));
        match place {
            Some(place) => *place = next,
            None => self.plans.push(next),
        }
        self.num_plans = self.num_plans.max(plan.generation);
    }

    /// Ends a swap; its caller finds the outcome if it still waits.
    pub(super) fn finish(&mut self, ticket: u64, outcome: Result<Swapped, SwapError>) {
        let Some(place) = self.under_way.iter().position(|u| u.ticket == ticket) else { return };
        if self.under_way.swap_remove(place).is_awaited {
            self.outcomes.push((ticket, outcome));
        }
    }

    fn status(&self, index: SlotIndex, running: usize) -> SlotStatus {
        let slot = &self.slots[index];
        let earlier = slot.earlier.iter().map(|(label, requests)| (label.clone(), read(requests)));
        let draining: Vec<(Label, usize)> =
            earlier.filter(|(_, n)| *n > 0).chain(self.held_parts(index)).collect();
        let elsewhere: usize = self.held_parts(index).map(|(_, n)| n).sum();
        SlotStatus {
            kind: slot.kind.clone(),
            slot: slot.name.clone(),
            active: slot.active.clone(),
            requests: slot.requests.as_ref().map_or(running.saturating_sub(elsewhere), read),
            draining,
            is_swapping: self.is_busy(index),
        }
    }
}

fn read(requests: &Weak<AtomicUsize>) -> usize {
    requests.upgrade().map_or(0, |requests| requests.load(Ordering::Relaxed))
}

impl SlotState {
    /// A slot whose generations serve everybody at a time.
    pub(crate) fn shared(kind: &str, name: &str, role: Role, active: Label) -> Self {
        let (kind, name) = (kind.to_owned(), name.to_owned());
        Self { kind, name, role, active, requests: None, earlier: Vec::new() }
    }

    fn path(&self) -> String {
        if self.name == self.kind {
            self.kind.clone()
        } else {
            format!("{}/{}", self.kind, self.name)
        }
    }
}

impl Shared {
    /// Reserves a slot for a swap, waiting at most `limit` for an earlier one that nobody took in.
    pub(super) fn reserve(
        &self,
        slot: &str,
        name: &str,
        limit: Duration,
    ) -> Result<(SlotIndex, u64, Label), SwapError> {
        // What a boundary has taken in is about to be booked: that wait is not the engine's.
        self.clerk.flush();
        let state = lock(&self.state);
        let slot = state.find(slot, name)?;
        let waiting = |state: &mut State| state.is_busy(slot) && !state.has_ended;
        let (mut state, _) = self
            .booked
            .wait_timeout_while(state, limit, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        let path = state.slots[slot].path();
        if state.has_ended {
            return Err(SwapError::Ended { slot: path });
        }
        if state.is_busy(slot) {
            return Err(SwapError::Pending { slot: path });
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.under_way.push(UnderWay {
            ticket,
            slot,
            takes_plans: false,
            pending: None,
            is_awaited: true,
        });
        let next = state.slots[slot].active.next(name);
        Ok((slot, ticket, next))
    }

    /// Ends a swap that was never offered.
    pub(super) fn give_up(&self, ticket: u64) {
        lock(&self.state).under_way.retain(|u| u.ticket != ticket);
        self.booked.notify_all();
    }

    /// Waits for the outcome of an offer.
    pub(super) fn wait(
        &self,
        ticket: u64,
        offered: Swapped,
        limit: Duration,
    ) -> Result<Swapped, SwapError> {
        let is_open = |state: &mut State| state.outcomes.iter().all(|(t, _)| *t != ticket);
        let (mut state, _) = self
            .booked
            .wait_timeout_while(lock(&self.state), limit, is_open)
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = state.outcomes.iter().position(|(t, _)| *t == ticket) {
            return state.outcomes.swap_remove(place).1;
        }
        if let Some(u) = state.under_way.iter_mut().find(|u| u.ticket == ticket) {
            u.is_awaited = false;
        }
        Ok(Swapped { retired: None, reach: Reach::NextBoundary, ..offered })
    }

    /// Kind and path of a slot.
    pub(super) fn slot(&self, index: SlotIndex) -> (String, String) {
        let state = lock(&self.state);
        (state.slots[index].kind.clone(), state.slots[index].path())
    }

    /// The live plans, oldest first; none if the engine is gone.
    pub(super) fn live_plans(&self) -> Vec<Arc<CompiledPlan>> {
        let mut state = lock(&self.state);
        state.plans.retain(|plan| plan.strong_count() > 0);
        let mut plans: Vec<_> = state.plans.iter().filter_map(Weak::upgrade).collect();
        plans.sort_by_key(|plan| plan.generation);
        plans
    }

    pub(super) fn status(&self) -> Vec<SlotStatus> {
        self.clerk.flush();
        let running = self.running.load(Ordering::Relaxed);
        let state = lock(&self.state);
        (0..state.slots.len()).map(|index| state.status(index, running)).collect()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
