//! Ops that put elements elsewhere: their gradients put them back.

use super::{Backward, Call};
use crate::error::{Error, Result};
use crate::plan::{Attr, Attrs, Dim, OpSink, OpSinkExt, PlanBuilder, Val, ops};

impl Call<'_> {
    /// The rules of ops that move elements; whether this is one.
    pub(super) fn moved(&self, b: &mut Backward) -> Result<bool> {
        let dy = self.grad;
        match (self.op, self.x) {
            (ops::EMBED | ops::GATHER, &[x, indices]) => self.give(b, 0, |g| {
                let zeros = g.full_like(x, 0.0)?;
                g.one(ops::SCATTER_ADD, &[zeros, indices, dy], Attrs::new())
            })?,
            (ops::SCATTER_ADD, &[_, indices, _]) => {
                self.give(b, 0, |_| Ok(dy))?;
                self.give(b, 2, |g| g.gather(dy, indices))?;
            }
            (ops::CONCAT, parts) => self.parted(b, parts)?,
            (ops::SLICE, &[x]) => self.give(b, 0, |g| self.padded(g, x))?,
            (ops::RESHAPE, &[x]) => self.give(b, 0, |g| {
                let dims = dims_of(g, x)?;
                g.reshape(dy, &dims)
            })?,
            (ops::TRANSPOSE, &[_]) => {
                let axes = self.attrs.get_ints("axes")?;
                let mut back = vec![0; axes.len()];
                for (i, axis) in axes.iter().enumerate() {
                    back[axis.unsigned_abs() as usize] = i as i64;
                }
                let attrs = Attrs::new().with("axes", Attr::Ints(back));
                self.give(b, 0, |g| g.one(ops::TRANSPOSE, &[dy], attrs))?;
            }
            (ops::CAST, &[x]) => self.give(b, 0, |g| {
                let dtype = g.spec(x).dtype;
                g.cast(dy, dtype)
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Each part of a `concat` gets its own part back.
    fn parted(&self, b: &mut Backward, parts: &[Val]) -> Result<()> {
        let axis = self.attrs.get_count("axis")?;
        let mut start = 0;
        for (i, &part) in parts.iter().enumerate() {
            let len = extent(&b.g, part, axis)?;
            self.give(b, i, |g| g.slice(self.grad, axis, start, len))?;
            start += len;
        }
        Ok(())
    }

    /// A `slice` gets zeros around it.
    fn padded(&self, g: &mut PlanBuilder, x: Val) -> Result<Val> {
        let axis = self.attrs.get_count("axis")?;
        let (start, len) =
            (self.attrs.get_count("start")? as u64, self.attrs.get_count("len")? as u64);
        let end = start + len;
        let rest = extent(g, x, axis)? - end;
        let zeros = g.full_like(x, 0.0)?;
        let mut parts = Vec::new();
        if start > 0 {
            parts.push(g.slice(zeros, axis, 0, start)?);
        }
        parts.push(self.grad);
        if rest > 0 {
            parts.push(g.slice(zeros, axis, end, rest)?);
        }
        g.concat(&parts, axis)
    }
}

fn extent(g: &PlanBuilder, x: Val, axis: usize) -> Result<u64> {
    let extent = g.spec(x).dims.get(axis).and_then(|dim| dim.fixed());
    extent.ok_or_else(|| Error::shape("axis", "a fixed extent", g.spec(x)))
}

/// The extents of `x` as a `reshape` takes them.
fn dims_of(g: &PlanBuilder, x: Val) -> Result<Vec<i64>> {
    let dim = |(i, dim): (usize, &Dim)| match (i, dim) {
        (_, Dim::Fixed(n)) => Ok(*n as i64),
        (0, Dim::Symbol(_)) => Ok(-1),
        (_, Dim::Symbol(_)) => Err(Error::shape(ops::RESHAPE, "a symbol first only", g.spec(x))),
    };
    g.spec(x).dims.iter().enumerate().map(dim).collect()
}
