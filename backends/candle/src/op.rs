//! The ops on tensors, as candle's.
//!
//! For independent rows a matmul runs in blocks of [`ROW_BLOCK`] rows, the last of them filled up
//! with zeros: the kernels behind candle choose their blocking, and for one row another kernel, by
//! the shape, so that only equal shapes give equal bits.

use candle_core::{D, DType, Device, Tensor};
use plugin_api::plan::{Attrs, OpId, ops};
use plugin_api::{Error, Result};

use crate::fault::Outcome;
use rope::Rope;

mod rope;

type Unary = fn(&Tensor) -> candle_core::Result<Tensor>;
type Binary = fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>;

/// An op with its attributes read.
#[derive(Debug)]
pub(crate) enum Op {
    /// `embed` and `gather`.
    Rows,
    Matmul {
        /// Whether in blocks of equal shape.
        in_blocks: bool,
    },
    /// `matmul_experts`
    Experts,
    Unary(Unary),
    /// candle repeats a smaller right side.
    Binary(Binary),
    /// Times the first, plus the second.
    Affine(f64, f64),
    TopK(usize),
    ScatterAdd,
    Concat(usize),
    Slice {
        axis: usize,
        start: usize,
        len: usize,
    },
    Reshape,
    Transpose(Vec<usize>),
    Cast(plugin_api::DType),
    Constant(Vec<f32>),
    RmsNorm {
        eps: f64,
        weight_offset: f64,
    },
    LayerNorm {
        eps: f64,
    },
    Rope(Rope),
    /// `swiglu` and `geglu`: the curve of the first times the second.
    Gated(Unary),
}

impl Op {
    /// Reads the attributes of `op`, which gives `dtype` from `num_args` arguments.
    pub(crate) fn new(
        op: OpId,
        attrs: &Attrs,
        num_args: usize,
        dtype: plugin_api::DType,
    ) -> Result<Self> {
        let this = match op {
            ops::EMBED | ops::GATHER => Self::Rows,
            ops::MATMUL => Self::Matmul { in_blocks: true },
            ops::MATMUL_EXPERTS => Self::Experts,
            ops::ADD => Self::Binary(Tensor::broadcast_add),
            ops::SUB => Self::Binary(Tensor::broadcast_sub),
            ops::MUL => Self::Binary(Tensor::broadcast_mul),
            ops::DIV => Self::Binary(Tensor::broadcast_div),
            ops::MAX => Self::Binary(Tensor::broadcast_maximum),
            ops::MIN => Self::Binary(Tensor::broadcast_minimum),
            ops::NEG => Self::Unary(Tensor::neg),
            ops::EXP => Self::Unary(Tensor::exp),
            ops::LOG => Self::Unary(Tensor::log),
            ops::SQRT => Self::Unary(Tensor::sqrt),
            ops::RSQRT => Self::Unary(rsqrt),
            ops::TANH => Self::Unary(Tensor::tanh),
            ops::SIGMOID => Self::Unary(|x| x.neg()?.exp()?.affine(1.0, 1.0)?.recip()),
            ops::SILU => Self::Unary(Tensor::silu),
            ops::GELU => Self::Unary(Tensor::gelu_erf),
            ops::GELU_TANH => Self::Unary(Tensor::gelu),
            ops::COS => Self::Unary(Tensor::cos),
            ops::SIN => Self::Unary(Tensor::sin),
            ops::REDUCE_SUM => Self::Unary(|x| x.sum_keepdim(D::Minus1)),
            ops::REDUCE_MEAN => Self::Unary(|x| x.mean_keepdim(D::Minus1)),
            ops::REDUCE_MAX => Self::Unary(|x| x.max_keepdim(D::Minus1)),
            ops::SOFTMAX => Self::Unary(softmax),
            ops::SCALE => Self::Affine(attrs.get_float("by")?, 0.0),
            ops::OFFSET => Self::Affine(1.0, attrs.get_float("by")?),
            ops::TOP_K => Self::TopK(attrs.get_count("k")?),
            ops::SCATTER_ADD => Self::ScatterAdd,
            ops::CONCAT => Self::Concat(attrs.get_count("axis")?),
            ops::SLICE => {
                let (axis, start) = (attrs.get_count("axis")?, attrs.get_count("start")?);
                Self::Slice { axis, start, len: attrs.get_count("len")? }
            }
            ops::RESHAPE => Self::Reshape,
            ops::TRANSPOSE => {
                let axes = attrs.get_ints("axes")?;
                Self::Transpose(axes.iter().map(|axis| axis.unsigned_abs() as usize).collect())
            }
            ops::CAST => Self::Cast(dtype),
            ops::CONSTANT => Self::Constant(attrs.get_floats("values")?.to_vec()),
            ops::RMS_NORM => Self::RmsNorm {
                eps: attrs.get_float("eps")?,
                weight_offset: attrs.get_float("weight_offset")?,
            },
            ops::LAYER_NORM => Self::LayerNorm { eps: attrs.get_float("eps")? },
            ops::ROPE => Self::Rope(Rope::new(attrs)?),
            ops::SWIGLU => Self::Gated(Tensor::silu),
            ops::GEGLU => Self::Gated(Tensor::gelu),
            _ => return Err(Error::unsupported(op, "it is no op on tensors alone")),
        };
        let expected = this.num_args().unwrap_or(num_args.max(1));
        let is_fit = expected == num_args;
        is_fit
            .then_some(this)
            .ok_or_else(|| Error::shape(op, format!("{expected} inputs"), num_args))
    }

    /// Nothing if any number will do.
    fn num_args(&self) -> Option<usize> {
        Some(match self {
            Self::Constant(_) => 0,
            Self::Rows | Self::Matmul { .. } | Self::Binary(_) | Self::RmsNorm { .. } => 2,
            Self::Rope(_) | Self::Gated(_) => 2,
            Self::ScatterAdd | Self::LayerNorm { .. } | Self::Experts => 3,
            Self::Concat(_) => return None,
            _ => 1,
        })
    }

    /// That every index points at a row. candle takes the highest index for a row of zeros.
    pub(crate) fn check_indices(&self, args: &[&Tensor]) -> Outcome<()> {
        let (rows, indices) = match self {
            Self::Rows | Self::ScatterAdd => (args[0].dim(0)?, args[1].to_vec1::<u32>()?),
            Self::Experts => (args[1].dim(0)?, args[2].flatten_all()?.to_vec1()?),
            _ => return Ok(()),
        };
        match indices.iter().find(|&&index| index as usize >= rows) {
            Some(index) => Err(Error::shape("index", format!("below {rows}"), index).into()),
            None => Ok(()),
        }
    }

    /// The results, of which the first has `dtype` and `shape`.
    pub(crate) fn run(
        &self,
        args: &[&Tensor],
        dtype: DType,
        shape: &[usize],
    ) -> Outcome<Vec<Tensor>> {
        let result = match self {
            Self::Rows => args[0].index_select(args[1], 0)?,
            Self::Matmul { in_blocks } => {
                let weight = args[1].to_dtype(args[0].dtype())?.t()?;
                matmul(args[0], &weight, shape, *in_blocks)?
            }
            Self::Experts => matmul_experts([args[0], args[1], args[2]], shape)?,
            Self::Unary(op) => op(args[0])?,
            Self::Binary(op) => op(args[0], args[1])?,
            Self::Affine(times, plus) => args[0].affine(*times, *plus)?,
            Self::TopK(k) => return top_k(args[0], *k),
            Self::ScatterAdd => args[0].index_add(args[1], args[2], 0)?,
            Self::Concat(axis) => Tensor::cat(args, *axis)?,
            Self::Slice { axis, start, len } => args[0].narrow(*axis, *start, *len)?,
            Self::Reshape => args[0].reshape(shape)?,
            Self::Transpose(axes) => args[0].permute(&axes[..])?,
            Self::Cast(to) => cast(args[0], *to, dtype)?,
            Self::Constant(values) => Tensor::new(&values[..], &Device::Cpu)?,
            Self::RmsNorm { eps, weight_offset } => {
                let weight = args[1].to_dtype(dtype)?.affine(1.0, *weight_offset)?;
                normed(args[0], *eps)?.broadcast_mul(&weight)?
            }
            Self::LayerNorm { eps } => {
                let (weight, bias) = (args[1].to_dtype(dtype)?, args[2].to_dtype(dtype)?);
                let centered = args[0].broadcast_sub(&args[0].mean_keepdim(D::Minus1)?)?;
                normed(&centered, *eps)?.broadcast_mul(&weight)?.broadcast_add(&bias)?
            }
            Self::Rope(rope) => rope.run(args[0], args[1])?,
            Self::Gated(curve) => curve(args[0])?.mul(args[1])?,
        };
        Ok(vec![result])
    }
}

/// `x [.., k]` times `w [k, n]`.
fn matmul(x: &Tensor, w: &Tensor, shape: &[usize], in_blocks: bool) -> Outcome<Tensor> {
    let k = x.dim(D::Minus1)?;
    let rows = x.elem_count().checked_div(k).unwrap_or(0);
    if rows == 0 {
        return Ok(Tensor::zeros(shape, x.dtype(), &Device::Cpu)?);
    }
    let x = x.reshape((rows, k))?;
    if !in_blocks {
        return Ok(x.matmul(w)?.reshape(shape)?);
    }
    let x = x.pad_with_zeros(0, 0, rows.next_multiple_of(ROW_BLOCK) - rows)?;
    let block = |start| x.narrow(0, start, ROW_BLOCK)?.matmul(w);
    let blocks = (0..rows).step_by(ROW_BLOCK).map(block);
    let blocks = blocks.collect::<candle_core::Result<Vec<Tensor>>>()?;
    Ok(Tensor::cat(&blocks, 0)?.narrow(0, 0, rows)?.reshape(shape)?)
}

/// One product for each choice: of one row always, so that its bits are its own.
fn matmul_experts([x, w, chosen]: [&Tensor; 3], shape: &[usize]) -> Outcome<Tensor> {
    let chosen = chosen.flatten_all()?.to_vec1::<u32>()?;
    if chosen.is_empty() {
        return Ok(Tensor::zeros(shape, x.dtype(), &Device::Cpu)?);
    }
    let x = x.flatten_to(D::Minus2)?;
    let per_row = chosen.len() / x.dim(0)?;
    let product = |(i, expert): (usize, &u32)| {
        let w = w.get(*expert as usize)?.to_dtype(x.dtype())?;
        x.narrow(0, i / per_row, 1)?.matmul(&w.t()?)
    };
    let products = chosen.iter().enumerate().map(product);
    let products = products.collect::<candle_core::Result<Vec<Tensor>>>()?;
    Ok(Tensor::cat(&products, 0)?.reshape(shape)?)
}

/// Rows over their root mean square.
fn normed(x: &Tensor, eps: f64) -> candle_core::Result<Tensor> {
    let squares = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_mul(&rsqrt(&squares.affine(1.0, eps)?)?)
}

fn rsqrt(x: &Tensor) -> candle_core::Result<Tensor> {
    x.sqrt()?.recip()
}

/// Over the last axis.
pub(crate) fn softmax(x: &Tensor) -> candle_core::Result<Tensor> {
    let weights = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
    weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)
}

/// A stable sort gives ties by lowest index. It would panic over NaN, which ranks as `-inf`.
fn top_k(x: &Tensor, k: usize) -> Outcome<Vec<Tensor>> {
    let lowest = Tensor::full(f32::NEG_INFINITY, x.dims(), &Device::Cpu)?.to_dtype(x.dtype())?;
    let keys = x.eq(x)?.where_cond(x, &lowest)?;
    let indices = keys.arg_sort_last_dim(false)?.narrow(D::Minus1, 0, k)?.contiguous()?;
    Ok(vec![x.gather(&indices, D::Minus1)?, indices])
}

/// 16-bit floats are rounded to and kept in `dtype`.
fn cast(x: &Tensor, to: plugin_api::DType, dtype: DType) -> Outcome<Tensor> {
    let rounded = match to {
        plugin_api::DType::F16 => x.to_dtype(DType::F16)?,
        plugin_api::DType::BF16 => x.to_dtype(DType::BF16)?,
        _ => return Ok(x.to_dtype(dtype)?),
    };
    Ok(rounded.to_dtype(dtype)?)
}

/// Rows of a matmul in blocks.
const ROW_BLOCK: usize = 16;
