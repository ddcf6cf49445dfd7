//! What a run does around its steps: begin and end, evaluation, checkpoints.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use plugin_api::events::{
    Flow, HookState, TrainAfterCheckpoint, TrainAfterEvaluate, TrainAfterRestore,
    TrainBeforeCheckpoint, TrainBeforeEvaluate, TrainEpoch, TrainException, TrainRunEnd,
    TrainRunStart, TrainWeights,
};
use plugin_api::{Error, TensorMut};

use super::{Counted, Trainer, Verdict, run_over, sizes, verdict};
use crate::error::EngineError;
use crate::train::checkpoint::Checkpoint;
use crate::train::loader::{LoaderPosition, TokenBatch};
use crate::train::measures::Measure;
use crate::train::parameters::Parameters;
use crate::train::utilization::peak_flops;

impl Trainer {
    /// Tells hooks that the run begins, or goes on.
    pub fn begin(&mut self) {
        self.topics.refresh();
        let (step, num_steps, lent) = (self.step, self.options().num_steps, PhantomData);
        let num_elements = self.parameters.num_elements();
        let mut event = TrainRunStart { step, num_steps, num_elements, lent };
        let _ = self.topics.run_start.emit(&mut event);
    }

    /// Tells hooks that the run is over.
    pub fn end(&mut self) {
        self.topics.refresh();
        let mut event = TrainRunEnd { step: self.step, lent: PhantomData };
        let _ = self.topics.run_end.emit(&mut event);
    }

    /// The most floating-point operations a second that this backend was seen to do here, in products of
    /// square matrices: some tenths of a second are spent on it.
    ///
    /// # Errors
    ///
    /// [`EngineError::Plugin`] if the backend fails.
    pub fn peak_flops(&self) -> Result<f64, EngineError> {
        peak_flops(&self.shared.core.backend, &*self.clock)
    }

    /// Whether the objective reads a column of this name.
    pub fn reads(&self, column: &str) -> bool {
        self.forward_backward.plan.inputs.iter().any(|port| port.name == column)
    }

    /// Tells hooks how often the data was read before the next step, if that has changed.
    pub fn at_epoch(&mut self, epoch: u64) {
        if self.epoch.replace(epoch) != Some(epoch) {
            self.topics.refresh();
            let mut event = TrainEpoch { step: self.step, epoch, lent: PhantomData };
            let _ = self.topics.epoch.emit(&mut event);
        }
    }

    /// The parameters that evaluation and export see: those of the last step, as hooks leave a copy of them.
    pub fn weights(&mut self) -> Cow<'_, Parameters> {
        self.topics.refresh();
        if !self.topics.weights.has_hooks() {
            return Cow::Borrowed(&self.parameters);
        }
        let (step, lent) = (self.step, PhantomData);
        let mut weights = self.parameters.clone();
        for (index, (name, parameter)) in weights.0.iter_mut().enumerate() {
            let values = &mut parameter.values;
            let mut event = TrainWeights { step, index, name, values, lent };
            let _ = self.topics.weights.emit(&mut event);
        }
        Cow::Owned(weights)
    }

    /// The loss of data that is not trained on, a mean over all tokens that count, and whether hooks end the run
    /// for it.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub fn evaluate(&mut self, batches: &[TokenBatch]) -> Result<(f64, Verdict), EngineError> {
        let weights = self.weights().into_owned();
        let (step, lent) = (self.step, PhantomData);
        let tokens = batches.iter().map(TokenBatch::num_tokens).sum();
        let mut event = TrainBeforeEvaluate { step, tokens, lent };
        let _ = self.topics.before_evaluate.emit(&mut event);
        let loss = self.loss_of(batches, &weights);
        let loss = loss.inspect_err(|error| self.failed(error))?;
        let mut event = TrainAfterEvaluate { step, loss, lent };
        Ok((loss, verdict(self.topics.after_evaluate.emit(&mut event))))
    }

    fn loss_of(
        &mut self,
        batches: &[TokenBatch],
        weights: &Parameters,
    ) -> Result<f64, EngineError> {
        let counted = Counted::of(batches)?;
        let mut sum = 0.0;
        for batch in batches {
            let mut loss = [0.0];
            self.measure(Measure::Loss, batch, counted, Some(weights), &mut loss)?;
            sum += f64::from(loss[0]);
        }
        Ok(sum)
    }

    /// The natural logarithms of the probabilities that the parameters give to the targets, one for each token:
    /// columns like `reference_logprobs` are made of them.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub fn logprobs(&mut self, batch: &TokenBatch) -> Result<Vec<f32>, EngineError> {
        self.logprobs_under(batch, None)
    }

    /// The same under other parameters in the place of those that are trained: those that the run began with.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub fn logprobs_of(
        &mut self,
        batch: &TokenBatch,
        parameters: &Parameters,
    ) -> Result<Vec<f32>, EngineError> {
        self.logprobs_under(batch, Some(parameters))
    }

    fn logprobs_under(
        &mut self,
        batch: &TokenBatch,
        parameters: Option<&Parameters>,
    ) -> Result<Vec<f32>, EngineError> {
        let mut logprobs = vec![0.0; batch.num_tokens()];
        self.measure(Measure::LogProbs, batch, Counted::NONE, parameters, &mut logprobs)?;
        Ok(logprobs)
    }

    /// The logits after each token, `[tokens, vocab_size]`.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub fn logits(&mut self, batch: &TokenBatch) -> Result<Vec<f32>, EngineError> {
        let mut logits = vec![0.0; batch.num_tokens() * self.vocab_size as usize];
        self.measure(Measure::Logits, batch, Counted::NONE, None, &mut logits)?;
        Ok(logits)
    }

    fn measure(
        &mut self,
        which: Measure,
        batch: &TokenBatch,
        counted: Counted,
        weights: Option<&Parameters>,
        out: &mut [f32],
    ) -> Result<(), EngineError> {
        self.options().check(batch)?;
        let sizes = sizes(self.options().tokens_max, self.options().num_seqs_max);
        let plan = self.measures.plan(which, &sizes, &self.shared.core.backend)?;
        let weights = weights.unwrap_or(&self.parameters);
        run_over(plan, batch, counted, [weights, &self.frozen], &mut [TensorMut::F32(out)])
    }

    /// The run as it stands, with what it cannot know: where the text stands, the last loss, and what the
    /// run is.
    pub fn checkpoint(&mut self, loader: LoaderPosition, loss: f64, run: &str) -> Checkpoint {
        let hooks = self.hook_states();
        Checkpoint {
            step: self.step,
            parameters: self.parameters.clone(),
            states: self.updates.states().clone(),
            hooks,
            loader,
            loss,
            evaluation: None,
            run: run.to_owned(),
        }
    }

    /// What each hook plugin wants to be kept.
    fn hook_states(&mut self) -> BTreeMap<String, HookState> {
        self.topics.refresh();
        let (step, lent) = (self.step, PhantomData);
        let mut states = BTreeMap::<String, HookState>::new();
        self.topics.before_checkpoint.emit_each(|plugin, call| {
            let state = states.entry(plugin.to_owned()).or_default();
            let _ = call(&mut TrainBeforeCheckpoint { step, state, lent });
        });
        let state = &mut HookState::new();
        self.topics.before_checkpoint.record(&TrainBeforeCheckpoint { step, state, lent });
        states.retain(|_, state| !state.is_empty());
        states
    }

    /// Tells hooks that a checkpoint of `step` is on the disk.
    pub fn saved(&mut self, step: u64, path: &str) {
        let mut event = TrainAfterCheckpoint { step, path, lent: PhantomData };
        let _ = self.topics.after_checkpoint.emit(&mut event);
    }

    /// Goes on where `checkpoint` stood.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] for parameters or states of other names or sizes, and for a hook that
    /// refuses its state: everything but the hooks is then as before.
    pub fn restore(&mut self, checkpoint: Checkpoint) -> Result<(), EngineError> {
        let parameters = |parameters: &Parameters| -> Vec<(String, Vec<u64>)> {
            parameters.0.iter().map(|(name, p)| (name.clone(), p.dims.clone())).collect()
        };
        if parameters(&checkpoint.parameters) != parameters(&self.parameters) {
            let (what, expected) = ("checkpoint", "the parameters of this model");
            return Err(EngineError::inconsistent(what, expected, "others"));
        }
        self.updates.check(&checkpoint.states)?;
        self.restore_hooks(&checkpoint)?;
        self.updates.restore(checkpoint.states);
        self.parameters = checkpoint.parameters;
        self.step = checkpoint.step;
        Ok(())
    }

    fn restore_hooks(&mut self, checkpoint: &Checkpoint) -> Result<(), EngineError> {
        self.topics.refresh();
        let (step, lent) = (checkpoint.step, PhantomData);
        let empty = HookState::new();
        let mut refused = None;
        self.topics.after_restore.emit_each(|plugin, call| {
            let state = checkpoint.hooks.get(plugin).unwrap_or(&empty);
            if call(&mut TrainAfterRestore { step, state, lent }) == Flow::Refuse {
                refused.get_or_insert_with(|| plugin.to_owned());
            }
        });
        if let Some(plugin) = refused {
            let what = format!("state of the hook `{plugin}` after step {step}");
            let found = "one that it refuses: its configuration or version is another";
            return Err(EngineError::inconsistent(what, "one that it goes on from", found));
        }
        self.topics.after_restore.record(&TrainAfterRestore { step, state: &empty, lent });
        Ok(())
    }

    /// Tells hooks of an error.
    pub(super) fn failed(&mut self, error: &EngineError) {
        let error = Error::outside(format!("step {}", self.step), error);
        let mut event = TrainException { step: self.step, error: &error, lent: PhantomData };
        let _ = self.topics.exception.emit(&mut event);
    }
}
