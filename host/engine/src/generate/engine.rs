//! The engine: a model, the plugins around it, and the requests in flight.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jackfield_runtime::{
    Bus, Clock, Generation, Label, Registry, RequestSlot, Slot, SwapError, Topic,
};
use plugin_api::events::{
    AfterGenerate, AfterLogits, AfterStep, AfterToken, BeforeGenerate, BeforeStep, OnCancel,
    OnFault,
};
use plugin_api::kinds::decoding_strategy::{Actions, Evals, Outcome};
use plugin_api::kinds::kv_cache::{BlockCopy, PoolUsage};
use plugin_api::kinds::logits_processor::LogitsProcessor;
use plugin_api::kinds::scheduler::{Limits, Picked, Waiting};
use plugin_api::plan::Plan;
use plugin_api::{
    Backend, DecodingStrategy, Error, Kind, KvCache, OutputParser, Quantizer, Scheduler,
};

use super::alternatives::Alternatives;
use super::batch::StepBatch;
use super::convert::Conversion;
use super::draft_model::{DraftCosts, DraftModel, Memory, Timed};
use super::drafts::Spare;
use super::group::{Group, Sequence, Slab};
use super::load::{Load, Numbers};
use super::parse::{Parsers, Read};
use super::plans::{CompiledPlan, Plans};
use super::rows::Rows;
use super::tiers::Tiers;
use crate::error::EngineError;
use crate::model::lent_tokens::LentTokens;
use crate::model::memory::{AlignedBytes, StateLayout};
use crate::model::{LoadOptions, LoadedModel, PlanDigest, adapter, precise};
use crate::swap::{Filled, Note, Shared, State, SwapTopics, Swapper};
use crate::wiring::Wiring;

/// Runs requests step by step. One thread owns it; swaps reach it through a [`Swapper`].
pub struct Engine {
    pub(super) model: Arc<LoadedModel>,
    /// What swappers know and offer.
    pub(super) shared: Arc<Shared>,
    /// The backend and the traced parts, as the plans that they make.
    pub(super) plans: Plans,
    pub(super) quantizers: Vec<Slot<dyn Quantizer>>,
    pub(super) cache: Slot<dyn KvCache>,
    pub(super) scheduler: Slot<dyn Scheduler>,
    /// Errors of this scheduler that were told.
    pub(super) scheduler_faults: Vec<Error>,
    pub(super) processors: Vec<(String, RequestSlot<dyn LogitsProcessor>)>,
    pub(super) strategies: Vec<(String, RequestSlot<dyn DecodingStrategy>)>,
    pub(super) parsers: Parsers,
    /// How `state` lies.
    pub(super) layout: Arc<StateLayout>,
    pub(super) state: AlignedBytes,
    /// The cache of another type that is taking over.
    pub(super) conversion: Option<Box<Conversion>>,
    /// The pool's chunks, if the cache keeps some of them in files.
    pub(super) tiers: Option<Box<Tiers>>,
    pub(super) convert_bytes_per_step: u64,
    pub(super) scratch: AlignedBytes,
    /// What guesses for strategies that ask for it, and what a guess costs.
    pub(super) draft: Option<(Box<DraftModel>, DraftCosts)>,
    pub(super) groups: Slab<Group>,
    pub(super) sequences: Slab<Sequence>,
    pub(super) rows: Rows,
    pub(super) limits: Limits,
    pub(super) logit_rows_max: usize,
    pub(super) topics: Topics,
    /// Where hooks that failed are asked for.
    pub(super) bus: Bus,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) next_request: u64,
    pub(super) num_steps: u64,
    pub(super) load: Load,
    /// The load, for other threads.
    pub(super) numbers: Arc<Numbers>,
    pub(super) work: Work,
}

/// The emitting ends of the topics of generation.
pub(super) struct Topics {
    pub(super) before_generate: Topic<BeforeGenerate<'static>>,
    pub(super) before_step: Topic<BeforeStep<'static>>,
    pub(super) after_step: Topic<AfterStep<'static>>,
    pub(super) after_token: Topic<AfterToken<'static>>,
    pub(super) after_logits: Topic<AfterLogits<'static>>,
    pub(super) after_generate: Topic<AfterGenerate<'static>>,
    pub(super) on_cancel: Topic<OnCancel<'static>>,
    pub(super) on_fault: Topic<OnFault<'static>>,
}

impl Topics {
    fn of(bus: &Bus) -> Self {
        Self {
            before_generate: bus.topic(),
            before_step: bus.topic(),
            after_step: bus.topic(),
            after_token: bus.topic(),
            after_logits: bus.topic(),
            after_generate: bus.topic(),
            on_cancel: bus.topic(),
            on_fault: bus.topic(),
        }
    }
}

/// Working memory of a step, kept from step to step.
#[derive(Default)]
pub(super) struct Work {
    pub(super) batch: StepBatch,
    pub(super) order: Vec<usize>,
    pub(super) queue: Vec<Waiting>,
    pub(super) picked: Vec<Picked>,
    pub(super) active: Vec<usize>,
    pub(super) evals: Evals,
    pub(super) actions: Actions,
    pub(super) outcomes: Vec<(usize, Outcome)>,
    pub(super) of_group: Vec<Outcome>,
    /// The likeliest tokens of a row.
    pub(super) top: Vec<(u32, f32)>,
    pub(super) alternatives: Alternatives,
    pub(super) moves: Vec<BlockCopy>,
    pub(super) spare: Spare,
    pub(super) read: Read,
}

impl Engine {
    /// Loads a model and makes the plugins that `wiring` names. `progress` is told weight elements
    /// done and to do.
    ///
    /// # Errors
    ///
    /// [`EngineError`] that names the file, weight or plugin.
    pub fn load(
        path: &Path,
        wiring: &Wiring,
        registry: &Registry,
        bus: &Bus,
        clock: Arc<dyn Clock>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, EngineError> {
        let (backend_name, backend) = wiring.backend(registry)?;
        let (cache_name, mut cache) = wiring.kv_cache(registry)?;
        let (scheduler_name, scheduler) = wiring.scheduler(registry)?;
        let (model, first) =
            LoadedModel::load(path, wiring, registry, &*backend, &mut *cache, options, progress)?;
        let backend = Arc::new(Generation::new(Label::first(&backend_name), backend));
        let layout = first.layout;
        let (traced, plan, companions) = (first.traced, first.plan, first.companions);
        let plan = CompiledPlan::new(&model, &layout, 1, traced, plan, companions, backend)?;
        let (model, plan) = (Arc::new(model), Arc::new(plan));
        let mut memory = Memory {
            state: AlignedBytes::zeroed(layout.size_bytes),
            scratch: AlignedBytes::zeroed(plan.scratch_bytes()),
        };
        let mut rows = Rows::new(options.logit_rows_max, model.num_logits);
        let draft = match &options.draft_model {
            Some(path) => {
                let tokenizer = &model.tokenizer;
                let load = DraftModel::load;
                let mut draft = load(path, wiring, registry, options, tokenizer, progress)?;
                let drafts = options.logit_rows_max.min(options.tokens_per_step_max) - 1;
                let (rows, memory) = (&mut rows, &mut memory);
                let blocks = layout.pool.blocks_per_seq_max;
                let mut timed = Timed { plan: &plan, rows, memory, blocks };
                let costs = draft.costs(&mut timed, drafts, &*clock);
                Some((Box::new(draft), costs.map_err(EngineError::plugin("draft model"))?))
            }
            None => None,
        };
        let hosts = (wiring.hosts().clone(), LentTokens::of(&model.tokenizer));
        let lend = || hosts.0.of(&cache_name, &hosts.1);
        let tiers = Tiers::of(&mut *cache, layout.size_bytes, lend);
        let tiers = tiers.map_err(EngineError::plugin(cache_name.clone()))?;
        let cache = Slot::new(&cache_name, cache);
        let scheduler = Slot::new(&scheduler_name, scheduler);
        let quantizers = first.quantizers.into_iter().map(|(name, q)| Slot::new(&name, q));
        let quantizers: Vec<Slot<dyn Quantizer>> = quantizers.collect();
        let mut processors = wiring.make_all::<dyn LogitsProcessor>(registry)?;
        for (name, processor) in &mut processors {
            let opened = hosts.0.open(name, &mut **processor, &hosts.1);
            opened.map_err(EngineError::plugin(name.clone()))?;
        }
        let processors = request_slots(processors);
        let mut strategies = wiring.make_all::<dyn DecodingStrategy>(registry)?;
        for (name, strategy) in &mut strategies {
            let attached = hosts.0.attach(name, &mut **strategy, &hosts.1);
            attached.map_err(EngineError::plugin(name.clone()))?;
        }
        let strategies = request_slots(strategies);
        let parsers = request_slots(wiring.make_all::<dyn OutputParser>(registry)?);
        let filled = Filled {
            plan: &plan,
            cache: &cache,
            scheduler: &scheduler,
            quantizers: &quantizers,
            processors: &processors,
            strategies: &strategies,
            parsers: &parsers,
        };
        let state = State::new(filled.slots(), &plan, &layout);
        let quantized = quantizers.iter().map(|slot| (slot.get().format(), slot.get().lowering()));
        let shared = Shared::new(
            &model,
            hosts,
            quantized.collect(),
            state,
            SwapTopics::of(bus),
            Arc::clone(&clock),
        );
        shared.scratch_bytes.store(plan.scratch_bytes(), Ordering::Relaxed);
        let mut engine = Self {
            state: memory.state,
            scratch: memory.scratch,
            rows,
            draft,
            work: Work { batch: StepBatch::new(layout.pool.blocks_per_seq_max), ..Work::default() },
            shared: Arc::new(shared),
            plans: Plans::new(plan),
            quantizers,
            model,
            layout,
            conversion: None,
            tiers,
            convert_bytes_per_step: options.convert_bytes_per_step,
            cache,
            scheduler,
            scheduler_faults: Vec::new(),
            processors,
            strategies,
            parsers,
            groups: Slab::new(),
            sequences: Slab::new(),
            limits: Limits { tokens: options.tokens_per_step_max, seqs: options.num_seqs_max },
            logit_rows_max: options.logit_rows_max,
            topics: Topics::of(bus),
            bus: bus.clone(),
            clock,
            next_request: 1,
            num_steps: 0,
            load: Load::default(),
            numbers: Arc::default(),
        };
        engine.tell_load();
        Ok(engine)
    }

    /// Swaps what runs, from any thread.
    pub fn swapper(&self) -> Swapper {
        Swapper::new(Arc::clone(&self.shared))
    }

    /// The model.
    pub fn model(&self) -> &LoadedModel {
        &self.model
    }

    /// The model, for other threads.
    pub fn shared_model(&self) -> Arc<LoadedModel> {
        Arc::clone(&self.model)
    }

    /// What would make the tokens of a request that starts now with the first strategy.
    pub fn digest(&self) -> PlanDigest {
        let active =
            |(_, slot): &(String, RequestSlot<dyn LogitsProcessor>)| slot.active().label.generation;
        let processors: Vec<u32> = self.processors.iter().map(active).collect();
        let strategy = self.strategies.first().map_or(0, |(_, s)| s.active().label.generation);
        self.digest_of(self.plans.active(), &processors, (0, strategy), false)
    }

    /// The digest of a plan with everything that runs it for one request, with precise weights or with the others.
    pub(super) fn digest_of(
        &self,
        plan: &CompiledPlan,
        processors: &[u32],
        strategy: (usize, u32),
        is_precise: bool,
    ) -> PlanDigest {
        let processors =
            self.processors.iter().zip(processors).filter_map(|((_, slot), number)| {
                Some((<dyn LogitsProcessor>::NAME, slot.label_of(*number)?))
            });
        let strategies = self.strategies.get(strategy.0).into_iter().filter_map(|(_, slot)| {
            Some((<dyn DecodingStrategy>::NAME, slot.label_of(strategy.1)?))
        });
        let labels = self.engine_labels(plan).chain(processors).chain(strategies);
        let precise = is_precise.then(|| Label::first("all"));
        plan.digest.with(labels.chain(precise.iter().map(|label| (precise::SLOT.0, label))))
    }

    /// Labels of what runs for everybody, by kind.
    pub(super) fn engine_labels<'a>(
        &'a self,
        plan: &'a CompiledPlan,
    ) -> impl Iterator<Item = (&'a str, &'a Label)> {
        let engine = [
            (<dyn Backend>::NAME, &plan.backend.label),
            (<dyn KvCache>::NAME, self.cache.label()),
            (<dyn Scheduler>::NAME, self.scheduler.label()),
        ];
        let parts = plan.parts.iter().map(|(slot, part)| (slot.as_str(), &part.label));
        let quantizers = self.quantizers.iter().map(|slot| (<dyn Quantizer>::NAME, slot.label()));
        let (label, beside) = &plan.companions.adapter;
        let adapter = beside.iter().map(move |_| (adapter::SLOT, label));
        let (label, precise) = &plan.companions.precise;
        let is_masked = !precise.masked.is_empty();
        let mask = is_masked.then_some((precise::SLOT.1, label));
        engine.into_iter().chain(parts).chain(quantizers).chain(adapter).chain(mask)
    }

    /// The plan that new requests get.
    pub fn active_plan(&self) -> &Plan {
        &self.plans.active().plan
    }

    /// Requests that are not answered yet.
    pub fn num_running(&self) -> usize {
        self.groups.len()
    }

    /// How the cache's memory lies.
    pub fn state_layout(&self) -> &StateLayout {
        &self.layout
    }

    /// How full the cache is.
    pub fn cache_usage(&self) -> PoolUsage {
        self.cache.get().usage()
    }

    /// Labels of everything that new requests get, by kind.
    pub fn labels(&self) -> Vec<(String, Label)> {
        let processors = self.processors.iter().map(|(_, slot)| &slot.active().label);
        let processors = processors.map(|label| (<dyn LogitsProcessor>::NAME, label));
        let strategies = self.strategies.iter().map(|(_, slot)| &slot.active().label);
        let strategies = strategies.map(|label| (<dyn DecodingStrategy>::NAME, label));
        let parsers = self.parsers.iter().map(|(_, slot)| &slot.active().label);
        let parsers = parsers.map(|label| (<dyn OutputParser>::NAME, label));
        let labels = self.engine_labels(self.plans.active()).chain(processors).chain(strategies);
        let labels = labels.chain(parsers);
        labels.map(|(kind, label)| (kind.to_owned(), label.clone())).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(conversion) = self.conversion.take() {
            let (ticket, taken_us) = (conversion.ticket, self.clock.now_us());
            let result = Err(SwapError::Ended { slot: "engine".to_owned() });
            self.shared.note(Note {
                ticket,
                result,
                taken_us,
                leftover: conversion.into_leftover(),
            });
        }
        self.shared.end();
    }
}

fn request_slots<T: ?Sized>(plugins: Vec<(String, Box<T>)>) -> Vec<(String, RequestSlot<T>)> {
    let slot = |(name, instance): (String, Box<T>)| {
        let slot = RequestSlot::new(&name, instance);
        (name, slot)
    };
    plugins.into_iter().map(slot).collect()
}
