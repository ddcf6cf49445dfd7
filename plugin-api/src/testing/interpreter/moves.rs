//! Ops that put elements elsewhere.

use std::borrow::Cow;

use kernels_reference as kernels;

use super::op::Call;
use super::value::{Arithmetic, Numbers, Value};
use crate::error::{Error, Result};
use crate::plan::ops;

impl<T: Arithmetic> Call<'_, T> {
    /// Ops that only move elements, whatever these are.
    pub(super) fn moved(&self) -> Result<Numbers<T>> {
        match self.value(0)? {
            Value::Indices(_) => {
                let args: Result<Vec<_>> =
                    self.args.iter().map(|(x, _)| x.indices().map(Cow::Borrowed)).collect();
                Ok(Numbers::Indices(self.permuted(0, &args?)?))
            }
            _ if self.op == ops::GATHER => {
                Ok(Numbers::Reals(self.permuted(T::zero(), &[self.reals(0)?])?))
            }
            _ => {
                let args: Result<Vec<_>> = self.args.iter().map(|(x, _)| x.reals()).collect();
                Ok(Numbers::Reals(self.permuted(T::zero(), &args?)?))
            }
        }
    }

    fn permuted<E: Copy>(&self, zero: E, args: &[Cow<'_, [E]>]) -> Result<Vec<E>> {
        let shape = self.shape(0)?;
        if self.op == ops::GATHER {
            let ([_, width], rows) = (self.rows_width(0)?, self.indices_below(1, 0)?);
            let mut out = vec![zero; rows.len() * width];
            kernels::gather(&args[0], rows, width, &mut out);
            return Ok(out);
        }
        if self.op == ops::TRANSPOSE {
            return transposed(zero, &args[0], shape, self.attrs.get_ints("axes")?);
        }
        let axis = self.attrs.get_count("axis")?;
        let extent = *shape.get(axis).ok_or_else(|| Error::shape(self.op, "an axis", axis))?;
        let outer: usize = shape[..axis].iter().product();
        let inner: usize = shape[axis + 1..].iter().product();
        if self.op == ops::CONCAT {
            let parts: Vec<&[E]> = args.iter().map(|part| &**part).collect();
            let mut out = vec![zero; parts.iter().map(|part| part.len()).sum()];
            kernels::concat(&parts, [outer, inner], &mut out);
            return Ok(out);
        }
        let (start, len) = (self.attrs.get_count("start")?, self.attrs.get_count("len")?);
        let mut out = vec![zero; outer * len * inner];
        kernels::slice(&args[0], [outer, extent, inner], start..start + len, &mut out);
        Ok(out)
    }
}

fn transposed<E: Copy>(zero: E, x: &[E], shape: &[usize], axes: &[i64]) -> Result<Vec<E>> {
    let missing = 4_usize.checked_sub(shape.len());
    let missing =
        missing.ok_or_else(|| Error::unsupported(ops::TRANSPOSE, "more than four axes"))?;
    let (mut padded, mut order) = ([1; 4], [0, 1, 2, 3]);
    for (i, (&extent, &axis)) in shape.iter().zip(axes).enumerate() {
        padded[missing + i] = extent;
        order[missing + i] = missing + axis.unsigned_abs() as usize;
    }
    let mut out = vec![zero; x.len()];
    kernels::transpose(x, padded, order, &mut out);
    Ok(out)
}
