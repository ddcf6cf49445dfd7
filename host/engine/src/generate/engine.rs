//! The engine: a model, the plugins around it, and the requests in flight.

use std::path::Path;
use std::sync::Arc;

use jackfield_runtime::{Bus, Clock, Label, Registry, RequestSlot, Slot, SlotHandle, Topic};
use plugin_api::events::{
    AfterGenerate, AfterStep, AfterToken, BeforeGenerate, BeforeStep, OnCancel,
};
use plugin_api::kinds::decoding_strategy::{Actions, Evals, Outcome};
use plugin_api::kinds::kv_cache::{BlockCopy, PoolUsage};
use plugin_api::kinds::logits_processor::LogitsProcessor;
use plugin_api::kinds::scheduler::{Limits, Picked, Waiting};
use plugin_api::{Backend, DecodingStrategy, KvCache, Scheduler};

use super::batch::StepBatch;
use super::group::{Group, Sequence, Slab};
use super::rows::Rows;
use crate::error::EngineError;
use crate::model::memory::AlignedBytes;
use crate::model::{LoadOptions, LoadedModel, PlanDigest};
use crate::wiring::Wiring;

/// Runs requests step by step. One thread owns it; swaps reach it through [`EngineHandles`].
pub struct Engine {
    pub(super) model: LoadedModel,
    pub(super) digest: PlanDigest,
    /// What [`generations`](Self::generations) was when the digest was made.
    pub(super) num_generations: u64,
    pub(super) backend: Slot<dyn Backend>,
    pub(super) cache: Slot<dyn KvCache>,
    pub(super) scheduler: Slot<dyn Scheduler>,
    pub(super) processors: Vec<(String, RequestSlot<dyn LogitsProcessor>)>,
    pub(super) strategies: Vec<(String, RequestSlot<dyn DecodingStrategy>)>,
    pub(super) state: AlignedBytes,
    pub(super) scratch: AlignedBytes,
    pub(super) groups: Slab<Group>,
    pub(super) sequences: Slab<Sequence>,
    pub(super) rows: Rows,
    pub(super) limits: Limits,
    pub(super) logit_rows_max: usize,
    pub(super) topics: Topics,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) next_request: u64,
    pub(super) num_steps: u64,
    pub(super) work: Work,
}

/// The emitting ends of the topics of generation.
pub(super) struct Topics {
    pub(super) before_generate: Topic<BeforeGenerate<'static>>,
    pub(super) before_step: Topic<BeforeStep<'static>>,
    pub(super) after_step: Topic<AfterStep<'static>>,
    pub(super) after_token: Topic<AfterToken<'static>>,
    pub(super) after_generate: Topic<AfterGenerate<'static>>,
    pub(super) on_cancel: Topic<OnCancel<'static>>,
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
    pub(super) moves: Vec<BlockCopy>,
}

/// Ways to offer new generations to a running engine, from any thread.
#[derive(Clone)]
pub struct EngineHandles {
    /// The backend.
    pub backend: SlotHandle<dyn Backend>,
    /// The cache.
    pub cache: SlotHandle<dyn KvCache>,
    /// The scheduler.
    pub scheduler: SlotHandle<dyn Scheduler>,
    /// Logits processors by name.
    pub processors: Vec<(String, SlotHandle<dyn LogitsProcessor>)>,
    /// Decoding strategies by name.
    pub strategies: Vec<(String, SlotHandle<dyn DecodingStrategy>)>,
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
        let model =
            LoadedModel::load(path, wiring, registry, &*backend, &mut *cache, options, progress)?;
        let backend = Slot::new("backend", &backend_name, backend);
        let cache = Slot::new("kv-cache", &cache_name, cache);
        let scheduler = Slot::new("scheduler", &scheduler_name, scheduler);
        let processors = wiring.make_all::<dyn LogitsProcessor>(registry)?.into_iter();
        let strategies = wiring.make_all::<dyn DecodingStrategy>(registry)?.into_iter();
        let batch = StepBatch::new(&model.plan, model.pool.blocks_per_seq_max)?;
        let vocab_size = logits_width(&model)?;
        let mut engine = Self {
            digest: PlanDigest::of(&model.plan, &[]),
            num_generations: 0,
            state: AlignedBytes::zeroed(model.state_bytes),
            scratch: AlignedBytes::zeroed(model.exe.scratch_bytes),
            rows: Rows::new(options.logit_rows_max, vocab_size),
            model,
            backend,
            cache,
            scheduler,
            processors: processors
                .map(|(name, p)| (name.clone(), RequestSlot::new("logits-processor", &name, p)))
                .collect(),
            strategies: strategies
                .map(|(name, s)| (name.clone(), RequestSlot::new("decoding-strategy", &name, s)))
                .collect(),
            groups: Slab::new(),
            sequences: Slab::new(),
            limits: Limits { tokens: options.tokens_per_step_max, seqs: options.num_seqs_max },
            logit_rows_max: options.logit_rows_max,
            topics: Topics {
                before_generate: bus.topic(),
                before_step: bus.topic(),
                after_step: bus.topic(),
                after_token: bus.topic(),
                after_generate: bus.topic(),
                on_cancel: bus.topic(),
            },
            clock,
            next_request: 1,
            num_steps: 0,
            work: Work { batch, ..Work::default() },
        };
        engine.digest = PlanDigest::of(&engine.model.plan, &engine.labels());
        engine.num_generations = engine.generations();
        Ok(engine)
    }

    /// How often all slots together were filled: changes with every swap.
    pub(super) fn generations(&self) -> u64 {
        let engine = [self.backend.label(), self.cache.label(), self.scheduler.label()];
        let processors = self.processors.iter().map(|(_, slot)| slot.label());
        let strategies = self.strategies.iter().map(|(_, slot)| slot.label());
        let labels = engine.into_iter().chain(processors).chain(strategies);
        labels.map(|label| u64::from(label.generation)).sum()
    }

    /// The model.
    pub fn model(&self) -> &LoadedModel {
        &self.model
    }

    /// The plan and plugins that make the next token.
    pub fn digest(&self) -> PlanDigest {
        self.digest
    }

    /// Requests that are not answered yet.
    pub fn num_running(&self) -> usize {
        self.groups.len()
    }

    /// How full the cache is.
    pub fn cache_usage(&self) -> PoolUsage {
        self.cache.get().usage()
    }

    /// Labels of everything that runs, by kind.
    pub fn labels(&self) -> Vec<(String, Label)> {
        let mut labels = vec![
            ("backend".to_owned(), self.backend.label().clone()),
            ("kv-cache".to_owned(), self.cache.label().clone()),
            ("scheduler".to_owned(), self.scheduler.label().clone()),
        ];
        let parts = self.model.parts.iter();
        labels.extend(parts.map(|(slot, part)| (slot.clone(), part.label.clone())));
        let processors = self.processors.iter().map(|(_, slot)| slot.label().clone());
        labels.extend(processors.map(|label| ("logits-processor".to_owned(), label)));
        let strategies = self.strategies.iter().map(|(_, slot)| slot.label().clone());
        labels.extend(strategies.map(|label| ("decoding-strategy".to_owned(), label)));
        labels
    }

    /// Ways to swap what runs.
    pub fn handles(&self) -> EngineHandles {
        let processors = self.processors.iter().map(|(name, slot)| (name.clone(), slot.handle()));
        let strategies = self.strategies.iter().map(|(name, slot)| (name.clone(), slot.handle()));
        EngineHandles {
            backend: self.backend.handle(),
            cache: self.cache.handle(),
            scheduler: self.scheduler.handle(),
            processors: processors.collect(),
            strategies: strategies.collect(),
        }
    }
}

/// Width of the one output: the logits that tokens are chosen from.
fn logits_width(model: &LoadedModel) -> Result<usize, EngineError> {
    match &model.plan.outputs[..] {
        [port] if port.name == "logits" => {
            let width = model.plan.spec(port.val).width();
            let width = width.map_err(EngineError::plugin("output `logits`"))?;
            Ok(width as usize)
        }
        other => Err(EngineError::inconsistent("outputs of the plan", "`logits`", other.len())),
    }
}
