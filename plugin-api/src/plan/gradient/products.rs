//! Matrix products.

use super::{Backward, Call};
use crate::error::Result;
use crate::plan::{Attr, Attrs, OpSinkExt, PlanBuilder, Val, ops};

impl Call<'_> {
    /// The rules of products; whether this is one.
    pub(super) fn product(&self, b: &mut Backward) -> Result<bool> {
        let (dy, none) = (self.grad, Attrs::new);
        match (self.op, self.x) {
            // y = x wᵀ
            (ops::MATMUL, &[x, w]) => {
                self.give(b, 0, |g| times(g, dy, w))?;
                self.give(b, 1, |g| g.one(ops::MATMUL_ROWS, &[dy, x], none()))?;
            }
            // y = lᵀ r
            (ops::MATMUL_ROWS, &[l, r]) => {
                self.give(b, 0, |g| g.matmul(r, dy))?;
                self.give(b, 1, |g| times(g, l, dy))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// `x` times `w`, not transposed.
fn times(g: &mut PlanBuilder, x: Val, w: Val) -> Result<Val> {
    let axes = Attrs::new().with("axes", Attr::Ints(vec![1, 0]));
    let transposed = g.one(ops::TRANSPOSE, &[w], axes)?;
    g.matmul(x, transposed)
}
