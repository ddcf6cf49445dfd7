//! Swapping while requests run: prepared by the thread that asks, taken in at a boundary.
//!
//! ```text
//! caller         reserve the slots ▸ before-swap ▸ prepare ▸ offer ▸ wait
//! step thread    at a boundary: hand over ▸ move pointers, note what came of it
//! clerk          book the note ▸ after-swap or after-rollback ▸ wake the caller
//! reaper         drop what was replaced or refused
//! ```
//!
//! What is swapped is a set, most often of one: all of it changes at one boundary, or nothing does.
//!
//! One swap a group of slots is under way at a time: backend and traced parts are one group, since
//! they make one plan together, and every other slot is a group of its own. So nothing that a swap
//! was prepared against changes before it is taken in.

mod adapters;
mod book;
mod change;
mod mask;
mod prepare;
mod slots;
mod state;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jackfield_runtime::{Replacement, SlotStatus, SwapError, SwapTarget, Swapped};

pub(crate) use book::{Leftover, Note, Shared, SwapTopics};
pub(crate) use change::{Change, NewMemory, Offer, Successor};
pub(crate) use slots::Filled;
pub(crate) use state::State;

use prepare::Prepared;
use state::{Member, Pending, lock};

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

    /// Asks the hooks, prepares and offers. The slots are reserved, and their state known.
    fn offer(
        &self,
        ticket: u64,
        members: &[Member],
        set: Vec<Replacement>,
    ) -> Result<Vec<Swapped>, SwapError> {
        let shared = &*self.shared;
        lock(&shared.topics).ask(members)?;
        let start_us = shared.clock.now_us();
        let Prepared { change, requests, reaches } = shared.prepare(ticket, members, set)?;
        let prepare_us = shared.clock.now_us() - start_us;
        let swapped: Vec<_> = members
            .iter()
            .zip(reaches)
            .map(|(member, reach)| {
                let active = member.next.clone();
                Swapped { retired: None, active, reach, prepare_us, wait_us: 0 }
            })
            .collect();
        let (plans, layout) = (change.weak_plans(), change.layout());
        let mut state = lock(&shared.state);
        if state.has_ended {
            return Err(SwapError::Ended { slot: members[0].path.clone() });
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
}

impl SwapTarget for Swapper {
    fn swap_all(&self, set: Vec<Replacement>, limit: Duration) -> Result<Vec<Swapped>, SwapError> {
        if set.is_empty() {
            return Ok(Vec::new());
        }
        let shared = &*self.shared;
        let (ticket, members) = shared.reserve(&set, limit)?;
        match self.offer(ticket, &members, set) {
            Ok(swapped) => shared.wait(ticket, swapped, limit),
            Err(error) => {
                shared.give_up(ticket);
                lock(&shared.topics).tell_rollback(&members, &error);
                Err(error)
            }
        }
    }

    fn slots(&self) -> Vec<SlotStatus> {
        self.shared.status()
    }
}
