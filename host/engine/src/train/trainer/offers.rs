//! What a step lends to hooks piece by piece: micro-batches, gradients, parameters.

use std::borrow::Cow;
use std::marker::PhantomData;

use plugin_api::events::{Flow, TrainGradient, TrainMicroBatch, TrainUpdate};

use super::{Trainer, norm};
use crate::error::EngineError;
use crate::train::loader::TokenBatch;

impl Trainer {
    /// The micro-batches as hooks leave them; their own if nobody listens.
    pub(super) fn seen_by_hooks<'b>(
        &mut self,
        batches: &'b [TokenBatch],
    ) -> Result<Cow<'b, [TokenBatch]>, EngineError> {
        if self.topics.micro_batch.is_empty() {
            return Ok(Cow::Borrowed(batches));
        }
        let (step, lent) = (self.step, PhantomData);
        let mut seen = batches.to_vec();
        for (micro_batch, batch) in seen.iter_mut().enumerate() {
            let TokenBatch { tokens, targets, weights, .. } = batch;
            let mut event = TrainMicroBatch { step, micro_batch, tokens, targets, weights, lent };
            let _ = self.topics.micro_batch.emit(&mut event);
            let ids = tokens.iter().chain(&*targets);
            if let Some(id) = ids.copied().find(|&id| u64::from(id) >= self.vocab_size) {
                let expected = format!("tokens below {}", self.vocab_size);
                let (what, found) = ("batch", format!("{id}"));
                return Err(EngineError::Request { what, expected, found });
            }
        }
        Ok(Cow::Owned(seen))
    }

    /// Lends the length of each parameter's gradient, and scales it as hooks say.
    pub(super) fn offer_gradients(&mut self) -> Flow {
        let mut flow = Flow::Continue;
        if self.topics.gradient.is_empty() {
            return flow;
        }
        let (step, lent) = (self.step, PhantomData);
        for (index, (name, sum)) in self.parameters.0.keys().zip(&mut self.sums).enumerate() {
            let norm = norm(std::slice::from_ref(sum));
            let mut event = TrainGradient { step, index, name, norm, scale: 1.0, lent };
            flow = flow.and(self.topics.gradient.emit(&mut event));
            let scale = event.scale;
            if scale != 1.0 {
                sum.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
            }
        }
        flow
    }

    /// Lends each parameter after its update.
    pub(super) fn offer_parameters(&mut self) {
        if !self.topics.update.has_hooks() {
            return;
        }
        let (step, lent) = (self.step, PhantomData);
        for (index, (name, parameter)) in self.parameters.0.iter_mut().enumerate() {
            let values = &mut parameter.values;
            let mut event = TrainUpdate { step, index, name, values, lent };
            let _ = self.topics.update.emit(&mut event);
        }
    }
}
