//! The trainer: one step after another, each watched by hooks.

mod offers;
mod run;

use std::marker::PhantomData;
use std::sync::Arc;

use jackfield_runtime::{Bus, Clock, Registry};
use plugin_api::events::{
    Flow, TrainAfterBackward, TrainAfterStep, TrainBeforeStep, TrainLoss, TrainLr,
};
use plugin_api::plan::Dim;
use plugin_api::{Backend, LrSchedule, Objective, Optimizer, TensorMut, TensorRef};

use super::compiled::Compiled;
use super::loader::TokenBatch;
use super::measures::Measures;
use super::parameters::{Parameter, Parameters};
use super::plans;
use super::routing::{Loads, is_steered};
use super::swap::{Core, Objected, Offer, SLOTS, Shared, TrainSwapper};
use super::topics::Topics;
use super::updates::Updates;
use super::utilization::ModelFlops;
use crate::error::EngineError;
use crate::model::Architecture;
use crate::wiring::Wiring;

/// What a run is given beside its plugins.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOptions {
    /// Of the whole run; the schedule makes it less.
    pub learning_rate: f64,
    /// Steps of the whole run, for the schedule.
    pub num_steps: u64,
    /// Most tokens of a micro-batch.
    pub tokens_max: usize,
    /// Most sequences of a micro-batch.
    pub num_seqs_max: usize,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Steps of the run before this one, skipped ones counted.
    pub step: u64,
    /// Of the step, before its update; not a number if the step was skipped before it computed.
    pub loss: f64,
    /// Length of the gradient of all parameters together; as the loss.
    pub grad_norm: f64,
    /// What the update used; 0 if the step was skipped.
    pub learning_rate: f64,
    /// Tokens of the step.
    pub tokens: usize,
    /// Time that the step took, in microseconds.
    pub step_us: u64,
    /// Floating-point operations that the model needs for them, however they are computed.
    pub model_flops: f64,
    /// What the hooks answered.
    pub verdict: Verdict,
}

/// Whether a step took effect, and whether the run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Parameters and states are those after the step.
    Done,
    /// A hook skipped it: parameters and states are those before it.
    Skipped,
    /// A hook ended the run; whether the step took effect says [`StepReport::learning_rate`].
    Stopped,
}

/// A model in training, with the plugins that train it.
pub struct Trainer {
    shared: Arc<Shared>,
    parameters: Parameters,
    /// Weights that no step changes.
    frozen: Parameters,
    vocab_size: u64,
    flops: ModelFlops,
    step: u64,
    /// Of the data that was read last.
    epoch: Option<u64>,
    forward_backward: Compiled,
    measures: Measures,
    updates: Updates,
    loads: Loads,
    schedule: Compiled,
    /// In the order of the parameters.
    grads: Vec<Vec<f32>>,
    sums: Vec<Vec<f32>>,
    topics: Topics,
    clock: Arc<dyn Clock>,
}

impl Trainer {
    /// Describes and compiles training of a model with the plugins that `wiring` chooses.
    ///
    /// # Errors
    ///
    /// [`EngineError`] that names the plugin, parameter or node: a parameter that the loss does not
    /// depend on is one.
    pub fn new(
        architecture: Architecture,
        parameters: Parameters,
        wiring: &Wiring,
        registry: &Registry,
        bus: &Bus,
        clock: Arc<dyn Clock>,
        options: TrainOptions,
    ) -> Result<Self, EngineError> {
        let frozen = Parameters::default();
        Self::beside(architecture, parameters, frozen, wiring, registry, bus, clock, options)
    }

    /// The same for parameters beside others that stay as they are: those of an adapter.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    #[allow(clippy::too_many_arguments, reason = "what `new` takes, and the weights beside")]
    pub fn beside(
        architecture: Architecture,
        parameters: Parameters,
        frozen: Parameters,
        wiring: &Wiring,
        registry: &Registry,
        bus: &Bus,
        clock: Arc<dyn Clock>,
        options: TrainOptions,
    ) -> Result<Self, EngineError> {
        let backend: Arc<dyn Backend> = Arc::from(wiring.backend(registry)?.1);
        let parts = wiring.traced(registry, &architecture)?;
        let objective = wiring.one::<dyn Objective>(registry)?;
        let optimizer = wiring.one::<dyn Optimizer>(registry)?;
        let schedule = wiring.one::<dyn LrSchedule>(registry)?;
        let logits = plans::logits(&architecture, &parts, [&parameters, &frozen])?;
        let learner = plans::Learner::new(&architecture, &parts, [&parameters, &frozen])?;
        let loads = learner.loads();
        let width = logits.spec(logits.outputs[0].val).width();
        let vocab_size = width.map_err(EngineError::plugin("logits"))?;
        let dims_only = |(name, p): (&String, &Parameter)| {
            (name.clone(), Parameter { dims: p.dims.clone(), values: Vec::new() })
        };
        let shapes = Parameters(parameters.0.iter().map(dims_only).collect());
        let flops = ModelFlops::of(&architecture, &parameters, &frozen);
        let core = Core { architecture, shapes, logits, learner, backend, options };
        let Objected { forward_backward, measures } = core.objective(&*objective)?;
        let schedule = core.schedule(&*schedule)?;
        let plans = core.updates(&*optimizer)?;
        let layout = plans.layout(&parameters);
        let updates = Updates::new(plans, &parameters);
        let names = SLOTS.map(|kind| wiring.names(kind).concat());
        let grads: Vec<Vec<f32>> =
            parameters.0.values().map(|parameter| vec![0.0; parameter.values.len()]).collect();
        Ok(Self {
            shared: Arc::new(Shared::new(core, names, layout)),
            parameters,
            frozen,
            vocab_size,
            flops,
            step: 0,
            epoch: None,
            forward_backward,
            measures,
            updates,
            loads,
            schedule,
            sums: grads.clone(),
            grads,
            topics: Topics::new(bus),
            clock,
        })
    }

    /// The parameters as the last step left them.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What the model is.
    pub fn architecture(&self) -> &Architecture {
        &self.shared.core.architecture
    }

    /// How many tokens of the last step chose each expert, by the name of the router's weight: nothing for models
    /// without.
    pub fn expert_loads(&self) -> impl Iterator<Item = (String, &[f32])> {
        self.loads.by_name()
    }

    /// What swaps optimizer, schedule and objective of this run between two steps, from any thread.
    pub fn swapper(&self, bus: &Bus) -> TrainSwapper {
        TrainSwapper::new(&self.shared, bus, Arc::clone(&self.clock))
    }

    /// Steps so far, skipped ones counted.
    pub fn num_steps_done(&self) -> u64 {
        self.step
    }

    /// One step over these micro-batches: their losses and gradients add up.
    ///
    /// # Errors
    ///
    /// [`EngineError::Request`] for a batch without tokens that count or with more than the run was made for;
    /// [`EngineError::Inconsistent`] for a gradient that is not finite and that no hook skipped;
    /// [`EngineError::Plugin`] if the backend fails. Parameters and states are then as before.
    pub fn step(&mut self, batches: &[TokenBatch]) -> Result<StepReport, EngineError> {
        self.topics.refresh();
        if let Some(offer) = self.shared.take() {
            self.refill(offer);
        }
        let made = self.watched_step(batches);
        made.inspect_err(|error| self.failed(error))
    }

    /// Puts what was prepared into its place.
    fn refill(&mut self, mut offer: Offer) {
        if let Some(Objected { forward_backward, measures }) = offer.objective.take() {
            (self.forward_backward, self.measures) = (forward_backward, measures);
        }
        if let Some(plans) = offer.updates.take() {
            self.updates.replace(plans, &self.parameters);
        }
        if let Some(schedule) = offer.schedule.take() {
            self.schedule = schedule;
        }
        offer.tell(&mut self.topics.after_swap, self.clock.now_us());
    }

    fn options(&self) -> &TrainOptions {
        &self.shared.core.options
    }

    fn watched_step(&mut self, batches: &[TokenBatch]) -> Result<StepReport, EngineError> {
        let begin = self.clock.now_us();
        let tokens = batches.iter().map(TokenBatch::num_tokens).sum();
        let mut report = StepReport {
            step: self.step,
            loss: f64::NAN,
            grad_norm: f64::NAN,
            learning_rate: 0.0,
            tokens,
            step_us: 0,
            model_flops: 0.0,
            verdict: Verdict::Done,
        };
        let mut event = TrainBeforeStep { step: self.step, tokens, lent: PhantomData };
        report.verdict = verdict(self.topics.before_step.emit(&mut event));
        if report.verdict == Verdict::Done {
            self.compute(batches, &mut report)?;
        }
        self.step += 1;
        report.step_us = self.clock.now_us() - begin;
        let StepReport { step, loss, grad_norm, learning_rate, tokens, step_us, .. } = report;
        let lent = PhantomData;
        let mut event =
            TrainAfterStep { step, loss, grad_norm, learning_rate, tokens, step_us, lent };
        if verdict(self.topics.after_step.emit(&mut event)) == Verdict::Stopped {
            report.verdict = Verdict::Stopped;
        }
        Ok(report)
    }

    /// Loss, gradients, and the update if nobody objects.
    fn compute(
        &mut self,
        batches: &[TokenBatch],
        report: &mut StepReport,
    ) -> Result<(), EngineError> {
        let batches = self.seen_by_hooks(batches)?;
        let counted = Counted::of(&batches)?;
        report.model_flops = self.flops.over(&batches);
        report.loss = 0.0;
        let (step, lent) = (self.step, PhantomData);
        for (micro_batch, batch) in batches.iter().enumerate() {
            let loss = self.backward(batch, counted, micro_batch == 0)?;
            report.loss += loss;
            let mut event = TrainLoss { step, micro_batch, loss, lent };
            report.verdict = verdict(self.topics.loss.emit(&mut event));
            if report.verdict != Verdict::Done {
                return Ok(());
            }
        }
        report.verdict = verdict(self.offer_gradients());
        report.grad_norm = norm(&self.sums);
        if report.verdict != Verdict::Done {
            return Ok(());
        }
        let mut event = TrainAfterBackward {
            step: self.step,
            loss: report.loss,
            grad_norm: report.grad_norm,
            grad_scale: 1.0,
            lent: PhantomData,
        };
        report.verdict = verdict(self.topics.after_backward.emit(&mut event));
        if report.verdict != Verdict::Done {
            return Ok(());
        }
        let scale = event.grad_scale;
        if !(report.loss.is_finite() && report.grad_norm.is_finite() && scale.is_finite()) {
            let what = format!("step {}: loss and length of the gradient", self.step);
            let found = format!("{} and {}", report.loss, report.grad_norm);
            let expected = "finite numbers, or a hook that skips the step";
            return Err(EngineError::inconsistent(what, expected, found));
        }
        if scale != 1.0 {
            let sums = self.sums.iter_mut().flatten();
            sums.for_each(|x| *x = (f64::from(*x) * scale) as f32);
        }
        let factor = self.factor()?;
        let learning_rate = self.options().learning_rate * f64::from(factor);
        let mut event = TrainLr { step: self.step, learning_rate, lent: PhantomData };
        let _ = self.topics.lr.emit(&mut event);
        let biases = self.loads.biases(&self.parameters);
        self.updates.step(&mut self.parameters, &self.sums, event.learning_rate as f32)?;
        self.loads.steer(&mut self.parameters, biases);
        report.learning_rate = event.learning_rate;
        self.offer_parameters();
        Ok(())
    }

    /// Adds the gradient of one micro-batch to the sums, which the first one begins; returns its share of
    /// the loss.
    fn backward(
        &mut self,
        batch: &TokenBatch,
        counted: Counted,
        is_first: bool,
    ) -> Result<f64, EngineError> {
        self.options().check(batch)?;
        let mut loss = [0.0];
        let mut outputs = vec![TensorMut::F32(&mut loss)];
        outputs.extend(self.loads.outputs());
        let grads = if is_first { &mut self.sums } else { &mut self.grads };
        let grads = grads.iter_mut().zip(self.parameters.0.keys());
        let learnt = grads.filter(|(_, name)| !is_steered(name));
        outputs.extend(learnt.map(|(grad, _)| TensorMut::F32(grad)));
        let plan = &mut self.forward_backward;
        run_over(plan, batch, counted, [&self.parameters, &self.frozen], &mut outputs)?;
        self.loads.add(is_first);
        if !is_first {
            for (sum, grad) in self.sums.iter_mut().zip(&self.grads) {
                sum.iter_mut().zip(grad).for_each(|(sum, grad)| *sum += grad);
            }
        }
        Ok(f64::from(loss[0]))
    }

    /// What the schedule makes of the learning rate.
    fn factor(&mut self) -> Result<f32, EngineError> {
        let (step, mut factor) = ([self.step as f32], [0.0]);
        let input = |name: &str| (name == "step").then_some(TensorRef::F32(&step));
        self.schedule.run(&[], input, &mut [TensorMut::F32(&mut factor)])?;
        Ok(factor[0])
    }
}

impl TrainOptions {
    /// Refuses a batch that is larger than what the plans were compiled for.
    fn check(&self, batch: &TokenBatch) -> Result<(), EngineError> {
        let (tokens, seqs) = (batch.num_tokens(), batch.num_seqs());
        if tokens <= self.tokens_max && seqs <= self.num_seqs_max {
            return Ok(());
        }
        let (max, seqs_max) = (self.tokens_max, self.num_seqs_max);
        let expected = format!("at most {max} tokens in {seqs_max} sequences");
        let found = format!("{tokens} in {seqs}");
        Err(EngineError::Request { what: "batch", expected, found })
    }
}

/// How much all micro-batches of a step count together.
#[derive(Clone, Copy)]
struct Counted {
    tokens: f64,
    /// Tokens that count or not.
    rows: f64,
    sequences: f64,
}

impl Counted {
    /// For plans without shares.
    const NONE: Self = Self { tokens: 1.0, rows: 1.0, sequences: 1.0 };

    fn of(batches: &[TokenBatch]) -> Result<Self, EngineError> {
        let tokens: f64 = batches.iter().map(TokenBatch::num_counted).sum();
        if tokens <= 0.0 {
            let (what, expected) = ("batch", "tokens that count".to_owned());
            return Err(EngineError::Request { what, expected, found: "none".to_owned() });
        }
        let sequences = batches.iter().flat_map(TokenBatch::sequence_weights);
        let sequences: f64 = sequences.map(f64::from).sum();
        let rows = batches.iter().map(TokenBatch::num_tokens).sum::<usize>() as f64;
        Ok(Self { tokens, rows, sequences: if sequences > 0.0 { sequences } else { 1.0 } })
    }
}

/// Runs a plan of a batch; its weights become shares of `counted`.
fn run_over(
    plan: &mut Compiled,
    batch: &TokenBatch,
    counted: Counted,
    parameters: [&Parameters; 2],
    outputs: &mut [TensorMut<'_>],
) -> Result<(), EngineError> {
    let share = |weight: f32, of: f64| (f64::from(weight) / of) as f32;
    let weights: Vec<f32> =
        batch.weights.iter().map(|&weight| share(weight, counted.tokens)).collect();
    let sequences = batch.sequence_weights().into_iter();
    let sequences: Vec<f32> = sequences.map(|weight| share(weight, counted.sequences)).collect();
    let (tokens, last_rows) = (batch.num_tokens(), batch.last_rows());
    let rows: Vec<u32> = (0..tokens as u32).collect();
    let router_shares = vec![share(1.0, counted.rows); tokens];
    let [place, length] = batch.places();
    let input = |name: &str| {
        Some(match name {
            "token_ids" => TensorRef::U32(&batch.tokens),
            "targets" => TensorRef::U32(&batch.targets),
            "positions" => TensorRef::U32(&batch.positions),
            "sequence_index" | "row_sequence" => TensorRef::U32(&batch.sequence_index),
            "logit_rows" => TensorRef::U32(&rows),
            "loss_weights" => TensorRef::F32(&weights),
            "token_mask" => TensorRef::F32(&batch.weights),
            "sequence_weights" => TensorRef::F32(&sequences),
            "router_shares" => TensorRef::F32(&router_shares),
            "place" => TensorRef::F32(&place),
            "length" => TensorRef::F32(&length),
            "last_row" => TensorRef::U32(&last_rows),
            _ => match parameters.iter().find_map(|parameters| parameters.0.get(name)) {
                Some(parameter) => TensorRef::F32(&parameter.values),
                None => batch.columns.get(name)?.view(),
            },
        })
    };
    plan.run(&sizes(tokens, batch.num_seqs()), input, outputs)
}

/// Rows of logits are those of all tokens.
pub(super) fn sizes(tokens: usize, seqs: usize) -> [(Dim, usize); 3] {
    [(Dim::TOKENS, tokens), (Dim::LOGIT_ROWS, tokens), (Dim::SEQS, seqs)]
}

/// The Euclidean length of all together, summed in `f64`, in lanes that processors add side by side.
fn norm(grads: &[Vec<f32>]) -> f64 {
    let mut sums = [0.0; 16];
    for x in grads.iter().flat_map(|grad| grad.chunks(16)) {
        sums.iter_mut().zip(x).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
    }
    sums.iter().sum::<f64>().sqrt()
}

fn verdict(flow: Flow) -> Verdict {
    match flow {
        Flow::Continue | Flow::Finish(_) => Verdict::Done,
        Flow::SkipStep => Verdict::Skipped,
        Flow::StopRun | Flow::Refuse => Verdict::Stopped,
    }
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("step", &self.step).finish_non_exhaustive()
    }
}
