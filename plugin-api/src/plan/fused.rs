//! Ops that backends like to run whole, each with its expansion in smaller ones.
//!
//! The expansion is the meaning: a backend that knows only the small ops computes the same.

use super::build::PlanBuilder;
use super::ops::{self, Attr, Attrs};
use super::sink::{OpSink, OpSinkExt};
use super::spec::{Dim, Spec};
use super::{NodeKind, Plan, Val};
use crate::error::{Error, Result};
use crate::kinds::rotary_embedding::{Pairing, Rotation};

/// Most heads that are rotated at once: each has its place in the expansion.
const HEADS_MAX: u64 = 4096;
/// Most channels of a head.
const HEAD_DIM_MAX: u64 = 1 << 16;

/// Root mean square norm over each row: `x · rsqrt(mean(x²) + eps) · (w + weight_offset)`.
///
/// `x` is `[.., width]`, `w` is `[width]`. Source: Zhang and Sennrich, arXiv:1910.07467.
///
/// # Errors
///
/// [`Error::ShapeMismatch`] if they do not fit; likewise the others here.
pub fn rms_norm(g: &mut dyn OpSink, x: Val, w: Val, eps: f64, weight_offset: f64) -> Result<Val> {
    let attrs = Attrs::new().float("eps", eps).float("weight_offset", weight_offset);
    whole(g, ops::RMS_NORM, &[x, w], attrs, |e, v| {
        let squares = e.mul(v[0], v[0])?;
        let mean = e.mean(squares)?;
        let mean = e.offset(mean, eps)?;
        let inverse = e.unary(ops::RSQRT, mean)?;
        let normed = e.mul(v[0], inverse)?;
        let weight = if weight_offset == 0.0 { v[1] } else { e.offset(v[1], weight_offset)? };
        e.mul(normed, weight)
    })
}

/// Layer norm over each row: `(x − mean) · rsqrt(var + eps) · w + b`.
///
/// `x` is `[.., width]`, `w` and `b` are `[width]`. Source: Ba et al., arXiv:1607.06450.
pub fn layer_norm(g: &mut dyn OpSink, x: Val, w: Val, b: Val, eps: f64) -> Result<Val> {
    whole(g, ops::LAYER_NORM, &[x, w, b], Attrs::new().float("eps", eps), |e, v| {
        let mean = e.mean(v[0])?;
        let centered = e.sub(v[0], mean)?;
        let squares = e.mul(centered, centered)?;
        let variance = e.mean(squares)?;
        let variance = e.offset(variance, eps)?;
        let inverse = e.unary(ops::RSQRT, variance)?;
        let normed = e.mul(centered, inverse)?;
        let scaled = e.mul(normed, v[1])?;
        e.add(scaled, v[2])
    })
}

/// Rotary position embedding of `x [tokens, heads, head_dim]` at `positions u32 [tokens]`.
///
/// Channels beyond twice the number of frequencies pass through.
/// Source: Su et al., arXiv:2104.09864, section 3.4.2.
pub fn rope(g: &mut dyn OpSink, x: Val, positions: Val, rotation: &Rotation) -> Result<Val> {
    let spec = g.spec(x).clone();
    let [tokens, Dim::Fixed(heads), Dim::Fixed(head_dim)] = spec.dims[..] else {
        return Err(Error::shape(ops::ROPE, "[tokens, heads, head_dim]", spec));
    };
    if heads > HEADS_MAX || head_dim > HEAD_DIM_MAX {
        let limit = format!("at most {HEADS_MAX} heads of {HEAD_DIM_MAX}");
        return Err(Error::shape(ops::ROPE, limit, spec));
    }
    let half = rotation.inv_freq.len() as u64;
    if half == 0 || half * 2 > head_dim {
        return Err(Error::shape(ops::ROPE, format!("1 to {} frequencies", head_dim / 2), half));
    }
    let factor = f64::from(rotation.attention_factor);
    let attrs = Attrs::new()
        .with("inv_freq", Attr::Floats(rotation.inv_freq.clone()))
        .text("pairing", rotation.pairing.name())
        .float("attention_factor", factor);
    let (h, d, n) = (heads as i64, head_dim as i64, half as i64);
    whole(g, ops::ROPE, &[x, positions], attrs, |e, v| {
        // angles [tokens, half]: an outer product, as a matmul over an axis of 1.
        let p = e.cast(v[1], crate::DType::F32)?;
        let p = e.reshape(p, &[-1, 1])?;
        let inv_freq = e.constant(&rotation.inv_freq)?;
        let inv_freq = e.reshape(inv_freq, &[n, 1])?;
        let angles = e.matmul(p, inv_freq)?;
        let (cos, sin) = (e.unary(ops::COS, angles)?, e.unary(ops::SIN, angles)?);
        let (cos, sin) = (e.scale(cos, factor)?, e.scale(sin, factor)?);
        let rotated = e.slice(v[0], 2, 0, half * 2)?;
        let (a, b) = halves(e, rotated, rotation.pairing, h, n)?;
        let across = |e: &mut PlanBuilder, x| across_heads(e, x, tokens, heads, half);
        let (cos, sin) = (across(e, cos)?, across(e, sin)?);
        let (ac, bs) = (e.mul(a, cos)?, e.mul(b, sin)?);
        let (bc, as_) = (e.mul(b, cos)?, e.mul(a, sin)?);
        let (first, second) = (e.sub(ac, bs)?, e.add(bc, as_)?);
        let turned = match rotation.pairing {
            Pairing::HalfSplit => e.concat(&[first, second], 2)?,
            Pairing::Interleaved => {
                let first = e.reshape(first, &[-1, h, n, 1])?;
                let second = e.reshape(second, &[-1, h, n, 1])?;
                let pairs = e.concat(&[first, second], 3)?;
                e.reshape(pairs, &[-1, h, n * 2])?
            }
        };
        if n * 2 == d {
            return Ok(turned);
        }
        let rest = e.slice(v[0], 2, half * 2, head_dim - half * 2)?;
        e.concat(&[turned, rest], 2)
    })
}

/// The two members of each pair, each `[tokens, heads, half]`.
fn halves(e: &mut PlanBuilder, x: Val, pairing: Pairing, h: i64, n: i64) -> Result<(Val, Val)> {
    match pairing {
        Pairing::HalfSplit => {
            let half = n as u64;
            Ok((e.slice(x, 2, 0, half)?, e.slice(x, 2, half, half)?))
        }
        Pairing::Interleaved => {
            let pairs = e.reshape(x, &[-1, h, n, 2])?;
            let (a, b) = (e.slice(pairs, 3, 0, 1)?, e.slice(pairs, 3, 1, 1)?);
            Ok((e.reshape(a, &[-1, h, n])?, e.reshape(b, &[-1, h, n])?))
        }
    }
}

/// `[tokens, half]` repeated for each head: `[tokens, heads, half]`.
fn across_heads(e: &mut PlanBuilder, x: Val, _t: Dim, heads: u64, half: u64) -> Result<Val> {
    let row = e.reshape(x, &[-1, 1, half as i64])?;
    e.concat(&vec![row; heads as usize], 1)
}

/// `silu(gate) · up`. Source: Shazeer, arXiv:2002.05202.
pub fn swiglu(g: &mut dyn OpSink, gate: Val, up: Val) -> Result<Val> {
    gated(g, ops::SWIGLU, ops::SILU, gate, up)
}

/// `gelu(gate) · up` with the tanh form of GELU. Source: Shazeer, arXiv:2002.05202.
pub fn geglu(g: &mut dyn OpSink, gate: Val, up: Val) -> Result<Val> {
    gated(g, ops::GEGLU, ops::GELU_TANH, gate, up)
}

fn gated(g: &mut dyn OpSink, op: ops::OpId, curve: ops::OpId, gate: Val, up: Val) -> Result<Val> {
    whole(g, op, &[gate, up], Attrs::new(), |e, v| {
        let curved = e.unary(curve, v[0])?;
        e.mul(curved, v[1])
    })
}

/// Cross entropy of each row of logits against one target, in nats: `log Σ exp(x) − x[target]`, `[rows, 1]`.
///
/// `logits` is `[rows, vocab_size]`, `targets` is `u32 [rows]`, each below `vocab_size`: also those of
/// tokens that do not count, which get a weight of 0 where the rows are summed. The greatest
/// logit is taken off first, so that nothing overflows.
pub fn cross_entropy(g: &mut dyn OpSink, logits: Val, targets: Val) -> Result<Val> {
    whole(g, ops::CROSS_ENTROPY, &[logits, targets], Attrs::new(), |e, v| {
        let peak = e.unary(ops::REDUCE_MAX, v[0])?;
        let shifted = e.sub(v[0], peak)?;
        let exponentials = e.unary(ops::EXP, shifted)?;
        let sum = e.sum(exponentials)?;
        let log = e.unary(ops::LOG, sum)?;
        let targets = e.reshape(v[1], &[-1, 1])?;
        let picked = e.one(ops::TAKE_ALONG, &[shifted, targets], Attrs::new())?;
        e.sub(log, picked)
    })
}

/// The expansion that a fused op of the vocabulary stands for over inputs of these specs; nothing
/// for other names.
///
/// # Errors
///
/// [`Error::ShapeMismatch`] or [`Error::Malformed`] for inputs and attributes it cannot have.
pub(super) fn standard(op: ops::OpId, inputs: &[&Spec], attrs: &Attrs) -> Result<Option<Plan>> {
    let mut g = PlanBuilder::trusting();
    let mut vals = Vec::with_capacity(inputs.len());
    for (i, spec) in inputs.iter().enumerate() {
        vals.push(g.input(&i.to_string(), (*spec).clone())?);
    }
    let wrong = || Error::shape(op, "its number of inputs", inputs.len());
    match (op, &vals[..]) {
        (ops::RMS_NORM, &[x, w]) => {
            let (eps, offset) = (attrs.get_float("eps")?, attrs.get_float("weight_offset")?);
            rms_norm(&mut g, x, w, eps, offset)?
        }
        (ops::LAYER_NORM, &[x, w, b]) => layer_norm(&mut g, x, w, b, attrs.get_float("eps")?)?,
        (ops::ROPE, &[x, positions]) => rope(&mut g, x, positions, &rotation_of(attrs)?)?,
        (ops::SWIGLU, &[gate, up]) => swiglu(&mut g, gate, up)?,
        (ops::GEGLU, &[gate, up]) => geglu(&mut g, gate, up)?,
        (ops::CROSS_ENTROPY, &[logits, targets]) => cross_entropy(&mut g, logits, targets)?,
        (ops::RMS_NORM | ops::LAYER_NORM | ops::ROPE, _) => return Err(wrong()),
        (ops::SWIGLU | ops::GEGLU | ops::CROSS_ENTROPY, _) => return Err(wrong()),
        _ => return Ok(None),
    };
    let node = g.finish().nodes.pop();
    Ok(node.and_then(|node| match node.kind {
        NodeKind::Fused { expansion, .. } => Some(*expansion),
        NodeKind::Prim(..) | NodeKind::Call { .. } => None,
    }))
}

/// The rotation that a `rope` of these attributes makes.
pub(super) fn rotation_of(attrs: &Attrs) -> Result<Rotation> {
    Ok(Rotation {
        inv_freq: attrs.get_floats("inv_freq")?.to_vec(),
        pairing: Pairing::of(attrs.get_text("pairing")?)?,
        attention_factor: attrs.get_float("attention_factor")? as f32,
    })
}

/// Adds `op` over `inputs` with the expansion that `body` describes.
fn whole(
    g: &mut dyn OpSink,
    op: ops::OpId,
    inputs: &[Val],
    attrs: Attrs,
    body: impl FnOnce(&mut PlanBuilder, &[Val]) -> Result<Val>,
) -> Result<Val> {
    let expansion = expand(g, inputs, body)?;
    match g.fused(op, inputs, attrs, expansion)?[..] {
        [result] => Ok(result),
        _ => Err(Error::shape(op, "one result", "another number")),
    }
}

fn expand(
    g: &dyn OpSink,
    inputs: &[Val],
    body: impl FnOnce(&mut PlanBuilder, &[Val]) -> Result<Val>,
) -> Result<Plan> {
    let mut e = PlanBuilder::new();
    let mut vals = Vec::with_capacity(inputs.len());
    for (i, &val) in inputs.iter().enumerate() {
        let spec: Spec = g.spec(val).clone();
        vals.push(e.input(&i.to_string(), spec)?);
    }
    let result = body(&mut e, &vals)?;
    e.output("0", result)?;
    Ok(e.finish())
}
