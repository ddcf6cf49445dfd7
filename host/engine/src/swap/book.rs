//! What came of offers: noted by the step thread, booked off it.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Condvar, Mutex, OnceLock, Weak};

use jackfield_runtime::{Backstage, Bus, Clock, Label, Mailbox, Reach, SwapError, Swapped, Topic};
use plugin_api::events::{AfterRollback, AfterSwap, BeforeSwap, Flow};
use plugin_api::{FormatDesc, Lowering, Tokens};

use super::change::Offer;
use super::state::{Member, State, lock};
use crate::model::LoadedModel;
use crate::wiring::Hosts;

/// What an engine shares with its swappers.
pub(crate) struct Shared {
    /// The engine's: a swapper that outlives it keeps no weights.
    pub(super) model: Weak<LoadedModel>,
    /// What plugins are lent of the host, and the tokens of the model.
    pub(super) hosts: (Hosts, Arc<dyn Tokens>),
    /// Format and lowering of each quantizer that weights were packed with.
    pub(super) quantized: Vec<(FormatDesc, Lowering)>,
    pub(crate) mailbox: Mailbox<Offer>,
    pub(super) state: Mutex<State>,
    /// Told whenever a swap ends.
    pub(super) booked: Condvar,
    pub(super) topics: Mutex<SwapTopics>,
    pub(super) clock: Arc<dyn Clock>,
    /// Books what came of offers.
    pub(super) clerk: Backstage,
    /// Drops plugins, which may take their time.
    pub(crate) reaper: Backstage,
    /// Requests that are not answered yet.
    pub(crate) running: AtomicUsize,
    /// Bytes of scratch memory that the engine has.
    pub(crate) scratch_bytes: AtomicUsize,
    pub(super) waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// The emitting ends of the topics of swaps.
pub(crate) struct SwapTopics {
    pub(super) before_swap: Topic<BeforeSwap<'static>>,
    pub(super) after_swap: Topic<AfterSwap<'static>>,
    pub(super) after_rollback: Topic<AfterRollback<'static>>,
}

impl SwapTopics {
    pub(crate) fn of(bus: &Bus) -> Self {
        Self { before_swap: bus.topic(), after_swap: bus.topic(), after_rollback: bus.topic() }
    }

    /// Asks the hooks about every member of a set.
    ///
    /// # Errors
    ///
    /// [`SwapError::Vetoed`] for the first that one of them refuses.
    pub(super) fn ask(&mut self, members: &[Member]) -> Result<(), SwapError> {
        self.before_swap.refresh();
        for Member { kind, path, next, .. } in members {
            let (name, generation, lent) = (&*next.name, next.generation, PhantomData);
            let mut event = BeforeSwap { kind, name, generation, lent };
            if self.before_swap.emit(&mut event) == Flow::Refuse {
                return Err(SwapError::Vetoed { slot: path.clone() });
            }
        }
        Ok(())
    }

    fn tell_swap(&mut self, kind: &str, swapped: &Swapped) {
        let Label { name, generation } = &swapped.active;
        let mut event = AfterSwap {
            kind,
            name,
            generation: *generation,
            is_mid_stream: swapped.reach == Reach::MidStream,
            prepare_us: swapped.prepare_us,
            wait_us: swapped.wait_us,
            lent: PhantomData,
        };
        self.after_swap.refresh();
        let _ = self.after_swap.emit(&mut event);
    }

    /// Nothing came of a set: told for each of its members.
    pub(super) fn tell_rollback(&mut self, members: &[Member], error: &SwapError) {
        let reason = &*error.to_string();
        self.after_rollback.refresh();
        for Member { kind, next, .. } in members {
            let (name, generation, lent) = (&*next.name, next.generation, PhantomData);
            let mut event = AfterRollback { kind, name, generation, reason, lent };
            let _ = self.after_rollback.emit(&mut event);
        }
    }
}

/// What a boundary did with an offer.
pub(crate) struct Note {
    pub(crate) ticket: u64,
    pub(crate) result: Result<(), SwapError>,
    /// When, on the engine's clock.
    pub(crate) taken_us: u64,
    /// What was replaced, or refused.
    pub(crate) leftover: Leftover,
}

/// Things to be dropped by somebody who has time.
pub(crate) type Leftover = Vec<Box<dyn Any + Send>>;

impl Shared {
    pub(crate) fn new(
        model: &Arc<LoadedModel>,
        hosts: (Hosts, Arc<dyn Tokens>),
        quantized: Vec<(FormatDesc, Lowering)>,
        state: State,
        topics: SwapTopics,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            model: Arc::downgrade(model),
            hosts,
            quantized,
            mailbox: Mailbox::new(),
            state: Mutex::new(state),
            booked: Condvar::new(),
            topics: Mutex::new(topics),
            clock,
            clerk: Backstage::start("swaps"),
            reaper: Backstage::start("reaper"),
            running: AtomicUsize::new(0),
            scratch_bytes: AtomicUsize::new(0),
            waker: OnceLock::new(),
        }
    }

    /// Hands a note to the clerk. [step thread]
    pub(crate) fn note(self: &Arc<Self>, note: Note) {
        let shared = Arc::clone(self);
        self.clerk.run(move || shared.book(note));
    }

    /// Books a note: changes what is known, tells hooks, wakes the caller.
    fn book(&self, note: Note) {
        let Note { ticket, result, taken_us, leftover } = note;
        let mut state = lock(&self.state);
        let Some((members, outcome)) = state.settle(ticket, result, taken_us) else { return };
        drop(state);
        let mut topics = lock(&self.topics);
        match &outcome {
            Ok(swapped) => {
                for (member, swapped) in members.iter().zip(swapped) {
                    topics.tell_swap(&member.kind, swapped);
                }
            }
            Err(error) => topics.tell_rollback(&members, error),
        }
        drop(topics);
        lock(&self.state).finish(ticket, outcome);
        self.booked.notify_all();
        self.reaper.dispose(leftover);
    }

    /// The engine goes: nothing that was offered will be taken in.
    pub(crate) fn end(self: &Arc<Self>) {
        lock(&self.state).has_ended = true;
        for Offer { ticket, change } in self.mailbox.take() {
            let result = Err(SwapError::Ended { slot: "engine".to_owned() });
            let leftover: Leftover = vec![change];
            self.note(Note { ticket, result, taken_us: self.clock.now_us(), leftover });
        }
        self.booked.notify_all();
    }
}
