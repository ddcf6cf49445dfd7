//! One op: checks what the kernels take for granted, then calls the kernel.

use std::borrow::Cow;

use half::{bf16, f16};
use kernels_reference::{self as kernels, BinaryOp, Rhs, UnaryOp};

use super::state::StateArena;
use super::value::{Arithmetic, Numbers, Value};
use crate::error::{Error, Result};
use crate::kinds::rotary_embedding::Pairing;
use crate::plan::ops::{self, Attrs, OpId};
use crate::plan::{Spec, StatePort};
use crate::tensor::DType;

/// An op with everything it reads.
pub(super) struct Call<'c, T: Arithmetic> {
    pub(super) op: OpId,
    pub(super) attrs: &'c Attrs,
    /// Arguments with their shapes.
    pub(super) args: Vec<(&'c Value<'c, T>, Vec<usize>)>,
    pub(super) results: Vec<&'c Spec>,
}

impl<T: Arithmetic> Call<'_, T> {
    pub(super) fn run(
        &self,
        states: &[StatePort],
        state: &mut StateArena<'_>,
    ) -> Result<Vec<Numbers<T>>> {
        match self.op {
            ops::TOP_K => self.top_k(),
            ops::ATTEND_WITHIN_GRAD => self.attend_within_grad(),
            ops::ATTEND => Ok(vec![Numbers::Reals(self.attend(states, state)?)]),
            ops::CAUSAL_CONV => Ok(vec![Numbers::Reals(self.causal_conv(states, state)?)]),
            ops::SELECTIVE_SCAN => Ok(vec![Numbers::Reals(self.selective_scan(states, state)?)]),
            ops::CAST => Ok(vec![self.cast()?]),
            ops::RESHAPE => Ok(vec![self.value(0)?.to_numbers()?]),
            ops::GATHER | ops::CONCAT | ops::SLICE | ops::TRANSPOSE => Ok(vec![self.moved()?]),
            _ => Ok(vec![Numbers::Reals(self.computed()?)]),
        }
    }

    /// The result of the kernel for the whole of a fused op, if there is one.
    pub(super) fn whole(&self) -> Option<Result<Vec<Numbers<T>>>> {
        let reals = match self.op {
            ops::RMS_NORM => self.rms_norm(),
            ops::LAYER_NORM => self.layer_norm(),
            ops::ROPE => self.rope(),
            ops::SWIGLU => self.gated(kernels::swiglu),
            ops::GEGLU => self.gated(kernels::geglu),
            _ => return None,
        };
        Some(reals.map(|x| vec![Numbers::Reals(x)]))
    }

    fn computed(&self) -> Result<Vec<T>> {
        match self.op {
            ops::EMBED => self.embed(),
            ops::MATMUL => self.matmul(),
            ops::ADD => self.binary(BinaryOp::Add),
            ops::SUB => self.binary(BinaryOp::Sub),
            ops::MUL => self.binary(BinaryOp::Mul),
            ops::DIV => self.binary(BinaryOp::Div),
            ops::MAX => self.binary(BinaryOp::Max),
            ops::MIN => self.binary(BinaryOp::Min),
            ops::NEG => self.unary(UnaryOp::Neg),
            ops::EXP => self.unary(UnaryOp::Exp),
            ops::LOG => self.unary(UnaryOp::Log),
            ops::SQRT => self.unary(UnaryOp::Sqrt),
            ops::RSQRT => self.unary(UnaryOp::Rsqrt),
            ops::TANH => self.unary(UnaryOp::Tanh),
            ops::SIGMOID => self.unary(UnaryOp::Sigmoid),
            ops::SILU => self.unary(UnaryOp::Silu),
            ops::GELU => self.unary(UnaryOp::Gelu),
            ops::GELU_TANH => self.unary(UnaryOp::GeluTanh),
            ops::COS => Ok(self.reals(0)?.iter().map(|x| x.cos()).collect()),
            ops::SIN => Ok(self.reals(0)?.iter().map(|x| x.sin()).collect()),
            ops::ERF => self.unary(UnaryOp::Erf),
            ops::IS_POSITIVE => self.unary(UnaryOp::IsPositive),
            ops::FULL_LIKE => {
                let shape = self.shape(0)?;
                Ok(vec![self.float("value")?; shape.iter().product()])
            }
            ops::MATMUL_EXPERTS => self.matmul_experts(),
            ops::MATMUL_ROWS => self.matmul_rows(),
            ops::REDUCE_ROWS => {
                let mut out = vec![T::zero(); self.rows_width(0)?[1]];
                kernels::reduce_rows(&self.reals(0)?, &mut out);
                Ok(out)
            }
            ops::TAKE_ALONG => {
                let (sizes, indices) = self.along()?;
                let mut out = vec![T::zero(); indices.len()];
                kernels::take_along(&self.reals(0)?, indices, sizes, &mut out);
                Ok(out)
            }
            ops::SCATTER_ALONG => {
                let (sizes, indices) = self.along()?;
                let mut out = self.reals(0)?.into_owned();
                kernels::scatter_along(&mut out, indices, &self.reals(2)?, sizes);
                Ok(out)
            }
            ops::SCALE => self.shifted(kernels::scale),
            ops::OFFSET => self.shifted(kernels::offset),
            ops::REDUCE_SUM => self.reduced(kernels::reduce_sum),
            ops::REDUCE_MEAN => self.reduced(kernels::reduce_mean),
            ops::REDUCE_MAX => self.reduced(kernels::reduce_max),
            ops::SOFTMAX => {
                let [_, width] = self.rows_width(0)?;
                self.over(|x, out| kernels::softmax(x, width, out))
            }
            ops::SCATTER_ADD => self.scatter_add(),
            ops::ATTEND_WITHIN => self.attend_within(),
            ops::CONSTANT => {
                let values = self.attrs.get_floats("values")?;
                Ok(values.iter().map(|&x| T::from_f64(f64::from(x))).collect())
            }
            _ => Err(Error::unsupported(self.op, "the interpreter does not know this op")),
        }
    }

    fn embed(&self) -> Result<Vec<T>> {
        let ([_, width], ids) = (self.rows_width(0)?, self.indices_below(1, 0)?);
        let mut out = vec![T::zero(); ids.len() * width];
        match self.value(0)? {
            Value::Weight(table) => kernels::embed(table, ids, width, &mut out),
            table => kernels::embed(&table.reals()?, ids, width, &mut out),
        }
        Ok(out)
    }

    fn matmul(&self) -> Result<Vec<T>> {
        let ([rows, k], [n, _]) = (self.rows_width(0)?, self.rows_width(1)?);
        let mut out = vec![T::zero(); rows * n];
        kernels::matmul(&self.reals(0)?, &self.reals(1)?, [rows, n, k], &mut out);
        Ok(out)
    }

    fn matmul_experts(&self) -> Result<Vec<T>> {
        let ([rows, k], [experts_n, _]) = (self.rows_width(0)?, self.rows_width(1)?);
        let experts = self.shape(1)?[0].max(1);
        let chosen = self.value(2)?.indices()?;
        if let Some(found) = chosen.iter().find(|&&expert| expert as usize >= experts) {
            return Err(Error::shape(self.op, format!("experts below {experts}"), found));
        }
        let (n, per_row) = (experts_n / experts, chosen.len() / rows.max(1));
        let mut out = vec![T::zero(); chosen.len() * n];
        let (x, w) = (self.reals(0)?, self.reals(1)?);
        kernels::matmul_experts(&x, &w, chosen, [per_row, n, k], &mut out);
        Ok(out)
    }

    fn matmul_rows(&self) -> Result<Vec<T>> {
        let ([rows, n], [_, k]) = (self.rows_width(0)?, self.rows_width(1)?);
        let mut out = vec![T::zero(); n * k];
        kernels::matmul_rows(&self.reals(0)?, &self.reals(1)?, [rows, n, k], &mut out);
        Ok(out)
    }

    /// The width of a row, how many elements of it are meant, and which.
    fn along(&self) -> Result<([usize; 2], &[u32])> {
        let ([_, width], [_, k]) = (self.rows_width(0)?, self.rows_width(1)?);
        let indices = self.value(1)?.indices()?;
        match indices.iter().find(|&&index| index as usize >= width) {
            Some(index) => Err(Error::shape(self.op, format!("indices below {width}"), index)),
            None => Ok(([width, k], indices)),
        }
    }

    fn binary(&self, op: BinaryOp) -> Result<Vec<T>> {
        let (a, b) = (self.shape(0)?, self.shape(1)?);
        let layout = match () {
            () if a == b => Rhs::Same,
            () if b.len() == 1 && b.last() == a.last() => Rhs::Row,
            () => Rhs::Column,
        };
        let (size, rhs) = (self.rows_width(0)?, self.reals(1)?);
        self.over(|x, out| kernels::elementwise(op, x, &rhs, layout, size, out))
    }

    fn unary(&self, op: UnaryOp) -> Result<Vec<T>> {
        self.over(|x, out| kernels::unary(op, x, out))
    }

    fn shifted(&self, kernel: fn(&[T], T, &mut [T])) -> Result<Vec<T>> {
        let by = self.float("by")?;
        self.over(|x, out| kernel(x, by, out))
    }

    fn reduced(&self, kernel: fn(&[T], usize, &mut [T])) -> Result<Vec<T>> {
        let [rows, width] = self.rows_width(0)?;
        let mut out = vec![T::zero(); rows];
        kernel(&self.reals(0)?, width, &mut out);
        Ok(out)
    }

    fn top_k(&self) -> Result<Vec<Numbers<T>>> {
        let ([rows, width], k) = (self.rows_width(0)?, self.attrs.get_count("k")?);
        let (mut values, mut indices) = (vec![T::zero(); rows * k], vec![0; rows * k]);
        kernels::top_k(&self.reals(0)?, width, k, &mut values, &mut indices);
        Ok(vec![Numbers::Reals(values), Numbers::Indices(indices)])
    }

    fn scatter_add(&self) -> Result<Vec<T>> {
        let [_, width] = self.rows_width(0)?;
        let mut out = self.reals(0)?.into_owned();
        kernels::scatter_add(&mut out, self.indices_below(1, 0)?, &self.reals(2)?, width);
        Ok(out)
    }

    fn cast(&self) -> Result<Numbers<T>> {
        let dtype = self.results.first().map_or(DType::F32, |spec| spec.dtype);
        if let Value::Indices(x) = self.value(0)? {
            return match dtype {
                DType::U32 => Ok(Numbers::Indices(x.to_vec())),
                _ if dtype.is_float() => {
                    Ok(Numbers::Reals(x.iter().map(|&x| T::from_f64(f64::from(x))).collect()))
                }
                _ => Err(Error::unsupported(self.op, format!("a cast to {dtype}"))),
            };
        }
        let x = self.reals(0)?;
        let through = |round: fn(f64) -> f64| x.iter().map(move |x| T::from_f64(round(x.to_f64())));
        Ok(match dtype {
            DType::U32 => Numbers::Indices(x.iter().map(|x| x.to_f64() as u32).collect()),
            DType::F16 => Numbers::Reals(through(|x| f16::from_f64(x).to_f64()).collect()),
            DType::BF16 => Numbers::Reals(through(|x| bf16::from_f64(x).to_f64()).collect()),
            DType::F32 | DType::F64 => Numbers::Reals(x.into_owned()),
            DType::U8 => return Err(Error::unsupported(self.op, "a cast to u8")),
        })
    }

    fn rms_norm(&self) -> Result<Vec<T>> {
        let (w, eps) = (self.reals(1)?, self.float("eps")?);
        let offset = self.float("weight_offset")?;
        self.over(|x, out| kernels::rms_norm(x, &w, eps, offset, out))
    }

    fn layer_norm(&self) -> Result<Vec<T>> {
        let (w, b, eps) = (self.reals(1)?, self.reals(2)?, self.float("eps")?);
        self.over(|x, out| kernels::layer_norm(x, &w, &b, eps, out))
    }

    fn rope(&self) -> Result<Vec<T>> {
        let &[_, heads, head_dim] = self.shape(0)? else {
            return Err(Error::shape(self.op, "[tokens, heads, head_dim]", "other axes"));
        };
        let pairing = match Pairing::of(self.attrs.get_text("pairing")?)? {
            Pairing::HalfSplit => kernels::Pairing::HalfSplit,
            Pairing::Interleaved => kernels::Pairing::Interleaved,
        };
        let inv_freq = self.attrs.get_floats("inv_freq")?;
        if inv_freq.len() > head_dim / 2 {
            return Err(Error::shape(self.op, "at most half a head", inv_freq.len()));
        }
        let shape = kernels::RopeShape { heads, head_dim, pairing };
        let factor = self.float("attention_factor")?;
        let mut x = self.reals(0)?.into_owned();
        kernels::rope(&mut x, self.value(1)?.indices()?, inv_freq, factor, shape);
        Ok(x)
    }

    fn gated(&self, kernel: fn(&[T], &[T], &mut [T])) -> Result<Vec<T>> {
        let up = self.reals(1)?;
        self.over(|gate, out| kernel(gate, &up, out))
    }

    /// A result of the shape of the first argument.
    fn over(&self, kernel: impl FnOnce(&[T], &mut [T])) -> Result<Vec<T>> {
        let x = self.reals(0)?;
        let mut out = vec![T::zero(); x.len()];
        kernel(&x, &mut out);
        Ok(out)
    }

    pub(super) fn value(&self, i: usize) -> Result<&Value<'_, T>> {
        let arg = self.args.get(i).map(|(value, _)| *value);
        arg.ok_or_else(|| Error::shape(self.op, format!("argument {i}"), "fewer"))
    }

    pub(super) fn reals(&self, i: usize) -> Result<Cow<'_, [T]>> {
        self.value(i)?.reals()
    }

    pub(super) fn shape(&self, i: usize) -> Result<&[usize]> {
        let shape = self.args.get(i).map(|(_, shape)| &shape[..]);
        shape.ok_or_else(|| Error::shape(self.op, format!("argument {i}"), "fewer"))
    }

    /// An argument as a number of rows of the width of its last axis.
    pub(super) fn rows_width(&self, i: usize) -> Result<[usize; 2]> {
        let shape = self.shape(i)?;
        let (width, outer) = shape.split_last().unwrap_or((&1, &[]));
        Ok([outer.iter().product(), *width])
    }

    /// The indices of argument `i`, each below the outermost extent of argument `of`.
    pub(super) fn indices_below(&self, i: usize, of: usize) -> Result<&[u32]> {
        let (indices, rows) = (self.value(i)?.indices()?, self.rows_width(of)?[0]);
        match indices.iter().find(|&&index| index as usize >= rows) {
            Some(index) => Err(Error::shape(self.op, format!("indices below {rows}"), index)),
            None => Ok(indices),
        }
    }

    pub(super) fn float(&self, name: &str) -> Result<T> {
        self.attrs.get_float(name).map(T::from_f64)
    }
}
