//! What a boundary does with an offer: everything that one set replaces.

use std::sync::{Arc, Weak};

use jackfield_runtime::Generation;
use plugin_api::{DecodingStrategy, KvCache, LogitsProcessor, OutputParser, Quantizer, Scheduler};

use crate::generate::plans::CompiledPlan;
use crate::model::memory::{AlignedBytes, StateLayout};

/// Something ready to be taken in at a boundary.
pub(crate) struct Offer {
    pub(crate) ticket: u64,
    pub(crate) change: Box<Change>,
}

/// What changes together: all of it at one boundary, or nothing.
#[derive(Default)]
pub(crate) struct Change {
    /// Each takes the place of its generation; the last may be a new one.
    pub(crate) plans: Vec<Arc<CompiledPlan>>,
    /// The slots whose plugins made the plans, for messages.
    pub(crate) planned_by: String,
    /// Larger scratch memory, if the plans need it.
    pub(crate) scratch: Option<AlignedBytes>,
    pub(crate) cache: Option<Successor<dyn KvCache>>,
    /// Where the cache's pool holds other numbers: it takes over once they are converted.
    pub(crate) memory: Option<NewMemory>,
    pub(crate) scheduler: Option<Successor<dyn Scheduler>>,
    /// Which of the processors, and what follows it; likewise below.
    pub(crate) processors: Vec<(usize, Generation<dyn LogitsProcessor>)>,
    pub(crate) strategies: Vec<(usize, Generation<dyn DecodingStrategy>)>,
    pub(crate) parsers: Vec<(usize, Generation<dyn OutputParser>)>,
    pub(crate) quantizers: Vec<(usize, Generation<dyn Quantizer>)>,
}

/// A plugin that takes over what the one before it holds.
pub(crate) struct Successor<T: ?Sized> {
    pub(crate) next: Generation<T>,
    /// Room for what is handed over.
    pub(crate) room: Vec<u8>,
}

/// The memory of a pool with other numbers.
pub(crate) struct NewMemory {
    pub(crate) layout: Arc<StateLayout>,
    pub(crate) state: AlignedBytes,
    /// For each block of the old pool, how many tokens at its front are converted: none.
    pub(crate) num_converted: Vec<usize>,
    /// Room for one token of the widest part, on its way from codes or to them.
    pub(crate) row: Vec<f32>,
}

impl Change {
    pub(super) fn weak_plans(&self) -> Vec<Weak<CompiledPlan>> {
        self.plans.iter().map(Arc::downgrade).collect()
    }

    /// How the cache's memory will lie, if otherwise than before.
    pub(super) fn layout(&self) -> Option<Arc<StateLayout>> {
        self.memory.as_ref().map(|memory| Arc::clone(&memory.layout))
    }
}
