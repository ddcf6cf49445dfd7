//! Computes a part of an instruction by calling its kernel.

mod attention;
mod chain;
mod experts;
mod product;
mod recurrence;
mod rows;
mod training;

use half::{bf16, f16};
use kernels_cpu::{Isa, UnaryOp, gather, geglu, offset, rope, rope_table, scale, swiglu, unary};

use crate::code::{BLOCK_ELEMENTS, CastTo, GatedKind, Op, SlotId};
use crate::frame::Part;

/// Computes one part.
pub(crate) fn execute(op: &Op, mut part: Part<'_>) {
    let isa = part.isa();
    let part = &mut part;
    match op {
        Op::Check(_) => {}
        Op::Embed { weight, ids } => product::embed(*weight, *ids, part),
        Op::Unpack { weight } => product::unpack(*weight, part),
        Op::PackPanels { w, n, k, turned } => product::pack_panels(*w, [*n, *k], *turned, part),
        Op::Quantize { x, k, terms } => product::quantize(*x, *k, *terms, part),
        Op::Product(product) => product::product(product, part),
        Op::SortChoices(sort) => experts::sort(sort, part),
        Op::Experts(op) => experts::experts(op, part),
        Op::Panels { w, x, n, k, turned } => product::panels([*w, *x], [*n, *k], *turned, part),
        Op::Binary { op, a, b, rhs, width } => rows::binary(*op, *a, *b, *rhs, *width, part),
        Op::Unary { op, x } => map(*x, part, |x, out| unary(isa, *op, x, out)),
        Op::Scale { x, by } => map(*x, part, |x, out| scale(isa, x, *by, out)),
        Op::Offset { x, by } => map(*x, part, |x, out| offset(isa, x, *by, out)),
        Op::Reduce { kind, x, width } => rows::reduce(*kind, *x, *width, part),
        Op::Softmax { x, width } => rows::softmax(*x, *width, part),
        Op::ReduceRows { x, width } => training::reduce_rows(*x, *width, part),
        Op::Fill { value } => part.write::<f32>(0).fill(*value),
        Op::TakeAlong { x, indices, widths } => training::take_along([*x, *indices], *widths, part),
        Op::ScatterAlong { base, indices, updates, widths } => {
            training::scatter_along([*base, *indices, *updates], *widths, part);
        }
        Op::TopK { x, width, k } => rows::top_k(*x, *width, *k, part),
        Op::Gather { x, indices, width } => pick(*x, *indices, width.of(part.sizes()), part),
        Op::ScatterAdd { base, indices, updates, width } => {
            rows::scatter_add(*base, *indices, *updates, *width, part);
        }
        Op::Concat { parts } => rows::concat(parts, part),
        Op::Slice { x, stride, start } => rows::slice(*x, *stride, *start, part),
        Op::Transpose { x, shape, order } => rows::transpose(*x, *shape, *order, part),
        Op::Cast { x, to } => cast(*x, *to, part),
        Op::RmsNorm { x, w, eps, weight_offset } => {
            rows::rms_norm(*x, *w, *eps, *weight_offset, part);
        }
        Op::LayerNorm { x, w, b, eps } => rows::layer_norm(*x, [*w, *b], *eps, part),
        Op::RopeTable { positions, inv_freq, factor } => {
            let positions = part.read_share(*positions, 1);
            let (cos, sin) = part.write_both();
            rope_table(positions, inv_freq, *factor, cos, sin);
        }
        Op::Rope { x, cos, sin, shape } => {
            let pairs = shape.rotary_dim / 2;
            let (cos, sin) = (part.read_share(*cos, pairs), part.read_share(*sin, pairs));
            start_as::<f32>(*x, shape.heads * shape.head_dim, part);
            rope(isa, part.write(0), cos, sin, *shape);
        }
        Op::Gated { kind, gate, up } => gated(isa, *kind, [*gate, *up], part),
        Op::Chain(chain) => chain::chain(chain, part),
        Op::Recur(recurrence) => recurrence::recur(recurrence, part),
        Op::Store(attention) => attention::store(attention, part),
        Op::Attend(attention) => attention::attend(attention, part),
        Op::AttendWithin(within) => attention::attend_within(within, part),
        Op::QueryGrad(grad) => training::query_grad(grad, part),
        Op::KeyGrad(grad) => training::key_grad(grad, part),
    }
}

/// Calls `kernel` with blocks of `x` and the same blocks of the output.
fn map(x: SlotId, part: &mut Part<'_>, kernel: impl FnOnce(&[f32], &mut [f32])) {
    let x = part.read_share(x, BLOCK_ELEMENTS);
    kernel(x, part.write(0));
}

fn gated(isa: Isa, kind: GatedKind, [gate, up]: [SlotId; 2], part: &mut Part<'_>) {
    let up = part.read_share(up, BLOCK_ELEMENTS);
    map(gate, part, |gate, out| match kind {
        GatedKind::Swiglu => swiglu(isa, gate, up, out),
        GatedKind::Geglu => geglu(isa, gate, up, out),
    });
}

/// Indices and floats are both four bytes that only move.
fn pick(x: SlotId, indices: SlotId, width: usize, part: &mut Part<'_>) {
    let indices = part.read_share(indices, 1);
    gather(part.read::<u32>(x), indices, width, part.write(0));
}

/// Copies `x` into the output, unless it is the output.
fn start_as<T: bytemuck::Pod>(x: SlotId, per_unit: usize, part: &mut Part<'_>) {
    if !part.is_output(x) {
        let x = part.read_share::<T>(x, per_unit);
        part.write(0).copy_from_slice(x);
    }
}

fn cast(x: SlotId, to: CastTo, part: &mut Part<'_>) {
    let round_f16 = |x: f32| f16::from_f32(x).to_f32();
    let round_bf16 = |x: f32| bf16::from_f32(x).to_f32();
    match to {
        CastTo::Same => convert(x, part, |x: u32| x),
        CastTo::F16 => convert(x, part, round_f16),
        CastTo::BF16 => convert(x, part, round_bf16),
        CastTo::Index => convert(x, part, |x: f32| x as u32),
        CastTo::Real => convert(x, part, |x: u32| x as f32),
        CastTo::RealF16 => convert(x, part, |x: u32| f16::from_f64(f64::from(x)).to_f32()),
        CastTo::RealBF16 => convert(x, part, |x: u32| bf16::from_f64(f64::from(x)).to_f32()),
    }
}

fn convert<A: bytemuck::Pod, B: bytemuck::Pod>(
    x: SlotId,
    part: &mut Part<'_>,
    convert: impl Fn(A) -> B,
) {
    let x = part.read_share(x, BLOCK_ELEMENTS);
    kernels_cpu::cast(x, convert, part.write(0));
}

/// Rough time of one element, in nanoseconds times 1,024.
pub(crate) fn element_cost(op: UnaryOp) -> usize {
    match op {
        UnaryOp::Neg | UnaryOp::Sqrt | UnaryOp::Rsqrt => 150,
        UnaryOp::Log | UnaryOp::Cos | UnaryOp::Sin => 10_000,
        _ => 700,
    }
}
