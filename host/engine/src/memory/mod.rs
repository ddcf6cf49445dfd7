//! Memories around a request: what they recall goes in front of the question, what was answered they keep.
//!
//! All of it happens on the threads of those who ask, never on the step thread: memories read and write rows. A
//! request holds the generation of each memory that it recalled with until it has been remembered.

mod place;
mod swapper;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jackfield_runtime::{Bus, Clock, Registry, RequestSlot};
use plugin_api::host::Change;
use plugin_api::kinds::memory::{Memory, Passage, Turn};
use plugin_api::{Host, Kind, Tokens};

use crate::error::EngineError;
use crate::model::Tokenizer;
use crate::model::lent_tokens::LentTokens;
use crate::wiring::{Hosts, Wiring};

pub use place::{place, turn};
pub use swapper::MemorySwapper;

/// The memories of a host, side by side. Clones are the same.
#[derive(Clone)]
pub struct Memories {
    shared: Arc<Shared>,
}

/// What requests and those who swap know together.
pub(super) struct Shared {
    slots: Vec<MemorySlot>,
    tokens_max: u32,
    hosts: (Hosts, Arc<dyn Tokens>),
}

/// One memory, by the name that was configured.
pub(super) struct MemorySlot {
    name: String,
    slot: Mutex<RequestSlot<dyn Memory>>,
}

impl MemorySlot {
    fn lock(&self) -> MutexGuard<'_, RequestSlot<dyn Memory>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memories {
    /// Makes the configured memories. What they recall may take `tokens_max` tokens together.
    ///
    /// # Errors
    ///
    /// What [`Registry::make`] returns; [`EngineError::Inconsistent`] for memories of a host that lends them nothing
    /// to keep rows with.
    pub fn load(
        wiring: &Wiring,
        registry: &Registry,
        tokenizer: &Arc<Tokenizer>,
        tokens_max: u32,
    ) -> Result<Self, EngineError> {
        let hosts = (wiring.hosts().clone(), LentTokens::of(tokenizer));
        let made = wiring.make_all::<dyn Memory>(registry)?;
        let slots = made.into_iter().map(|(name, instance)| {
            let slot = Mutex::new(RequestSlot::new(&name, instance));
            MemorySlot { name, slot }
        });
        let shared = Shared { slots: slots.collect(), tokens_max, hosts };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.shared.slots.is_empty()
    }

    /// Tokens that what is recalled may take.
    pub fn tokens_max(&self) -> u32 {
        self.shared.tokens_max
    }

    /// Replaces memories while requests run; hooks of `bus` are asked and told.
    pub fn swapper(&self, bus: &Bus, clock: Arc<dyn Clock>) -> MemorySwapper {
        MemorySwapper::new(&self.shared, bus, clock)
    }

    /// Asks every memory, in turn, what belongs in front of the answer, and takes of it what has room: the first of
    /// each, then the second, never a part of one. `tokens` counts the tokens of a text. [any thread, slow]
    ///
    /// # Errors
    ///
    /// [`EngineError::Plugin`] for the first memory that fails.
    pub fn recall(
        &self,
        turn: Turn,
        tokens: &dyn Fn(&str) -> usize,
    ) -> Result<Recalled, EngineError> {
        let turn = Turn { tokens_max: self.shared.tokens_max, ..turn };
        let shared = Arc::clone(&self.shared);
        let mut recalled = Recalled { turn, passages: Vec::new(), held: Vec::new(), shared };
        let mut found = Vec::new();
        for index in 0..self.shared.slots.len() {
            found.push(recalled.ask(index)?);
        }
        recalled.passages = place::fitting(found, self.shared.tokens_max as usize, tokens);
        Ok(recalled)
    }

    /// Removes every row that the active memories keep of a session; how many there were. What a request that runs
    /// remembers afterwards begins anew. [any thread, slow]
    ///
    /// # Errors
    ///
    /// [`EngineError::Plugin`] for the first memory whose rows cannot be read or removed; those before it are gone.
    pub fn forget(&self, session: &str) -> Result<usize, EngineError> {
        let mut removed = 0;
        for place in &self.shared.slots {
            // Held, so that the memory neither reads nor writes meanwhile.
            let slot = place.lock();
            let name = &*slot.active().label.name;
            let forgotten = self.shared.host(name).and_then(|host| {
                let rows = host.services().store_rows(session, "")?;
                let removals: Vec<Change> =
                    rows.into_iter().map(|row| Change::Remove(row.key)).collect();
                host.services().store_change(session, &removals)?;
                Ok(removals.len())
            });
            removed += forgotten.map_err(EngineError::plugin(format!("memory `{name}`")))?;
        }
        Ok(removed)
    }
}

impl fmt::Debug for Memories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.shared.slots.iter().map(|slot| &*slot.name).collect();
        f.debug_struct("Memories").field("names", &names).finish()
    }
}

impl Shared {
    /// What the plugin called `name` is lent.
    fn host(&self, name: &str) -> plugin_api::Result<Host> {
        let (hosts, tokens) = &self.hosts;
        hosts.of(name, tokens)
    }

    /// Calls the instance that a request holds, with what is lent to its plugin.
    fn with<R>(
        &self,
        index: usize,
        generation: u32,
        call: impl FnOnce(&mut dyn Memory, &Host) -> plugin_api::Result<R>,
    ) -> Result<R, EngineError> {
        let place = &self.slots[index];
        let mut slot = place.lock();
        let name = slot.label_of(generation).map_or(&*place.name, |label| &*label.name).to_owned();
        let done = self.host(&name).and_then(|host| call(slot.get_mut(generation), &host));
        done.map_err(EngineError::plugin(format!("{} `{name}`", <dyn Memory>::NAME)))
    }
}

/// What was recalled for a request, and the memories that will remember it.
pub struct Recalled {
    turn: Turn,
    passages: Vec<Passage>,
    /// The generation of each memory that was asked.
    held: Vec<u32>,
    shared: Arc<Shared>,
}

impl Recalled {
    /// What has room, most important first; sources begin with the name of the memory.
    pub fn passages(&self) -> &[Passage] {
        &self.passages
    }

    /// Keeps what is worth keeping of the answer. Returns what people should know of it, memory by memory.
    /// [any thread, slow]
    ///
    /// # Errors
    ///
    /// [`EngineError::Plugin`] for the first memory that fails; the others have kept what they keep.
    pub fn remember(self, answer: &str) -> Result<Vec<String>, EngineError> {
        let (mut notes, mut failed) = (Vec::new(), None);
        for (index, &generation) in self.held.iter().enumerate() {
            let told = self
                .shared
                .with(index, generation, |memory, host| memory.remember(&self.turn, answer, host));
            match told {
                Ok(told) => notes.extend(told),
                Err(error) => _ = failed.get_or_insert(error),
            }
        }
        failed.map_or(Ok(notes), Err)
    }

    /// Asks one memory, whose generation is held from then on.
    fn ask(&mut self, index: usize) -> Result<Vec<Passage>, EngineError> {
        let place = &self.shared.slots[index];
        let generation = place.lock().open();
        self.held.push(generation);
        let turn = &self.turn;
        let found =
            self.shared.with(index, generation, |memory, host| memory.recall(turn, host))?;
        let named =
            |it: Passage| Passage { source: format!("{}: {}", place.name, it.source), ..it };
        Ok(found.into_iter().map(named).collect())
    }
}

impl Drop for Recalled {
    fn drop(&mut self) {
        for (place, &generation) in self.shared.slots.iter().zip(&self.held) {
            let drained = place.lock().close(generation);
            // Whatever its end takes, nobody waits for the slot meanwhile.
            drop(drained);
        }
    }
}

impl fmt::Debug for Recalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let session = &self.turn.session;
        f.debug_struct("Recalled").field("session", session).field("held", &self.held).finish()
    }
}
