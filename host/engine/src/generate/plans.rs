//! Plan generations: compiled plans, which of them are alive, and whose turn it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jackfield_runtime::{DRAINING_MAX, Generation};
use plugin_api::Backend;
use plugin_api::kinds::backend::{Buf, MemoryMap, NodeView, StatePager, Support};
use plugin_api::plan::Plan;

use super::batch::{PlanInputs, StepBatch};
use super::stages::{Run, Stages, StepFault};
use crate::error::EngineError;
use crate::model::adapter::LoadedAdapter;
use crate::model::loaded::{Companions, Packed, logits_width};
use crate::model::memory::{AlignedBytes, StateLayout};
use crate::model::precise::StandIns;
use crate::model::trace::TracedParts;
use crate::model::{LoadedModel, PlanDigest};

/// A plan with everything that runs it. It never changes: a swap replaces it as a whole.
pub(crate) struct CompiledPlan {
    /// Which plan generation this is, from 1. Sequences never change theirs.
    pub(crate) generation: u32,
    /// Requests that are pinned to the generation, whichever build of it runs.
    pub(crate) requests: Arc<AtomicUsize>,
    /// The plugins that described it.
    pub(crate) parts: TracedParts,
    pub(crate) plan: Arc<Plan>,
    /// The digest of the plan alone.
    pub(crate) digest: PlanDigest,
    pub(crate) inputs: PlanInputs,
    /// What stands beside the weights of the model and in place of some.
    pub(crate) companions: Companions,
    build: Build,
    /// With precise weights alone, for answers that go on with them. Both are dropped before their backend.
    precise: Option<Build>,
    pub(crate) backend: Arc<Generation<dyn Backend>>,
}

/// A plan that was compiled for certain weights.
struct Build {
    memory: MemoryMap,
    /// In the order of the plan.
    weights: Vec<Buf>,
    stages: Stages,
}

impl CompiledPlan {
    /// Compiles `plan` as the first build of a generation.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] if it needs another state, other weights or other layouts than
    /// lie in memory; [`EngineError::Plugin`] if the backend refuses it.
    pub(crate) fn new(
        model: &LoadedModel,
        layout: &StateLayout,
        generation: u32,
        parts: TracedParts,
        plan: Plan,
        companions: Companions,
        backend: Arc<Generation<dyn Backend>>,
    ) -> Result<Self, EngineError> {
        check_states(model, &plan)?;
        let width = logits_width(&plan)?;
        if width != model.num_logits {
            return Err(EngineError::inconsistent("logits", model.num_logits.to_string(), width));
        }
        let StandIns { masked, all, .. } = &companions.precise.1;
        let build = |stand_ins: &Packed| {
            let adapter = companions.adapter.1.as_deref();
            Build::new(model, (stand_ins, adapter), layout, (&plan, &parts), &backend)
        };
        let (build, precise) = (build(masked)?, all.as_deref().map(build).transpose()?);
        Ok(Self {
            generation,
            requests: Arc::default(),
            parts,
            digest: PlanDigest::of(&plan),
            inputs: PlanInputs::of(&plan)?,
            plan: Arc::new(plan),
            companions,
            build,
            precise,
            backend,
        })
    }

    /// The same plan of the same generation, compiled by `backend` for states that lie as `layout`
    /// has it.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub(crate) fn on(
        &self,
        model: &LoadedModel,
        backend: Arc<Generation<dyn Backend>>,
        layout: &StateLayout,
    ) -> Result<Self, EngineError> {
        let described = (&*self.plan, &self.parts);
        let on = |build: &Build| build.on(model, layout, described, &backend);
        let (build, precise) = (on(&self.build)?, self.precise.as_ref().map(on).transpose()?);
        Ok(Self {
            generation: self.generation,
            requests: Arc::clone(&self.requests),
            parts: self.parts.clone(),
            plan: Arc::clone(&self.plan),
            digest: self.digest,
            inputs: PlanInputs::of(&self.plan)?,
            companions: self.companions.clone(),
            build,
            precise,
            backend,
        })
    }

    /// Whether answers may go on with precise weights.
    pub(crate) fn has_precise(&self) -> bool {
        self.precise.is_some()
    }

    /// Scratch memory that a step needs.
    pub(crate) fn scratch_bytes(&self) -> usize {
        let precise = self.precise.as_ref().map_or(0, |build| build.stages.scratch_bytes());
        self.build.stages.scratch_bytes().max(precise)
    }

    /// Runs a step over `batch`, whose sizes are up to date, into the front of `logits`, with precise weights if there are any and
    /// they are asked for. A pager brings in what of `state` is not in memory.
    ///
    /// # Errors
    ///
    /// What the backend, or a plugin that the plan calls, fails with.
    pub(super) fn run(
        &self,
        is_precise: bool,
        batch: &StepBatch,
        logits: &mut [f32],
        state: &mut AlignedBytes,
        scratch: &mut AlignedBytes,
        pager: Option<&mut dyn StatePager>,
    ) -> Result<(), StepFault> {
        let build = self.precise.as_ref().filter(|_| is_precise).unwrap_or(&self.build);
        let (inputs, num_inputs) = batch.inputs(&self.inputs);
        let run = Run {
            sizes: batch.sizes(),
            inputs: &inputs[..num_inputs],
            state: state.as_mut_slice(),
            scratch: scratch.as_mut_slice(),
            logits,
            pager,
        };
        build.stages.run(&*self.backend.instance, &self.backend.label.name, run)
    }

    /// Lets this build take the place of `old`: the same generation, the same requests.
    pub(crate) fn replacing(mut self, old: &Self) -> Self {
        (self.generation, self.requests) = (old.generation, Arc::clone(&old.requests));
        self
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }
}

impl Build {
    fn new(
        model: &LoadedModel,
        (stand_ins, adapter): (&Packed, Option<&LoadedAdapter>),
        layout: &StateLayout,
        (plan, parts): (&Plan, &TracedParts),
        backend: &Generation<dyn Backend>,
    ) -> Result<Self, EngineError> {
        let (mut memory, mut weights) = (MemoryMap::default(), Vec::new());
        for port in &plan.weights {
            let beside = || adapter?.packed.get(&port.name);
            let own = || model.packed.get(&port.name);
            let Some((place, buf)) = stand_ins.get(&port.name).or_else(own).or_else(beside) else {
                let what = format!("weight `{}`", port.name);
                let expected = "one that was packed when the model was loaded";
                return Err(EngineError::inconsistent(what, expected, "another: load it again"));
            };
            memory.weights.push(place.clone());
            weights.push(Arc::clone(buf));
        }
        memory.states.clone_from(&layout.places);
        memory.block_size = layout.pool.block_size;
        let stages = compile(backend, model, (plan, parts), (&memory, &weights))?;
        Ok(Self { memory, weights, stages })
    }

    /// The same weights, for states that lie as `layout` has it.
    fn on(
        &self,
        model: &LoadedModel,
        layout: &StateLayout,
        described: (&Plan, &TracedParts),
        backend: &Generation<dyn Backend>,
    ) -> Result<Self, EngineError> {
        let memory = MemoryMap { states: layout.places.clone(), ..self.memory.clone() };
        let stages = compile(backend, model, described, (&memory, &self.weights))?;
        Ok(Self { memory, weights: self.weights.clone(), stages })
    }
}

/// A plan has to keep between steps exactly what the arena was laid out for.
fn check_states(model: &LoadedModel, plan: &Plan) -> Result<(), EngineError> {
    let describe = |name: &str| format!("`{name}` as the model was loaded with");
    let mut kept = model.states.iter();
    for port in &plan.states {
        match kept.next() {
            Some(state) if *state == port.spec => {}
            state => {
                let expected = state.map_or("no further state".to_owned(), |s| describe(&s.name));
                let found = format!("`{}`, laid out otherwise", port.spec.name);
                return Err(EngineError::inconsistent("state of the plan", expected, found));
            }
        }
    }
    match kept.next() {
        Some(state) => {
            Err(EngineError::inconsistent("state of the plan", describe(&state.name), "none"))
        }
        None => Ok(()),
    }
}

/// Compiles a plan for memory as it lies: a backend that would pack otherwise cannot use it.
fn compile(
    by: &Generation<dyn Backend>,
    model: &LoadedModel,
    (plan, parts): (&Plan, &TracedParts),
    (memory, weights): (&MemoryMap, &[Buf]),
) -> Result<Stages, EngineError> {
    let backend = &*by.instance;
    for place in &memory.weights {
        let what = || format!("layout of weight `{}`", place.desc.name);
        let layout = backend.layout(&place.desc, &place.lowering);
        let found = layout.map_err(EngineError::plugin(what()))?.id;
        if found != place.layout.id {
            return Err(EngineError::inconsistent(what(), place.layout.id.0.clone(), found.0));
        }
    }
    let compile = |plan: &Plan, memory: &MemoryMap| {
        let exe = backend.compile(plan, &model.bucket, memory);
        exe.map_err(EngineError::plugin("compile"))
    };
    let stages = Stages::new(plan, &model.bucket, (memory, weights), parts, compile)?;
    // Who skips one op skips all: asking for each would send the whole plan each time.
    let support = plan.nodes.last().map(|node| backend.support(&NodeView { plan, node }));
    if support == Some(Support::Skip) {
        tracing::warn!("backend `{}` computes nothing: its answers mean nothing", by.label.name);
    }
    Ok(stages)
}

/// The plan generations that are alive: new requests get the last, running ones keep theirs.
pub(crate) struct Plans {
    /// Oldest first; the last is active.
    live: Vec<Arc<CompiledPlan>>,
    turn: Turn,
}

/// What runs in a step: a generation, with precise weights or with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) generation: u32,
    pub(crate) is_precise: bool,
}

impl Plans {
    pub(crate) fn new(first: Arc<CompiledPlan>) -> Self {
        let turn = Turn { generation: first.generation, is_precise: false };
        let mut live = Vec::with_capacity(DRAINING_MAX + 1);
        live.push(first);
        Self { live, turn }
    }

    pub(crate) fn active(&self) -> &Arc<CompiledPlan> {
        self.live.last().expect("one plan generation is always active")
    }

    /// How many steps it takes until everybody has had a turn.
    pub(crate) fn num_turns(&self) -> usize {
        self.live.iter().map(|plan| 1 + usize::from(plan.has_precise())).sum()
    }

    /// The plan of a generation that a request holds.
    pub(crate) fn get(&self, generation: u32) -> &CompiledPlan {
        let held = self.live.iter().find(|plan| plan.generation == generation);
        held.expect("a request holds the plan generation it asks for")
    }

    /// What runs in this step.
    pub(crate) fn turn(&self) -> Turn {
        self.turn
    }

    pub(crate) fn set_turn(&mut self, generation: u32) {
        self.turn = Turn { generation, is_precise: false };
    }

    /// Gives the turn to the precise weights of a generation, where it has them, then to the next one, round after round.
    pub(crate) fn next_turn(&mut self) {
        let Turn { generation, is_precise } = self.turn;
        let now = self.live.iter().find(|plan| plan.generation == generation);
        if !is_precise && now.is_some_and(|plan| plan.has_precise()) {
            self.turn.is_precise = true;
            return;
        }
        let later = self.live.iter().find(|plan| plan.generation > generation);
        self.set_turn(later.unwrap_or(&self.live[0]).generation);
    }

    /// Pins the active generation for a request.
    pub(crate) fn open(&mut self) -> u32 {
        let active = self.active();
        active.requests.fetch_add(1, Ordering::Relaxed);
        active.generation
    }

    /// Lets go of a pinned generation and returns it if it has drained.
    pub(crate) fn close(&mut self, generation: u32) -> Option<Arc<CompiledPlan>> {
        let last = self.live.len() - 1;
        let index = self.live.iter().position(|plan| plan.generation == generation)?;
        let has_drained =
            self.live[index].requests.fetch_sub(1, Ordering::Relaxed) == 1 && index != last;
        has_drained.then(|| self.live.remove(index))
    }

    /// Whether [`replace`](Self::replace) takes `next`.
    pub(crate) fn has_room_for(&self, next: &CompiledPlan) -> bool {
        let active = self.active();
        let is_later = next.generation > active.generation;
        !is_later || self.live.len() - usize::from(active.is_idle()) <= DRAINING_MAX
    }

    /// Puts a plan into the place of its generation, or makes a new generation active, and returns
    /// what is out of use: `next` itself if its generation has drained.
    ///
    /// # Errors
    ///
    /// `next` if [`DRAINING_MAX`] generations drain already.
    pub(crate) fn replace(
        &mut self,
        next: Arc<CompiledPlan>,
    ) -> Result<Option<Arc<CompiledPlan>>, Arc<CompiledPlan>> {
        if !self.has_room_for(&next) {
            return Err(next);
        }
        let place = self.live.iter_mut().find(|plan| plan.generation == next.generation);
        if let Some(place) = place {
            return Ok(Some(std::mem::replace(place, next)));
        }
        if next.generation < self.active().generation {
            return Ok(Some(next));
        }
        let retired = if self.active().is_idle() { self.live.pop() } else { None };
        self.live.push(next);
        Ok(retired)
    }
}
