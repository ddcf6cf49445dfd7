//! Preparing a set: everything slow, in the thread that asks for it.

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use jackfield_runtime::{DRAINING_MAX, Generation, Reach, Replacement, SwapError};
use plugin_api::kinds::kv_cache::{PoolSpec, Storage};
use plugin_api::plan::{Per, StateSpec};
use plugin_api::{
    Adapter, Backend, DType, DecodingStrategy, FeedForward, Kind, KvCache, LogitsProcessor, Mixer,
    MoeRouter, Norm, Quantizer, Residual, RotaryEmbedding, Traced,
};

use super::adapters::NewAdapter;
use super::book::Shared;
use super::change::{Change, NewMemory, Successor};
use super::mask::NewMask;
use super::state::{Member, Role, lock};
use crate::error::EngineError;
use crate::generate::plans::CompiledPlan;
use crate::model::LoadedModel;
use crate::model::adapter::{Beside, check_read};
use crate::model::loaded::Companions;
use crate::model::memory::{AlignedBytes, StateLayout};
use crate::model::trace::{TracedPart, trace_decoder};

/// A set that is ready to be offered.
pub(super) struct Prepared {
    pub(super) change: Box<Change>,
    /// Where the requests are counted that will be pinned to each member.
    pub(super) requests: Vec<Option<Weak<AtomicUsize>>>,
    /// From when on each member counts.
    pub(super) reaches: Vec<Reach>,
}

/// The members of a set that make plans together.
#[derive(Default)]
struct Planning<'a> {
    backend: Option<(&'a Member, Arc<Generation<dyn Backend>>)>,
    parts: Vec<(&'a Member, Box<dyn Traced>)>,
    adapter: Option<(&'a Member, NewAdapter)>,
    mask: Option<(&'a Member, NewMask)>,
}

impl Shared {
    /// Makes one offer out of the instances of a set.
    pub(super) fn prepare(
        &self,
        ticket: u64,
        members: &[Member],
        set: Vec<Replacement>,
    ) -> Result<Prepared, SwapError> {
        let ended = || SwapError::Ended { slot: members[0].path.clone() };
        let model = self.model.upgrade().ok_or_else(ended)?;
        let (mut change, mut planning) = (Box::new(Change::default()), Planning::default());
        let (mut cache, mut requests) = (None, Vec::with_capacity(set.len()));
        for (member, Replacement { instance, .. }) in members.iter().zip(set) {
            let mut pinned = None;
            match member.role {
                Role::Backend => {
                    let next = member.generation::<dyn Backend>(instance)?;
                    if lock(&self.state).layout.is_tiered && !next.instance.can_page() {
                        let (what, expected) =
                            ("states that are partly in files", "one that pages");
                        let found = "one that wants all of them in memory".to_owned();
                        return Err(member.at().differs(what, expected.to_owned(), found));
                    }
                    planning.backend = Some((member, Arc::new(next)));
                }
                Role::Traced => planning.parts.push((member, member.unpack_part(instance)?)),
                Role::Adapter => {
                    planning.adapter = Some((member, member.take::<NewAdapter>(instance)?));
                }
                Role::Mask => {
                    planning.mask = Some((member, member.take::<NewMask>(instance)?));
                }
                Role::Cache => cache = Some((member, member.unpack(instance)?)),
                Role::Scheduler => {
                    let room = Vec::with_capacity(model.limits.num_seqs_max * SEQ_BYTES);
                    let next = member.generation(instance)?;
                    change.scheduler = Some(Successor { next, room });
                }
                Role::Quantizer(place) => {
                    let next = self.prepare_quantizer(member, place, member.unpack(instance)?)?;
                    change.quantizers.push((place, next));
                }
                Role::Processor(place) => {
                    let mut processor = member.unpack::<dyn LogitsProcessor>(instance)?;
                    let (hosts, tokens) = &self.hosts;
                    let opened = hosts.open(&member.next.name, &mut *processor, tokens);
                    opened.map_err(|source| member.at().failed("open", source))?;
                    let next = Generation::new(member.next.clone(), processor);
                    pinned = Some(Arc::downgrade(&next.requests));
                    change.processors.push((place, next));
                }
                Role::Strategy(place) => {
                    let mut strategy = member.unpack::<dyn DecodingStrategy>(instance)?;
                    let (hosts, tokens) = &self.hosts;
                    let attached = hosts.attach(&member.next.name, &mut *strategy, tokens);
                    attached.map_err(|source| member.at().failed("attach", source))?;
                    let next = Generation::new(member.next.clone(), strategy);
                    pinned = Some(Arc::downgrade(&next.requests));
                    change.strategies.push((place, next));
                }
                Role::Parser(place) => {
                    let next = member.generation(instance)?;
                    pinned = Some(Arc::downgrade(&next.requests));
                    change.parsers.push((place, next));
                }
            }
            requests.push(pinned);
        }
        let moved = cache.as_ref().map(|(member, _)| *member);
        if let Some((member, instance)) = cache {
            self.prepare_cache(&model, member, ticket, instance, &mut change)?;
        }
        let moved = moved.filter(|_| change.memory.is_some());
        let is_same = self.prepare_plans(&model, planning, moved, &mut change)?;
        let reach = |member: &Member| match member.role {
            Role::Processor(_) | Role::Strategy(_) | Role::Parser(_) => Reach::NewRequests,
            Role::Traced | Role::Adapter | Role::Mask if !is_same => Reach::NewRequests,
            _ => Reach::MidStream,
        };
        Ok(Prepared { change, requests, reaches: members.iter().map(reach).collect() })
    }

    /// Makes every plan that has to change: those that live are compiled by the set's own backend and
    /// for the memory of the set's own cache, and the model is traced again with all of its parts.
    /// Whether running requests go on with them.
    fn prepare_plans(
        &self,
        model: &LoadedModel,
        planning: Planning<'_>,
        moved: Option<&Member>,
        change: &mut Change,
    ) -> Result<bool, SwapError> {
        let Planning { backend, parts: new_parts, adapter: new_adapter, mask: new_mask } = planning;
        let is_beside = new_adapter.is_some() || new_mask.is_some();
        let is_traced = !new_parts.is_empty() || is_beside;
        if backend.is_none() && !is_traced && moved.is_none() {
            return Ok(true);
        }
        // A plan that fails is the backend's refusal, if the set brings one; else the cache's, whose
        // memory it is for; else of the parts that described it.
        let of_adapter = new_adapter.iter().map(|(member, _)| *member);
        let of_mask = new_mask.iter().map(|(member, _)| *member);
        let of_parts = new_parts.iter().map(|(member, _)| *member);
        let by_parts = At::all(of_parts.chain(of_adapter).chain(of_mask));
        let by = backend.as_ref().map(|(member, _)| *member).or(moved).map(Member::at);
        let by = by.as_ref().unwrap_or(&by_parts);
        let live = self.live_plans();
        let Some(active) = live.last() else { return Err(SwapError::Ended { slot: by.0.clone() }) };
        let (generation, layout) = {
            let state = lock(&self.state);
            (state.num_plans + 1, change.layout().unwrap_or_else(|| Arc::clone(&state.layout)))
        };
        let own = |plan: &CompiledPlan| match &backend {
            Some((_, backend)) => Arc::clone(backend),
            None => Arc::clone(&plan.backend),
        };

        let is_same = new_parts.iter().all(|(member, next)| {
            let old = active.parts.get(&member.kind).map(|part| part.instance.semantic_id());
            old == Some(next.semantic_id())
        }) && !is_beside;
        if !is_same {
            let draining = live.iter().filter(|plan| !plan.is_idle()).count();
            by_parts.check_draining(draining)?;
        }
        let is_moved = backend.is_some() || moved.is_some();
        for plan in &live {
            let is_superseded = is_traced && is_same && plan.generation == active.generation;
            if is_moved && !is_superseded {
                let compiled = plan.on(model, own(plan), &layout);
                change.plans.push(Arc::new(compiled.map_err(|error| by.refused(error))?));
            }
        }
        if is_traced {
            let mut parts = active.parts.clone();
            for (Member { kind, next, .. }, instance) in new_parts {
                let part = TracedPart { label: next.clone(), instance };
                parts.insert(kind.clone(), Arc::new(part));
            }
            let adapter = match new_adapter {
                Some((member, new)) => {
                    let loaded = new.load(&mut parts, &*own(active).instance);
                    let loaded = loaded.map_err(|error| member.at().refused(error))?;
                    (member.next.clone(), loaded.map(Arc::new))
                }
                None => active.companions.adapter.clone(),
            };
            let precise = match new_mask {
                Some((member, new)) => {
                    let stand_ins = new.load(&active.companions, &*own(active).instance);
                    (member.next.clone(), stand_ins.map_err(|error| member.at().refused(error))?)
                }
                None => active.companions.precise.clone(),
            };
            let beside = adapter.1.clone();
            let beside = beside.as_deref();
            let architecture = beside.map_or(&model.architecture, |beside| &beside.architecture);
            let shapes = Beside(&model.table, beside.map(|beside| &beside.table));
            let plan = trace_decoder(architecture, &parts, &shapes)
                .map_err(|source| by_parts.failed("trace", source))?;
            if let Some(beside) = beside {
                let read = check_read(&plan, &shapes, beside.table.names());
                read.map_err(|error| by_parts.refused(error))?;
            }
            let (backend, companions) = (own(active), Companions { adapter, precise });
            let compiled =
                CompiledPlan::new(model, &layout, generation, parts, plan, companions, backend);
            let compiled = compiled.map_err(|error| by.refused(error))?;
            let compiled = if is_same { compiled.replacing(active) } else { compiled };
            change.plans.push(Arc::new(compiled));
        }
        change.planned_by.clone_from(&by_parts.0);
        change.scratch = self.scratch_for(&change.plans);
        Ok(is_same)
    }

    /// Larger scratch memory, if one of the plans needs it.
    fn scratch_for(&self, plans: &[Arc<CompiledPlan>]) -> Option<AlignedBytes> {
        let needed = plans.iter().map(|plan| plan.scratch_bytes()).max().unwrap_or(0);
        let is_larger = needed > self.scratch_bytes.load(Ordering::Relaxed);
        is_larger.then(|| AlignedBytes::zeroed(needed))
    }

    /// Lays out the pool again. Where it comes out as it lies, tables are handed over; where only the
    /// type of its numbers or the number of its blocks is another, they are converted.
    fn prepare_cache(
        &self,
        model: &LoadedModel,
        at: &Member,
        ticket: u64,
        mut instance: Box<dyn KvCache>,
        change: &mut Change,
    ) -> Result<(), SwapError> {
        let pool = instance.pool(&model.states, &model.limits);
        let pool = pool.and_then(|pool| pool.check(&model.states).map(|()| pool));
        let pool = pool.map_err(|source| at.at().failed("pool", source))?;
        let old = Arc::clone(&lock(&self.state).layout);
        if old.is_tiered || instance.tiering().is_some() {
            let what = "tiers, which are laid out with the model: load it again";
            let found = if instance.tiering().is_some() { "tiers" } else { "none" };
            let expected = if old.is_tiered { "the tiers there are" } else { "none" };
            return Err(at.at().differs(what, expected.to_owned(), found.to_owned()));
        }
        let num_blocks = pool.num_blocks.max(old.pool.num_blocks);
        let room = num_blocks * BLOCK_BYTES + model.limits.num_seqs_max * SEQ_BYTES;
        let (next, room) = (Generation::new(at.next.clone(), instance), Vec::with_capacity(room));
        change.cache = Some(Successor { next, room });
        if pool == old.pool {
            return Ok(());
        }
        if !is_convertible(&old.pool, &pool, &model.states) {
            return Err(at.at().differs("pool", format!("{:?}", old.pool), format!("{pool:?}")));
        }
        // The plans read the memory that changes: nobody else may replace them meanwhile.
        lock(&self.state).claim_plans(ticket)?;
        let layout = StateLayout::new(&model.states, pool);
        let parts = model.states.iter().flat_map(|state| &state.parts);
        let row_len = parts.map(|part| part.num_elements() as usize).max().unwrap_or(0);
        change.memory = Some(NewMemory {
            state: AlignedBytes::zeroed(layout.size_bytes),
            layout: Arc::new(layout),
            num_converted: vec![0; old.pool.num_blocks],
            row: vec![0.0; row_len],
        });
        Ok(())
    }

    /// What lies packed was read by the old quantizer: the new one has to mean the same.
    fn prepare_quantizer(
        &self,
        at: &Member,
        place: usize,
        instance: Box<dyn Quantizer>,
    ) -> Result<Generation<dyn Quantizer>, SwapError> {
        let (format, lowering) = &self.quantized[place];
        let what = "format, for weights that are packed: load the model again";
        if instance.format() != *format {
            let found = format!("{:?}", instance.format());
            return Err(at.at().differs(what, format!("{format:?}"), found));
        }
        if instance.lowering() != *lowering {
            let found = format!("{:?}", instance.lowering());
            return Err(at.at().differs(what, format!("{lowering:?}"), found));
        }
        Ok(Generation::new(at.next.clone(), instance))
    }
}

/// Whether tokens of one pool may be converted into the other, each in the block of its number.
fn is_convertible(old: &PoolSpec, new: &PoolSpec, states: &[StateSpec]) -> bool {
    let is_readable = |pool: &PoolSpec| {
        let is_narrow = |storage: &Storage| {
            matches!(storage, Storage::Affine(_) | Storage::Plain(DType::F16 | DType::F32))
        };
        pool.storage.iter().all(is_narrow)
    };
    let shape = |pool: &PoolSpec| (pool.block_size, pool.blocks_per_seq_max);
    let is_per_token = |state: &StateSpec| matches!(state.per, Per::Token { .. });
    is_readable(old)
        && is_readable(new)
        && shape(old) == shape(new)
        && states.iter().all(is_per_token)
}

impl Member {
    /// The instance behind `Any`, if it is of the kind `K`.
    pub(super) fn unpack<K: Kind + ?Sized>(
        &self,
        instance: Box<dyn Any + Send>,
    ) -> Result<Box<K>, SwapError> {
        self.take::<Box<K>>(instance)
    }

    /// What is behind `Any`, if it is a `T`.
    fn take<T: 'static>(&self, instance: Box<dyn Any + Send>) -> Result<T, SwapError> {
        instance.downcast::<T>().map(|instance| *instance).map_err(|_| self.wrong_instance())
    }

    fn wrong_instance(&self) -> SwapError {
        SwapError::WrongInstance { kind: self.kind.clone(), name: self.next.name.clone() }
    }

    fn generation<K: Kind + ?Sized>(
        &self,
        instance: Box<dyn Any + Send>,
    ) -> Result<Generation<K>, SwapError> {
        Ok(Generation::new(self.next.clone(), self.unpack(instance)?))
    }

    fn unpack_part(&self, instance: Box<dyn Any + Send>) -> Result<Box<dyn Traced>, SwapError> {
        Ok(match &*self.kind {
            <dyn Norm>::NAME => self.unpack::<dyn Norm>(instance)?,
            <dyn Residual>::NAME => self.unpack::<dyn Residual>(instance)?,
            <dyn RotaryEmbedding>::NAME => self.unpack::<dyn RotaryEmbedding>(instance)?,
            <dyn Mixer>::NAME => self.unpack::<dyn Mixer>(instance)?,
            <dyn FeedForward>::NAME => self.unpack::<dyn FeedForward>(instance)?,
            <dyn MoeRouter>::NAME => self.unpack::<dyn MoeRouter>(instance)?,
            <dyn Adapter>::NAME => self.unpack::<dyn Adapter>(instance)?,
            _ => return Err(self.wrong_instance()),
        })
    }

    fn at(&self) -> At {
        At(self.path.clone())
    }
}

/// Who is named in an error: a slot, or several that make one plan.
pub(super) struct At(String);

impl At {
    fn all<'a>(members: impl Iterator<Item = &'a Member>) -> Self {
        let paths: Vec<&str> = members.map(|member| member.path.as_str()).collect();
        Self(paths.join(" + "))
    }

    /// Refuses what would leave too many generations draining.
    fn check_draining(&self, draining: usize) -> Result<(), SwapError> {
        if draining <= DRAINING_MAX {
            return Ok(());
        }
        let slot = self.0.clone();
        Err(SwapError::TooManyDraining { slot, draining, draining_max: DRAINING_MAX })
    }

    fn failed(&self, what: &str, source: plugin_api::Error) -> SwapError {
        SwapError::Plugin { slot: self.0.clone(), what: what.to_owned(), source }
    }

    fn differs(&self, what: &str, expected: String, found: String) -> SwapError {
        let (slot, what) = (self.0.clone(), what.to_owned());
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
