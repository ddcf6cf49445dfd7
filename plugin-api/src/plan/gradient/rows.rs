//! Ops over each row, and over all rows.

use super::{Backward, Call};
use crate::error::Result;
use crate::plan::{Attrs, OpSink, OpSinkExt, PlanBuilder, Val, ops};

impl Call<'_> {
    /// The rules of reductions, of softmax, and of elements picked from rows; whether this is one.
    pub(super) fn by_row(&self, b: &mut Backward) -> Result<bool> {
        let dy = self.grad;
        match (self.op, self.x) {
            (ops::REDUCE_SUM, &[x]) => self.give(b, 0, |g| {
                let ones = g.full_like(x, 1.0)?;
                g.mul(ones, dy)
            })?,
            (ops::REDUCE_MEAN, &[x]) => self.give(b, 0, |g| {
                let width = g.spec(x).width()?;
                let shares = g.full_like(x, 1.0 / width as f64)?;
                g.mul(shares, dy)
            })?,
            (ops::REDUCE_MAX, &[x]) => self.give(b, 0, |g| {
                let peaks = peaks(g, x, self.y)?;
                let count = g.sum(peaks)?;
                let share = g.one(ops::DIV, &[dy, count], Attrs::new())?;
                g.mul(peaks, share)
            })?,
            (ops::REDUCE_ROWS, &[x]) => self.give(b, 0, |g| {
                let zeros = g.full_like(x, 0.0)?;
                g.add(zeros, dy)
            })?,
            (ops::SOFTMAX, &[_]) => self.give(b, 0, |g| softmax(g, self.y, dy))?,
            (ops::TOP_K, &[x]) => {
                let [_, indices] = self.outputs[..] else { return Ok(false) };
                self.give(b, 0, |g| spread(g, x, indices, dy))?;
            }
            (ops::TAKE_ALONG, &[x, indices]) => self.give(b, 0, |g| spread(g, x, indices, dy))?,
            (ops::SCATTER_ALONG, &[_, indices, _]) => {
                self.give(b, 0, |_| Ok(dy))?;
                self.give(b, 2, |g| g.one(ops::TAKE_ALONG, &[dy, indices], Attrs::new()))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// 1 where an element is the greatest of its row.
fn peaks(g: &mut PlanBuilder, x: Val, y: Val) -> Result<Val> {
    let below = g.sub(x, y)?;
    let below = g.unary(ops::NEG, below)?;
    let is_below = g.unary(ops::IS_POSITIVE, below)?;
    let rest = g.unary(ops::NEG, is_below)?;
    g.offset(rest, 1.0)
}

/// `y (dy − Σ dy y)`
fn softmax(g: &mut PlanBuilder, y: Val, dy: Val) -> Result<Val> {
    let weighed = g.mul(dy, y)?;
    let mean = g.sum(weighed)?;
    let centered = g.sub(dy, mean)?;
    g.mul(y, centered)
}

/// `updates` at `indices` of rows like those of `x`, zeros elsewhere.
fn spread(g: &mut PlanBuilder, x: Val, indices: Val, updates: Val) -> Result<Val> {
    let zeros = g.full_like(x, 0.0)?;
    g.one(ops::SCATTER_ALONG, &[zeros, indices, updates], Attrs::new())
}
