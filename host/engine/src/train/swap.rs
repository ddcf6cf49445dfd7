//! Replacing optimizer, schedule or objective while a run goes on.
//!
//! Everything slow happens in the thread that asks: it describes, compiles and compares. Then an offer lies
//! ready, which the next step takes in before it begins.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jackfield_runtime::{
    Bus, Clock, Label, Reach, Replacement, SlotStatus, SwapError, SwapTarget, Swapped, Topic,
};
use plugin_api::events::{AfterRollback, AfterSwap, BeforeSwap, Flow};
use plugin_api::plan::Plan;
use plugin_api::{Backend, Kind, LrSchedule, Objective, Optimizer};

use super::compiled::Compiled;
use super::measures::Measures;
use super::parameters::Parameters;
use super::plans;
use super::trainer::{TrainOptions, sizes};
use super::updates::{StateLayout, UpdatePlans};
use crate::error::EngineError;
use crate::model::Architecture;

/// What plans of training are made from.
pub(super) struct Core {
    pub(super) architecture: Architecture,
    /// Names and shapes only.
    pub(super) shapes: Parameters,
    /// Of the model as it serves.
    pub(super) logits: Plan,
    /// The model as it learns.
    pub(super) learner: plans::Learner,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) options: TrainOptions,
}

/// What an objective makes of the model.
pub(super) struct Objected {
    pub(super) forward_backward: Compiled,
    pub(super) measures: Measures,
}

impl Core {
    pub(super) fn objective(&self, objective: &dyn Objective) -> Result<Objected, EngineError> {
        let loss = plans::loss(&self.logits, objective)?;
        let plan = self.learner.backward(objective, &self.shapes)?;
        let TrainOptions { tokens_max, num_seqs_max, .. } = self.options;
        let sizes = sizes(tokens_max, num_seqs_max);
        let forward_backward = Compiled::new(plan, &sizes, &self.backend)?;
        let measures = Measures::new(loss, self.logits.clone());
        Ok(Objected { forward_backward, measures })
    }

    pub(super) fn updates(&self, optimizer: &dyn Optimizer) -> Result<UpdatePlans, EngineError> {
        UpdatePlans::new(optimizer, &self.shapes, &self.backend)
    }

    pub(super) fn schedule(&self, schedule: &dyn LrSchedule) -> Result<Compiled, EngineError> {
        let plan = plans::schedule(schedule, self.options.num_steps);
        Compiled::new(plan.map_err(EngineError::plugin("lr-schedule"))?, &[], &self.backend)
    }
}

/// What a trainer and those who swap its parts share.
pub(super) struct Shared {
    pub(super) core: Core,
    /// What fills each slot, in the order of [`SLOTS`].
    active: Mutex<[Label; 3]>,
    /// What the optimizer keeps.
    layout: Mutex<StateLayout>,
    offer: Mutex<Option<Offer>>,
    has_offer: AtomicBool,
    taken: Condvar,
}

/// Parts that are ready for the next step.
#[derive(Default)]
pub(super) struct Offer {
    pub(super) objective: Option<Objected>,
    pub(super) updates: Option<UpdatePlans>,
    pub(super) schedule: Option<Compiled>,
    /// Which slots are refilled with what.
    pub(super) labels: Vec<(usize, Label)>,
    prepare_us: u64,
    since_us: u64,
}

impl Shared {
    pub(super) fn new(core: Core, names: [String; 3], layout: StateLayout) -> Self {
        Self {
            core,
            active: Mutex::new(names.map(|name| Label::first(&name))),
            layout: Mutex::new(layout),
            offer: Mutex::new(None),
            has_offer: AtomicBool::new(false),
            taken: Condvar::new(),
        }
    }

    /// What waits for this boundary, if anything does.
    pub(super) fn take(&self) -> Option<Offer> {
        if !self.has_offer.load(Ordering::Acquire) {
            return None;
        }
        let offer = lock(&self.offer).take();
        self.has_offer.store(false, Ordering::Release);
        if let Some(offer) = &offer {
            let mut active = lock(&self.active);
            offer.labels.iter().for_each(|(slot, label)| active[*slot] = label.clone());
            if let Some(updates) = &offer.updates {
                *lock(&self.layout) = updates.layout(&self.core.shapes);
            }
        }
        self.taken.notify_all();
        offer
    }
}

impl Offer {
    /// Tells that it was taken in.
    pub(super) fn tell(&self, after_swap: &mut Topic<AfterSwap<'static>>, now_us: u64) {
        for (slot, label) in &self.labels {
            let mut event = AfterSwap {
                kind: SLOTS[*slot],
                name: &label.name,
                generation: label.generation,
                is_mid_stream: true,
                prepare_us: self.prepare_us,
                wait_us: now_us.saturating_sub(self.since_us),
                lent: PhantomData,
            };
            let _ = after_swap.emit(&mut event);
        }
    }
}

/// Swaps parts of a [`Trainer`](super::Trainer) between two of its steps, from any thread.
pub struct TrainSwapper {
    shared: Weak<Shared>,
    clock: Arc<dyn Clock>,
    /// One swap at a time.
    topics: Mutex<Topics>,
}

struct Topics {
    before_swap: Topic<BeforeSwap<'static>>,
    after_rollback: Topic<AfterRollback<'static>>,
}

impl TrainSwapper {
    pub(super) fn new(shared: &Arc<Shared>, bus: &Bus, clock: Arc<dyn Clock>) -> Self {
        let topics = Topics { before_swap: bus.topic(), after_rollback: bus.topic() };
        Self { shared: Arc::downgrade(shared), clock, topics: Mutex::new(topics) }
    }

    /// Describes, compiles and compares all of a set.
    fn prepare(
        &self,
        shared: &Shared,
        set: Vec<(usize, Replacement)>,
        labels: &[(usize, Label)],
    ) -> Result<Offer, SwapError> {
        let start_us = self.clock.now_us();
        let mut offer = Offer { labels: labels.to_vec(), ..Offer::default() };
        for (slot, Replacement { name, instance, .. }) in set {
            let refused = |error| refused(SLOTS[slot], error);
            match slot {
                OBJECTIVE => {
                    let objective: Box<dyn Objective> = instance_of(&name, instance)?;
                    offer.objective = Some(shared.core.objective(&*objective).map_err(refused)?);
                }
                OPTIMIZER => {
                    let optimizer: Box<dyn Optimizer> = instance_of(&name, instance)?;
                    let updates = shared.core.updates(&*optimizer).map_err(refused)?;
                    let layout = updates.layout(&shared.core.shapes);
                    check_states(&lock(&shared.layout), &layout)?;
                    offer.updates = Some(updates);
                }
                _ => {
                    let schedule: Box<dyn LrSchedule> = instance_of(&name, instance)?;
                    offer.schedule = Some(shared.core.schedule(&*schedule).map_err(refused)?);
                }
            }
        }
        offer.since_us = self.clock.now_us();
        offer.prepare_us = offer.since_us - start_us;
        Ok(offer)
    }

    /// Asks the hooks, prepares, and leaves the offer.
    fn offer(
        &self,
        topics: &mut Topics,
        shared: &Shared,
        set: Vec<(usize, Replacement)>,
        labels: &[(usize, Label)],
    ) -> Result<u64, SwapError> {
        if let Some((slot, _)) = labels.first()
            && shared.has_offer.load(Ordering::Acquire)
        {
            return Err(SwapError::Pending { slot: SLOTS[*slot].to_owned() });
        }
        topics.before_swap.refresh();
        for (slot, Label { name, generation }) in labels {
            let (kind, generation, lent) = (SLOTS[*slot], *generation, PhantomData);
            let mut event = BeforeSwap { kind, name, generation, lent };
            if topics.before_swap.emit(&mut event) == Flow::Refuse {
                return Err(SwapError::Vetoed { slot: kind.to_owned() });
            }
        }
        let offer = self.prepare(shared, set, labels)?;
        let prepare_us = offer.prepare_us;
        *lock(&shared.offer) = Some(offer);
        shared.has_offer.store(true, Ordering::Release);
        Ok(prepare_us)
    }
}

impl SwapTarget for TrainSwapper {
    fn swap_all(&self, set: Vec<Replacement>, limit: Duration) -> Result<Vec<Swapped>, SwapError> {
        let mut topics = lock(&self.topics);
        let ended = || SwapError::Ended { slot: SLOTS.join(", ") };
        let shared = self.shared.upgrade().ok_or_else(ended)?;
        let set: Result<Vec<_>, _> =
            set.into_iter().map(|one| Ok((slot_of(&one.slot)?, one))).collect();
        let set: Vec<(usize, Replacement)> = set?;
        let active = lock(&shared.active).clone();
        let mut labels: Vec<(usize, Label)> = Vec::new();
        for (slot, Replacement { name, .. }) in &set {
            if labels.iter().any(|(other, _)| other == slot) {
                return Err(SwapError::Twice { slot: SLOTS[*slot].to_owned() });
            }
            labels.push((*slot, active[*slot].next(name)));
        }
        let prepare_us = match self.offer(&mut topics, &shared, set, &labels) {
            Ok(prepare_us) => prepare_us,
            Err(error) => {
                let reason = error.to_string();
                topics.after_rollback.refresh();
                for (slot, Label { name, generation }) in &labels {
                    let (kind, generation, lent) = (SLOTS[*slot], *generation, PhantomData);
                    let mut event = AfterRollback { kind, name, generation, reason: &reason, lent };
                    let _ = topics.after_rollback.emit(&mut event);
                }
                return Err(error);
            }
        };
        let begin = self.clock.now_us();
        let waits = shared.taken.wait_timeout_while(lock(&shared.offer), limit, |o| o.is_some());
        let is_taken = waits.unwrap_or_else(PoisonError::into_inner).0.is_none();
        let reach = if is_taken { Reach::MidStream } else { Reach::NextBoundary };
        let wait_us = self.clock.now_us() - begin;
        let swapped = labels.into_iter().map(|(slot, label)| {
            let retired = is_taken.then(|| active[slot].clone());
            Swapped { retired, active: label, reach, prepare_us, wait_us }
        });
        Ok(swapped.collect())
    }

    fn slots(&self) -> Vec<SlotStatus> {
        let Some(shared) = self.shared.upgrade() else { return Vec::new() };
        let is_swapping = shared.has_offer.load(Ordering::Acquire);
        let active = lock(&shared.active).clone();
        let status = |(kind, active): (&str, Label)| SlotStatus {
            kind: kind.to_owned(),
            slot: kind.to_owned(),
            active,
            requests: 0,
            draining: Vec::new(),
            is_swapping,
        };
        SLOTS.into_iter().zip(active).map(status).collect()
    }
}

impl fmt::Debug for TrainSwapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainSwapper").finish_non_exhaustive()
    }
}

/// States are handed over as they are: the new optimizer has to keep the same.
fn check_states(kept: &StateLayout, wanted: &StateLayout) -> Result<(), SwapError> {
    if kept == wanted {
        return Ok(());
    }
    let said = |layout: &StateLayout| {
        let name = kept.keys().find(|name| kept.get(*name) != wanted.get(*name));
        let states = name.and_then(|name| Some((name, layout.get(name)?)));
        states.map_or_else(String::new, |(name, states)| format!("{states:?} beside `{name}`"))
    };
    Err(SwapError::Differs {
        slot: SLOTS[OPTIMIZER].to_owned(),
        what: "states of the optimizer".to_owned(),
        expected: said(kept),
        found: said(wanted),
    })
}

fn instance_of<K: Kind + ?Sized>(
    name: &str,
    instance: Box<dyn Any + Send>,
) -> Result<Box<K>, SwapError> {
    let wrong = |_| SwapError::WrongInstance { kind: K::NAME.to_owned(), name: name.to_owned() };
    instance.downcast::<Box<K>>().map(|instance| *instance).map_err(wrong)
}

fn slot_of(slot: &str) -> Result<usize, SwapError> {
    let (kind, name) = slot.split_once('/').unwrap_or((slot, slot));
    let found = SLOTS.iter().position(|known| *known == kind && kind == name);
    found.ok_or_else(|| SwapError::UnknownSlot {
        kind: kind.to_owned(),
        name: name.to_owned(),
        known: SLOTS.map(str::to_owned).to_vec(),
    })
}

fn refused(slot: &str, error: EngineError) -> SwapError {
    let slot = slot.to_owned();
    match error {
        EngineError::Plugin { what, source } => SwapError::Plugin { slot, what, source },
        EngineError::Inconsistent { what, expected, found } => {
            SwapError::Differs { slot, what, expected, found }
        }
        other => SwapError::Differs {
            slot,
            what: "plan".to_owned(),
            expected: "one that training runs".to_owned(),
            found: other.to_string(),
        },
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Each called as its kind.
pub(super) const SLOTS: [&str; 3] =
    [<dyn Objective>::NAME, <dyn Optimizer>::NAME, <dyn LrSchedule>::NAME];
const OBJECTIVE: usize = 0;
const OPTIMIZER: usize = 1;
