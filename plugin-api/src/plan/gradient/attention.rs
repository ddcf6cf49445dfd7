//! Attention within a step.

use super::{Backward, Call};
use crate::error::Result;
use crate::plan::{OpSink, ops};

impl Call<'_> {
    /// The rule of attention; whether this is one.
    pub(super) fn attention(&self, b: &mut Backward) -> Result<bool> {
        let (ops::ATTEND_WITHIN, &[q, k, v, sequence_index]) = (self.op, self.x) else {
            return Ok(false);
        };
        let inputs = [q, k, v, sequence_index, self.grad];
        let grads = b.g.op(ops::ATTEND_WITHIN_GRAD, &inputs, self.attrs.clone())?;
        for (i, grad) in grads.into_iter().enumerate() {
            self.give(b, i, |_| Ok(grad))?;
        }
        Ok(true)
    }
}
