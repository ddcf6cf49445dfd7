//! The trainer: one step after another, each watched by hooks.

use std::marker::PhantomData;
use std::sync::Arc;

use jackfield_runtime::{Bus, Clock, Registry, Topic};
use plugin_api::events::{Flow, TrainAfterBackward, TrainAfterStep, TrainBeforeStep, TrainLr};
use plugin_api::plan::Dim;
use plugin_api::{Backend, LrSchedule, Objective, Optimizer, TensorMut, TensorRef};

use super::checkpoint::Checkpoint;
use super::compiled::Compiled;
use super::loader::{LoaderPosition, TokenBatch};
use super::parameters::Parameters;
use super::plans;
use super::updates::Updates;
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
    options: TrainOptions,
    architecture: Architecture,
    parameters: Parameters,
    step: u64,
    forward_backward: Compiled,
    updates: Updates,
    schedule: Compiled,
    /// In the order of the parameters.
    grads: Vec<Vec<f32>>,
    sums: Vec<Vec<f32>>,
    topics: Topics,
    clock: Arc<dyn Clock>,
}

struct Topics {
    before_step: Topic<TrainBeforeStep<'static>>,
    after_backward: Topic<TrainAfterBackward<'static>>,
    lr: Topic<TrainLr<'static>>,
    after_step: Topic<TrainAfterStep<'static>>,
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
        let backend: Arc<dyn Backend> = Arc::from(wiring.backend(registry)?.1);
        let parts = wiring.traced(registry, &architecture)?;
        let objective = wiring.one::<dyn Objective>(registry)?;
        let optimizer = wiring.one::<dyn Optimizer>(registry)?;
        let schedule = wiring.one::<dyn LrSchedule>(registry)?;
        let plan = plans::step(&architecture, &parts, &*objective, &parameters)?;
        let sizes = sizes(options.tokens_max, options.num_seqs_max);
        let forward_backward = Compiled::new(plan, &sizes, &backend)?;
        let plan = plans::schedule(&*schedule, options.num_steps);
        let plan = plan.map_err(EngineError::plugin("lr-schedule"))?;
        let schedule = Compiled::new(plan, &[], &backend)?;
        let updates = Updates::new(&*optimizer, &parameters, &backend)?;
        let grads: Vec<Vec<f32>> =
            parameters.0.values().map(|parameter| vec![0.0; parameter.values.len()]).collect();
        Ok(Self {
            options,
            architecture,
            parameters,
            step: 0,
            forward_backward,
            updates,
            schedule,
            sums: grads.clone(),
            grads,
            topics: Topics {
                before_step: bus.topic(),
                after_backward: bus.topic(),
                lr: bus.topic(),
                after_step: bus.topic(),
            },
            clock,
        })
    }

    /// The parameters as the last step left them.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What the model is.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
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
        let begin = self.clock.now_us();
        self.refresh();
        let tokens = batches.iter().map(TokenBatch::num_tokens).sum();
        let mut report = StepReport {
            step: self.step,
            loss: f64::NAN,
            grad_norm: f64::NAN,
            learning_rate: 0.0,
            tokens,
            step_us: 0,
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

    /// The run as it stands, with what it cannot know: where the text stands, the last loss, and what the
    /// run is.
    pub fn checkpoint(&self, loader: LoaderPosition, loss: f64, run: &str) -> Checkpoint {
        Checkpoint {
            step: self.step,
            parameters: self.parameters.clone(),
            states: self.updates.states().clone(),
            loader,
            loss,
            run: run.to_owned(),
        }
    }

    /// Goes on where `checkpoint` stood.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] for parameters or states of other names or sizes: everything is then as
    /// before.
    pub fn restore(&mut self, checkpoint: Checkpoint) -> Result<(), EngineError> {
        let parameters = |parameters: &Parameters| -> Vec<(String, Vec<u64>)> {
            parameters.0.iter().map(|(name, p)| (name.clone(), p.dims.clone())).collect()
        };
        if parameters(&checkpoint.parameters) != parameters(&self.parameters) {
            let (what, expected) = ("checkpoint", "the parameters of this model");
            return Err(EngineError::inconsistent(what, expected, "others"));
        }
        self.updates.restore(checkpoint.states)?;
        self.parameters = checkpoint.parameters;
        self.step = checkpoint.step;
        Ok(())
    }

    fn refresh(&mut self) {
        self.topics.before_step.refresh();
        self.topics.after_backward.refresh();
        self.topics.lr.refresh();
        self.topics.after_step.refresh();
    }

    /// Loss, gradients, and the update if nobody objects.
    fn compute(
        &mut self,
        batches: &[TokenBatch],
        report: &mut StepReport,
    ) -> Result<(), EngineError> {
        let counted: f64 = batches.iter().map(TokenBatch::num_counted).sum();
        if counted <= 0.0 {
            let (what, expected) = ("batch", "tokens that count".to_owned());
            return Err(EngineError::Request { what, expected, found: "none".to_owned() });
        }
        self.sums.iter_mut().for_each(|sum| sum.fill(0.0));
        report.loss = 0.0;
        for batch in batches {
            report.loss += self.backward(batch, counted)?;
        }
        report.grad_norm = norm(&self.sums);
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
        let learning_rate = self.options.learning_rate * f64::from(factor);
        let mut event = TrainLr { step: self.step, learning_rate, lent: PhantomData };
        let _ = self.topics.lr.emit(&mut event);
        self.updates.step(&mut self.parameters, &self.sums, event.learning_rate as f32)?;
        report.learning_rate = event.learning_rate;
        Ok(())
    }

    /// Adds the gradient of one micro-batch to the sums; returns its share of the loss.
    fn backward(&mut self, batch: &TokenBatch, counted: f64) -> Result<f64, EngineError> {
        let (tokens, seqs) = (batch.num_tokens(), batch.num_seqs());
        if tokens > self.options.tokens_max || seqs > self.options.num_seqs_max {
            let (max, seqs_max) = (self.options.tokens_max, self.options.num_seqs_max);
            let expected = format!("at most {max} tokens in {seqs_max} sequences");
            let found = format!("{tokens} in {seqs}");
            return Err(EngineError::Request { what: "batch", expected, found });
        }
        let weights: Vec<f32> =
            batch.weights.iter().map(|&weight| (f64::from(weight) / counted) as f32).collect();
        let rows: Vec<u32> = (0..tokens as u32).collect();
        let parameters = &self.parameters.0;
        let input = |name: &str| {
            Some(match name {
                "token_ids" => TensorRef::U32(&batch.tokens),
                "targets" => TensorRef::U32(&batch.targets),
                "positions" => TensorRef::U32(&batch.positions),
                "sequence_index" => TensorRef::U32(&batch.sequence_index),
                "logit_rows" => TensorRef::U32(&rows),
                "loss_weights" => TensorRef::F32(&weights),
                _ => TensorRef::F32(&parameters.get(name)?.values),
            })
        };
        let mut loss = [0.0];
        let mut outputs = vec![TensorMut::F32(&mut loss)];
        outputs.extend(self.grads.iter_mut().map(|grad| TensorMut::F32(grad)));
        self.forward_backward.run(&sizes(tokens, seqs), input, &mut outputs)?;
        for (sum, grad) in self.sums.iter_mut().zip(&self.grads) {
            sum.iter_mut().zip(grad).for_each(|(sum, grad)| *sum += grad);
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

/// Rows of logits are those of all tokens.
fn sizes(tokens: usize, seqs: usize) -> [(Dim, usize); 3] {
    [(Dim::TOKENS, tokens), (Dim::LOGIT_ROWS, tokens), (Dim::SEQS, seqs)]
}

/// The Euclidean length of all together, summed in `f64`.
fn norm(grads: &[Vec<f32>]) -> f64 {
    let squares = |grad: &Vec<f32>| grad.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    grads.iter().map(squares).sum::<f64>().sqrt()
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
