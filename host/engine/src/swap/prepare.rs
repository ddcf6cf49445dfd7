//! Preparing a swap: everything slow, in the thread that asks for it.

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use jackfield_runtime::{DRAINING_MAX, Generation, Label, Reach, SwapError};
use plugin_api::kinds::kv_cache::PoolSpec;
use plugin_api::plan::{Per, StateSpec};
use plugin_api::{
    Backend, DType, DecodingStrategy, FeedForward, Kind, KvCache, LogitsProcessor, Mixer, Norm,
    Quantizer, Residual, RotaryEmbedding, Scheduler, Traced,
};

use super::book::Shared;
use super::state::{Role, SlotIndex, lock};
use crate::error::EngineError;
use crate::generate::plans::CompiledPlan;
use crate::model::LoadedModel;
use crate::model::memory::{AlignedBytes, StateLayout};
use crate::model::trace::{TracedPart, trace_decoder};

/// Something ready to be taken in at a boundary.
pub(crate) struct Offer {
    pub(crate) ticket: u64,
    pub(crate) change: Change,
}

/// What a boundary does with an offer.
pub(crate) enum Change {
    /// Each plan takes the place of its generation, or is a new one.
    Plans {
        plans: Vec<Arc<CompiledPlan>>,
        /// Larger scratch memory, if they need it.
        scratch: Option<AlignedBytes>,
    },
    Cache {
        next: Generation<dyn KvCache>,
        /// Room for what the old cache hands over.
        room: Vec<u8>,
    },
    /// The cache of a pool with other numbers, which takes over once they are converted.
    Convert(Box<Takeover>),
    Scheduler {
        next: Generation<dyn Scheduler>,
        /// Likewise.
        room: Vec<u8>,
    },
    /// Which of the processors; likewise below.
    Processor(usize, Generation<dyn LogitsProcessor>),
    Strategy(usize, Generation<dyn DecodingStrategy>),
    Quantizer(usize, Generation<dyn Quantizer>),
}

impl Change {
    pub(super) fn plans(&self) -> Vec<Weak<CompiledPlan>> {
        match self {
            Self::Plans { plans, .. } => plans.iter().map(Arc::downgrade).collect(),
            Self::Convert(takeover) => takeover.plans.iter().map(Arc::downgrade).collect(),
            _ => Vec::new(),
        }
    }

    /// How the cache's memory will lie, if otherwise than before.
    pub(super) fn layout(&self) -> Option<Arc<StateLayout>> {
        match self {
            Self::Convert(takeover) => Some(Arc::clone(&takeover.layout)),
            _ => None,
        }
    }

    /// Where the requests are counted that will be pinned to it.
    pub(super) fn requests(&self) -> Option<Weak<AtomicUsize>> {
        match self {
            Self::Processor(_, next) => Some(Arc::downgrade(&next.requests)),
            Self::Strategy(_, next) => Some(Arc::downgrade(&next.requests)),
            _ => None,
        }
    }
}

/// Everything that a cache of another pool comes with.
pub(crate) struct Takeover {
    pub(crate) next: Generation<dyn KvCache>,
    /// Room for what the old cache hands over.
    pub(crate) room: Vec<u8>,
    /// The live plans, for the new memory.
    pub(crate) plans: Vec<Arc<CompiledPlan>>,
    pub(crate) scratch: Option<AlignedBytes>,
    pub(crate) layout: Arc<StateLayout>,
    pub(crate) state: AlignedBytes,
    /// For each block of the old pool, how many tokens at its front are converted: none.
    pub(crate) num_converted: Vec<usize>,
}

pub(super) struct Prepared {
    pub(super) change: Change,
    pub(super) reach: Reach,
}

/// A slot that is being swapped, by what it is called in errors.
struct Target<'a> {
    path: &'a str,
    kind: &'a str,
    next: &'a Label,
}

impl Shared {
    /// Makes an offer out of an instance.
    pub(super) fn prepare(
        &self,
        index: SlotIndex,
        ticket: u64,
        next: &Label,
        instance: Box<dyn Any + Send>,
    ) -> Result<Prepared, SwapError> {
        let (kind, path) = self.slot(index);
        let at = Target { path: &path, kind: &kind, next };
        let Some(model) = self.model.upgrade() else { return Err(at.ended()) };
        let role = lock(&self.state).slots[index].role;
        let change = match role {
            Role::Backend => self.prepare_backend(&model, &at, at.unpack(instance)?)?,
            Role::Traced => return self.prepare_part(&model, &at, at.unpack_part(instance)?),
            Role::Cache => self.prepare_cache(&model, &at, ticket, at.unpack(instance)?)?,
            Role::Scheduler => {
                let room = Vec::with_capacity(model.limits.num_seqs_max * SEQ_BYTES);
                Change::Scheduler { next: at.generation(instance)?, room }
            }
            Role::Quantizer(place) => self.prepare_quantizer(&at, place, at.unpack(instance)?)?,
            Role::Processor(place) => {
                let change = Change::Processor(place, at.generation(instance)?);
                return Ok(Prepared { change, reach: Reach::NewRequests });
            }
            Role::Strategy(place) => {
                let change = Change::Strategy(place, at.generation(instance)?);
                return Ok(Prepared { change, reach: Reach::NewRequests });
            }
        };
        Ok(Prepared { change, reach: Reach::MidStream })
    }

    /// Compiles every live plan on another backend.
    fn prepare_backend(
        &self,
        model: &LoadedModel,
        at: &Target<'_>,
        instance: Box<dyn Backend>,
    ) -> Result<Change, SwapError> {
        let backend = Arc::new(Generation::new(at.next.clone(), instance));
        let mut plans = Vec::new();
        for plan in self.live_plans() {
            let compiled = plan.on(model, Arc::clone(&backend));
            plans.push(Arc::new(compiled.map_err(|error| at.refused(error))?));
        }
        Ok(self.plans(plans))
    }

    /// Traces the model again with another part.
    fn prepare_part(
        &self,
        model: &LoadedModel,
        at: &Target<'_>,
        instance: Box<dyn Traced>,
    ) -> Result<Prepared, SwapError> {
        let live = self.live_plans();
        let Some(active) = live.last() else { return Err(at.ended()) };
        let old = active.parts.get(at.kind).map(|part| part.instance.semantic_id());
        let is_same = old == Some(instance.semantic_id());
        if !is_same {
            let draining = live.iter().filter(|plan| !plan.is_idle()).count();
            at.check_draining(draining)?;
        }
        let mut parts = active.parts.clone();
        let part = TracedPart { label: at.next.clone(), instance };
        parts.insert(at.kind.to_owned(), Arc::new(part));
        let plan = trace_decoder(&model.architecture, &parts, &model.table)
            .map_err(|source| at.failed("trace", source))?;
        let (generation, layout) = {
            let state = lock(&self.state);
            (state.num_plans + 1, Arc::clone(&state.layout))
        };
        let backend = Arc::clone(&active.backend);
        let compiled = CompiledPlan::new(model, &layout, generation, parts, plan, backend)
            .map_err(|error| at.refused(error))?;
        if is_same {
            let change = self.plans(vec![Arc::new(compiled.replacing(active))]);
            return Ok(Prepared { change, reach: Reach::MidStream });
        }
        let change = self.plans(vec![Arc::new(compiled)]);
        Ok(Prepared { change, reach: Reach::NewRequests })
    }

    fn plans(&self, plans: Vec<Arc<CompiledPlan>>) -> Change {
        let scratch = self.scratch_for(&plans);
        Change::Plans { plans, scratch }
    }

    /// Larger scratch memory, if one of the plans needs it.
    fn scratch_for(&self, plans: &[Arc<CompiledPlan>]) -> Option<AlignedBytes> {
        let needed = plans.iter().map(|plan| plan.exe.scratch_bytes).max().unwrap_or(0);
        let is_larger = needed > self.scratch_bytes.load(Ordering::Relaxed);
        is_larger.then(|| AlignedBytes::zeroed(needed))
    }

    /// Lays out the pool again. Where it comes out as it lies, tables are handed over; where only the
    /// type of its numbers or the number of its blocks is another, they are converted.
    fn prepare_cache(
        &self,
        model: &LoadedModel,
        at: &Target<'_>,
        ticket: u64,
        mut instance: Box<dyn KvCache>,
    ) -> Result<Change, SwapError> {
        let pool = instance.pool(&model.states, &model.limits);
        let pool = pool.map_err(|source| at.failed("pool", source))?;
        let old = Arc::clone(&lock(&self.state).layout);
        let num_blocks = pool.num_blocks.max(old.pool.num_blocks);
        let room = num_blocks * BLOCK_BYTES + model.limits.num_seqs_max * SEQ_BYTES;
        let (next, room) = (Generation::new(at.next.clone(), instance), Vec::with_capacity(room));
        if pool == old.pool {
            return Ok(Change::Cache { next, room });
        }
        if !is_convertible(&old.pool, &pool, &model.states) {
            return Err(at.differs("pool", format!("{:?}", old.pool), format!("{pool:?}")));
        }
        // The plans read the memory that changes: none of them may be replaced meanwhile.
        lock(&self.state).claim_plans(ticket)?;
        let layout = StateLayout::new(&model.states, pool, model.limits.num_seqs_max);
        let plans =
            self.live_plans().into_iter().map(|plan| plan.over(model, &layout).map(Arc::new));
        let plans = plans.collect::<Result<Vec<_>, _>>().map_err(|error| at.refused(error))?;
        Ok(Change::Convert(Box::new(Takeover {
            next,
            room,
            scratch: self.scratch_for(&plans),
            plans,
            state: AlignedBytes::zeroed(layout.size_bytes),
            layout: Arc::new(layout),
            num_converted: vec![0; old.pool.num_blocks],
        })))
    }

    /// What lies packed was read by the old quantizer: the new one has to mean the same.
    fn prepare_quantizer(
        &self,
        at: &Target<'_>,
        place: usize,
        instance: Box<dyn Quantizer>,
    ) -> Result<Change, SwapError> {
        let (format, lowering) = &self.quantized[place];
        let what = "format, for weights that are packed: load the model again";
        if instance.format() != *format {
            let found = format!("{:?}", instance.format());
            return Err(at.differs(what, format!("{format:?}"), found));
        }
        if instance.lowering() != *lowering {
            let found = format!("{:?}", instance.lowering());
            return Err(at.differs(what, format!("{lowering:?}"), found));
        }
        Ok(Change::Quantizer(place, Generation::new(at.next.clone(), instance)))
    }
}

/// Whether tokens of one pool may be converted into the other, each in the block of its number.
fn is_convertible(old: &PoolSpec, new: &PoolSpec, states: &[StateSpec]) -> bool {
    let is_float = |dtype: DType| matches!(dtype, DType::F16 | DType::F32);
    let shape = |pool: &PoolSpec| (pool.block_size, pool.blocks_per_seq_max);
    let is_per_token = |state: &StateSpec| matches!(state.per, Per::Token { .. });
    is_float(old.dtype)
        && is_float(new.dtype)
        && shape(old) == shape(new)
        && states.iter().all(is_per_token)
}

impl Target<'_> {
    /// The instance behind `Any`, if it is of the kind `K`.
    fn unpack<K: Kind + ?Sized>(&self, instance: Box<dyn Any + Send>) -> Result<Box<K>, SwapError> {
        match instance.downcast::<Box<K>>() {
            Ok(instance) => Ok(*instance),
            Err(_) => Err(SwapError::WrongInstance {
                kind: self.kind.to_owned(),
                name: self.next.name.clone(),
            }),
        }
    }

    fn generation<K: Kind + ?Sized>(
        &self,
        instance: Box<dyn Any + Send>,
    ) -> Result<Generation<K>, SwapError> {
        Ok(Generation::new(self.next.clone(), self.unpack(instance)?))
    }

    fn unpack_part(&self, instance: Box<dyn Any + Send>) -> Result<Box<dyn Traced>, SwapError> {
        Ok(match self.kind {
            <dyn Norm>::NAME => self.unpack::<dyn Norm>(instance)?,
            <dyn Residual>::NAME => self.unpack::<dyn Residual>(instance)?,
            <dyn RotaryEmbedding>::NAME => self.unpack::<dyn RotaryEmbedding>(instance)?,
            <dyn Mixer>::NAME => self.unpack::<dyn Mixer>(instance)?,
            <dyn FeedForward>::NAME => self.unpack::<dyn FeedForward>(instance)?,
            _ => {
                let (kind, name) = (self.kind.to_owned(), self.next.name.clone());
                return Err(SwapError::WrongInstance { kind, name });
            }
        })
    }

    /// Refuses what would leave too many generations draining.
    fn check_draining(&self, draining: usize) -> Result<(), SwapError> {
        if draining <= DRAINING_MAX {
            return Ok(());
        }
        let slot = self.path.to_owned();
        Err(SwapError::TooManyDraining { slot, draining, draining_max: DRAINING_MAX })
    }

    fn ended(&self) -> SwapError {
        SwapError::Ended { slot: self.path.to_owned() }
    }

    fn failed(&self, what: &str, source: plugin_api::Error) -> SwapError {
        SwapError::Plugin { slot: self.path.to_owned(), what: what.to_owned(), source }
    }

    fn differs(&self, what: &str, expected: String, found: String) -> SwapError {
        let (slot, what) = (self.path.to_owned(), what.to_owned());
        SwapError::Differs { slot, what, expected, found }
    }

    fn refused(&self, error: EngineError) -> SwapError {
        match error {
            EngineError::Plugin { what, source } => self.failed(&what, source),
            EngineError::Inconsistent { what, expected, found } => {
                self.differs(&what, expected, found)
            }
            other => self.differs("plan", "one that the engine runs".to_owned(), other.to_string()),
        }
    }
}

/// Bytes that a block and a sequence take in a saved cache or scheduler, generously.
const BLOCK_BYTES: usize = 16;
const SEQ_BYTES: usize = 64;
