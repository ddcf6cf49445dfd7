//! Ops over rows, and ops that move elements.

use kernels_cpu::{self as kernels, BinaryOp, Rhs};

use crate::code::{BLOCK_ELEMENTS, ReduceKind, SlotId};
use crate::frame::Part;
use crate::size::Size;

pub(super) fn binary(
    op: BinaryOp,
    a: SlotId,
    b: SlotId,
    rhs: Rhs,
    width: Size,
    part: &mut Part<'_>,
) {
    let (isa, width) = (part.isa(), width.of(part.sizes()));
    if rhs == Rhs::Same {
        let (a, b) = (part.read_share(a, BLOCK_ELEMENTS), part.read_share(b, BLOCK_ELEMENTS));
        return kernels::elementwise(isa, op, a, b, rhs, [1, a.len()], part.write(0));
    }
    let rows = part.units().len();
    let a = part.read_share(a, width);
    let b = if rhs == Rhs::Row { part.read(b) } else { part.read_share(b, 1) };
    kernels::elementwise(isa, op, a, b, rhs, [rows, width], part.write(0));
}

pub(super) fn reduce(kind: ReduceKind, x: SlotId, width: Size, part: &mut Part<'_>) {
    let (isa, width) = (part.isa(), width.of(part.sizes()));
    let x = part.read_share(x, width);
    let kernel = match kind {
        ReduceKind::Sum => kernels::reduce_sum,
        ReduceKind::Mean => kernels::reduce_mean,
        ReduceKind::Max => kernels::reduce_max,
    };
    kernel(isa, x, width, part.write(0));
}

pub(super) fn softmax(x: SlotId, width: Size, part: &mut Part<'_>) {
    let (isa, width) = (part.isa(), width.of(part.sizes()));
    let x = part.read_share(x, width);
    kernels::softmax(isa, x, width, part.write(0));
}

pub(super) fn top_k(x: SlotId, width: Size, k: usize, part: &mut Part<'_>) {
    let (isa, width) = (part.isa(), width.of(part.sizes()));
    let x = part.read_share(x, width);
    let (values, indices) = part.write_both();
    kernels::top_k(isa, x, width, k, values, indices);
}

pub(super) fn rms_norm(x: SlotId, w: SlotId, eps: f32, weight_offset: f32, part: &mut Part<'_>) {
    let (isa, w) = (part.isa(), part.read::<f32>(w));
    let x = part.read_share(x, w.len());
    kernels::rms_norm(isa, x, w, eps, weight_offset, part.write(0));
}

pub(super) fn layer_norm(x: SlotId, [w, b]: [SlotId; 2], eps: f32, part: &mut Part<'_>) {
    let (isa, w, b) = (part.isa(), part.read::<f32>(w), part.read::<f32>(b));
    let x = part.read_share(x, w.len());
    kernels::layer_norm(isa, x, w, b, eps, part.write(0));
}

/// One unit: the rows may meet.
pub(super) fn scatter_add(
    base: SlotId,
    indices: SlotId,
    updates: SlotId,
    width: Size,
    part: &mut Part<'_>,
) {
    let width = width.of(part.sizes());
    let (indices, updates) = (part.read(indices), part.read(updates));
    if !part.is_output(base) {
        let base = part.read::<f32>(base);
        part.write(0).copy_from_slice(base);
    }
    kernels::scatter_add(part.write(0), indices, updates, width);
}

/// Indices and floats are both four bytes that only move; likewise below.
pub(super) fn concat(parts: &[(SlotId, Size)], part: &mut Part<'_>) {
    let sizes = part.sizes();
    let total: usize = parts.iter().map(|(_, len)| len.of(sizes)).sum();
    if total == 0 {
        return;
    }
    let mut start = 0;
    for (slot, len) in parts {
        let len = len.of(sizes);
        if len > 0 {
            let x = part.read_share::<u32>(*slot, len);
            let rows = part.write::<u32>(0).chunks_exact_mut(total).zip(x.chunks_exact(len));
            rows.for_each(|(out, x)| out[start..start + len].copy_from_slice(x));
        }
        start += len;
    }
}

pub(super) fn slice(x: SlotId, stride: Size, start: Size, part: &mut Part<'_>) {
    let (stride, start) = (stride.of(part.sizes()), start.of(part.sizes()));
    let rows = part.units().len();
    let x = part.read_share::<u32>(x, stride);
    let out = part.write::<u32>(0);
    let len = out.len() / rows.max(1);
    if len > 0 {
        let rows = out.chunks_exact_mut(len).zip(x.chunks_exact(stride));
        rows.for_each(|(out, x)| out.copy_from_slice(&x[start..start + len]));
    }
}

/// One unit.
pub(super) fn transpose(x: SlotId, shape: [Size; 4], order: [usize; 4], part: &mut Part<'_>) {
    let shape = shape.map(|size| size.of(part.sizes()));
    let x = part.read::<u32>(x);
    kernels::transpose(x, shape, order, part.write(0));
}
