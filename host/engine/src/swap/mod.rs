//! Swapping while requests run: prepared by the thread that asks, taken in at a boundary.
//!
//! ```text
//! caller         reserve the slot ▸ before-swap ▸ prepare ▸ offer ▸ wait
//! step thread    at a boundary: move pointers, note what came of it
//! clerk          book the note ▸ after-swap or after-rollback ▸ wake the caller
//! reaper         drop what was replaced or refused
//! ```
//!
//! One swap a group of slots is under way at a time: backend and traced parts are one group, since
//! they make one plan together, and every other slot is a group of its own. So nothing that a swap
//! was prepared against changes before it is taken in.

mod book;
mod prepare;
mod slots;
mod state;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jackfield_runtime::{Label, SlotStatus, SwapError, SwapTarget, Swapped};
use plugin_api::events::{AfterRollback, BeforeSwap, Flow};

pub(crate) use book::{Leftover, Note, Shared, SwapTopics};
pub(crate) use prepare::{Change, Offer, Takeover};
pub(crate) use slots::Filled;
pub(crate) use state::State;

use prepare::Prepared;
use state::{Pending, SlotIndex, lock};

/// Swaps the plugins of a running engine, from any thread.
#[derive(Clone)]
pub struct Swapper {
    shared: Arc<Shared>,
}

impl fmt::Debug for Swapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swapper").finish_non_exhaustive()
    }
}

impl Swapper {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Calls `wake` after every offer: an engine that waits for requests can then take swaps in
    /// with [`Engine::boundary`](crate::Engine::boundary). Only the first call counts.
    pub fn on_offer(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.waker.set(Box::new(wake));
    }

    /// Waits until every swap that a boundary took in is booked and what it replaced is dropped.
    pub fn flush(&self) {
        self.shared.clerk.flush();
        self.shared.reaper.flush();
    }

    /// Asks the hooks, prepares and offers. The slot is reserved, and its state known.
    fn offer(
        &self,
        index: SlotIndex,
        ticket: u64,
        next: &Label,
        instance: Box<dyn Any + Send>,
    ) -> Result<Swapped, SwapError> {
        let shared = &*self.shared;
        let (kind, slot) = shared.slot(index);
        self.ask_hooks(&kind, &slot, next)?;
        let start_us = shared.clock.now_us();
        let Prepared { change, reach } = shared.prepare(index, ticket, next, instance)?;
        let prepare_us = shared.clock.now_us() - start_us;
        let active = next.clone();
        let swapped = Swapped { retired: None, active, reach, prepare_us, wait_us: 0 };
        let (plans, layout, requests) = (change.plans(), change.layout(), change.requests());
        let mut state = lock(&shared.state);
        if state.has_ended {
            return Err(SwapError::Ended { slot });
        }
        let offered_us = shared.clock.now_us();
        let pending = Pending { swapped: swapped.clone(), offered_us, plans, layout, requests };
        state.offered(ticket, pending);
        shared.mailbox.offer(Offer { ticket, change });
        drop(state);
        if let Some(wake) = shared.waker.get() {
            wake();
        }
        Ok(swapped)
    }

    fn ask_hooks(&self, kind: &str, slot: &str, next: &Label) -> Result<(), SwapError> {
        let (generation, lent) = (next.generation, std::marker::PhantomData);
        let mut topics = lock(&self.shared.topics);
        topics.before_swap.refresh();
        let mut event = BeforeSwap { kind, name: &next.name, generation, lent };
        match topics.before_swap.emit(&mut event) {
            Flow::Refuse => Err(SwapError::Vetoed { slot: slot.to_owned() }),
            _ => Ok(()),
        }
    }

    fn tell_rollback(&self, kind: &str, next: &Label, error: &SwapError) {
        let (generation, reason) = (next.generation, error.to_string());
        let lent = std::marker::PhantomData;
        let mut topics = lock(&self.shared.topics);
        topics.after_rollback.refresh();
        let (name, reason) = (&*next.name, &*reason);
        let mut event = AfterRollback { kind, name, generation, reason, lent };
        let _ = topics.after_rollback.emit(&mut event);
    }
}

impl SwapTarget for Swapper {
    fn swap(
        &self,
        slot: &str,
        name: &str,
        instance: Box<dyn Any + Send>,
        limit: Duration,
    ) -> Result<Swapped, SwapError> {
        let shared = &*self.shared;
        let (index, ticket, next) = shared.reserve(slot, name, limit)?;
        match self.offer(index, ticket, &next, instance) {
            Ok(swapped) => shared.wait(ticket, swapped, limit),
            Err(error) => {
                shared.give_up(ticket);
                let (kind, _) = shared.slot(index);
                self.tell_rollback(&kind, &next, &error);
                Err(error)
            }
        }
    }

    fn slots(&self) -> Vec<SlotStatus> {
        self.shared.status()
    }
}
