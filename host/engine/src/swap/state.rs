//! What a swapper knows of an engine: slots, live plans, swaps under way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jackfield_runtime::{Label, Reach, Replacement, SlotStatus, SwapError, Swapped};

use super::book::Shared;
use crate::generate::plans::CompiledPlan;
use crate::model::adapter;
use crate::model::memory::StateLayout;

/// Where a slot stands in the list.
pub(super) type SlotIndex = usize;

/// Which slot of the engine is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Backend,
    /// The traced part that carries the kind's name.
    Traced,
    /// The weights of an adapter.
    Adapter,
    /// Which weights stand in for those of the model.
    Mask,
    Cache,
    Scheduler,
    /// The index among the processors; likewise below.
    Processor(usize),
    Strategy(usize),
    Parser(usize),
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
    outcomes: Vec<(u64, Outcome)>,
}

/// What came of a set, in its order.
pub(super) type Outcome = Result<Vec<Swapped>, SwapError>;

/// One of the slots that a set refills.
#[derive(Debug, Clone)]
pub(super) struct Member {
    index: SlotIndex,
    pub(super) kind: String,
    /// What the slot is called in errors.
    pub(super) path: String,
    pub(super) role: Role,
    pub(super) next: Label,
}

/// One set between its first question and its booking.
struct UnderWay {
    ticket: u64,
    members: Vec<Member>,
    /// Whether it replaces plans, too, whatever its slots are.
    takes_plans: bool,
    /// Set once it is offered.
    pending: Option<Pending>,
    /// Whether the caller still waits for the outcome.
    is_awaited: bool,
}

/// What becomes true when an offer is taken in.
pub(super) struct Pending {
    /// In the order of the set.
    pub(super) swapped: Vec<Swapped>,
    pub(super) offered_us: u64,
    /// Plans that take the place of their generation.
    pub(super) plans: Vec<Weak<CompiledPlan>>,
    /// How the cache's memory will lie, if otherwise than before.
    pub(super) layout: Option<Arc<StateLayout>>,
    /// Requests that will be pinned to each member; `None` where nothing is pinned.
    pub(super) requests: Vec<Option<Weak<AtomicUsize>>>,
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
        self.under_way.iter().any(|other| {
            other.members.iter().any(|member| member.index == slot)
                || (self.is_plan(slot) && other.replaces_plans())
        })
    }

    fn is_plan(&self, slot: SlotIndex) -> bool {
        self.slots[slot].role.is_plan()
    }

    /// Lets a swap of another slot replace plans, too.
    pub(super) fn claim_plans(&mut self, ticket: u64) -> Result<(), SwapError> {
        let mut others = self.under_way.iter().filter(|other| other.ticket != ticket);
        if let Some(other) = others.find(|other| other.replaces_plans()) {
            return Err(SwapError::Pending { slot: other.members[0].path.clone() });
        }
        if let Some(swap) = self.under_way.iter_mut().find(|swap| swap.ticket == ticket) {
            swap.takes_plans = true;
        }
        Ok(())
    }

    fn find(&self, slot: &str, name: &str) -> Result<SlotIndex, SwapError> {
        let (kind, name) = slot.split_once('/').unwrap_or((slot, name));
        let of_kind =
            |called: &str| self.slots.iter().position(|s| s.kind == kind && s.name == called);
        of_kind(name).or_else(|| of_kind(kind)).ok_or_else(|| SwapError::UnknownSlot {
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

    /// Applies what became of an offer and returns what to tell.
    pub(super) fn settle(
        &mut self,
        ticket: u64,
        result: Result<(), SwapError>,
        taken_us: u64,
    ) -> Option<(Vec<Member>, Outcome)> {
        let u = self.under_way.iter_mut().find(|u| u.ticket == ticket)?;
        let (members, pending) = (u.members.clone(), u.pending.take()?);
        let Pending { mut swapped, offered_us, plans, layout, requests } = pending;
        if let Err(error) = result {
            return Some((members, Err(error)));
        }
        for plan in plans {
            self.settle_plan(plan);
        }
        if let Some(layout) = layout {
            self.layout = layout;
        }
        for ((member, requests), swapped) in members.iter().zip(requests).zip(&mut swapped) {
            swapped.wait_us = taken_us.saturating_sub(offered_us);
            swapped.retired = self.settle_slot(member, requests);
        }
        Some((members, Ok(swapped)))
    }

    /// Fills a slot and returns what was in it, unless requests still hold that.
    fn settle_slot(
        &mut self,
        member: &Member,
        requests: Option<Weak<AtomicUsize>>,
    ) -> Option<Label> {
        let slot = &mut self.slots[member.index];
        let old = std::mem::replace(&mut slot.active, member.next.clone());
        slot.earlier.retain(|(_, requests)| requests.strong_count() > 0);
        let held = std::mem::replace(&mut slot.requests, requests);
        let mut is_held = held.as_ref().is_some_and(|requests| read(requests) > 0);
        slot.earlier.extend(held.map(|requests| (old.clone(), requests)));
        is_held |= self.held_parts(member.index).any(|(label, _)| label == old);
        (!is_held).then_some(old)
    }

    /// Parts of a slot that live plans were made of, but for the active one, and the requests that
    /// hold those plans.
    fn held_parts(&self, index: SlotIndex) -> impl Iterator<Item = (Label, usize)> {
        let slot = &self.slots[index];
        let plans = self.plans.iter().filter_map(Weak::upgrade);
        plans.filter_map(|plan| {
            let label = match slot.role {
                Role::Traced => plan.parts.get(&slot.kind)?.label.clone(),
                Role::Adapter => plan.companions.adapter.0.clone(),
                Role::Mask => plan.companions.precise.0.clone(),
                _ => return None,
            };
            let requests = plan.requests.load(Ordering::Relaxed);
            (label != slot.active && requests > 0).then_some((label, requests))
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
    pub(super) fn finish(&mut self, ticket: u64, outcome: Outcome) {
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

impl Role {
    /// Whether what fills the slot is a part of the plans.
    fn is_plan(self) -> bool {
        matches!(self, Self::Backend | Self::Traced | Self::Adapter | Self::Mask)
    }
}

impl UnderWay {
    fn replaces_plans(&self) -> bool {
        self.takes_plans || self.members.iter().any(|member| member.role.is_plan())
    }
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
    /// Reserves every slot of a set, waiting at most `limit` for earlier swaps that nobody took in.
    pub(super) fn reserve(
        &self,
        set: &[Replacement],
        limit: Duration,
    ) -> Result<(u64, Vec<Member>), SwapError> {
        // What a boundary has taken in is about to be booked: that wait is not the engine's.
        self.clerk.flush();
        let state = lock(&self.state);
        let mut slots: Vec<SlotIndex> = Vec::with_capacity(set.len());
        for Replacement { slot, name, .. } in set {
            let index = state.find(slot, name)?;
            if slots.contains(&index) {
                return Err(SwapError::Twice { slot: state.slots[index].path() });
            }
            slots.push(index);
        }
        let busy = |state: &State| slots.iter().copied().find(|&slot| state.is_busy(slot));
        let waiting = |state: &mut State| busy(state).is_some() && !state.has_ended;
        let (mut state, _) = self
            .booked
            .wait_timeout_while(state, limit, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        if state.has_ended {
            return Err(SwapError::Ended { slot: state.slots[slots[0]].path() });
        }
        if let Some(slot) = busy(&state) {
            return Err(SwapError::Pending { slot: state.slots[slot].path() });
        }
        let member = |(&index, replacement): (&SlotIndex, &Replacement)| {
            let slot = &state.slots[index];
            let (kind, path, next) =
                (slot.kind.clone(), slot.path(), slot.active.next(&replacement.name));
            Member { index, kind, path, role: slot.role, next }
        };
        let members: Vec<Member> = slots.iter().zip(set).map(member).collect();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.under_way.push(UnderWay {
            ticket,
            members: members.clone(),
            takes_plans: false,
            pending: None,
            is_awaited: true,
        });
        Ok((ticket, members))
    }

    /// Ends a swap that was never offered.
    pub(super) fn give_up(&self, ticket: u64) {
        lock(&self.state).under_way.retain(|u| u.ticket != ticket);
        self.booked.notify_all();
    }

    /// Waits for the outcome of an offer.
    pub(super) fn wait(&self, ticket: u64, offered: Vec<Swapped>, limit: Duration) -> Outcome {
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
        let waits = |swapped| Swapped { retired: None, reach: Reach::NextBoundary, ..swapped };
        Ok(offered.into_iter().map(waits).collect())
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
        let all = (0..state.slots.len()).map(|index| (index, state.status(index, running)));
        // Nobody looks for adapters where there is none.
        let is_empty = |index: usize, status: &SlotStatus| {
            let is_none = status.active.name == adapter::name_of(None);
            state.slots[index].role == Role::Adapter && is_none && status.draining.is_empty()
        };
        all.filter(|(index, status)| !is_empty(*index, status)).map(|(_, status)| status).collect()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
