//! Fused ops whose gradient is simpler than that of their expansion.

use super::{Backward, Call};
use crate::error::Result;
use crate::plan::{Attrs, OpSinkExt, fused, ops};

impl Call<'_> {
    /// Runs the rule of a fused op that has one of its own; whether it has.
    pub(super) fn whole(&self, b: &mut Backward) -> Result<bool> {
        match (self.op, self.x) {
            // The transpose of a rotation is the rotation back.
            (ops::ROPE, &[_, positions]) => {
                let mut rotation = fused::rotation_of(self.attrs)?;
                rotation.inv_freq.iter_mut().for_each(|angle| *angle = -*angle);
                self.give(b, 0, |g| fused::rope(g, self.grad, positions, &rotation))?;
            }
            // softmax(logits) less 1 at the target, times what the row got.
            (ops::CROSS_ENTROPY, &[logits, targets]) => self.give(b, 0, |g| {
                let probabilities = g.unary(ops::SOFTMAX, logits)?;
                let weighed = g.mul(probabilities, self.grad)?;
                let targets = g.reshape(targets, &[-1, 1])?;
                let less = g.unary(ops::NEG, self.grad)?;
                g.one(ops::SCATTER_ALONG, &[weighed, targets, less], Attrs::new())
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}
