//! What is computed without a gradient, when it is asked for the first time.

use std::sync::Arc;

use plugin_api::Backend;
use plugin_api::plan::{Dim, Plan};

use super::compiled::Compiled;
use super::plans;
use crate::error::EngineError;

/// Plans of the loss, of logits and of what follows from them.
pub(super) struct Measures {
    loss: Plan,
    logits: Plan,
    /// In the order of [`Measure`].
    compiled: [Option<Compiled>; 3],
}

/// Which of them.
#[derive(Clone, Copy)]
pub(super) enum Measure {
    /// `[1]`.
    Loss,
    /// `[rows, vocab_size]`.
    Logits,
    /// Of the targets, `[rows, 1]`.
    LogProbs,
}

impl Measures {
    pub(super) fn new(loss: Plan, logits: Plan) -> Self {
        Self { loss, logits, compiled: [None, None, None] }
    }

    pub(super) fn plan(
        &mut self,
        which: Measure,
        sizes: &[(Dim, usize)],
        backend: &Arc<dyn Backend>,
    ) -> Result<&mut Compiled, EngineError> {
        match &mut self.compiled[which as usize] {
            Some(plan) => Ok(plan),
            none => {
                let plan = match which {
                    Measure::Loss => self.loss.clone(),
                    Measure::Logits => self.logits.clone(),
                    Measure::LogProbs => plans::logprobs(&self.logits)?,
                };
                Ok(none.insert(Compiled::new(plan, sizes, backend)?))
            }
        }
    }
}
