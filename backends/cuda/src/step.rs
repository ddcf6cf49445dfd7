//! What a compiled plan does, one kernel after the other.

use kernels_cuda::{
    AffineShape, BinaryOp, Fault, Queue, Rhs, UnaryOp, elementwise, embed, embed_affine, matmul,
    matmul_affine, rms_norm, swiglu, unary,
};

use crate::run::Frame;
use crate::size::Size;

/// Where numbers lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the arena: the index of a slot.
    Slot(usize),
    /// In a weight of dense rows: its index.
    Weight(usize),
}

/// One kernel with its arguments; `out` is a slot.
#[derive(Debug)]
pub(crate) enum Step {
    /// `[rows, width]`.
    Binary { op: BinaryOp, layout: Rhs, args: [Place; 2], rows: Size, width: Size, out: usize },
    /// Any shape.
    Unary { op: UnaryOp, x: Place, out: usize },
    /// A table of `[rows, width]`; `ids` is a slot.
    Embed { table: Place, rows: Size, width: Size, ids: usize, out: usize },
    /// A table that is a weight of affine rows; `ids` is a slot.
    EmbedAffine { weight: usize, shape: AffineShape, ids: usize, out: usize },
    /// `x [rows, k]`, `w [n, k]`.
    Matmul { args: [Place; 2], rows: Size, n: Size, k: Size, out: usize },
    /// `x [rows, cols]`, `w` a weight of `n` affine rows.
    MatmulAffine { x: Place, weight: usize, shape: AffineShape, rows: Size, n: usize, out: usize },
    /// `x [rows, width]`, `w [width]`.
    RmsNorm { args: [Place; 2], eps: f32, weight_offset: f32, out: usize },
    /// Any shape.
    Swiglu { args: [Place; 2], out: usize },
}

impl Step {
    /// Queues it.
    pub(crate) fn queue(&self, queue: &Queue, frame: &Frame<'_>) -> Result<(), Fault> {
        let floats = |place: &Place| frame.floats(*place);
        let slot = |slot: &usize| frame.floats(Place::Slot(*slot));
        let of = |size: &Size| size.of(frame.sizes);
        match self {
            Self::Binary { op, layout, args: [a, b], rows, width, out } => {
                let sizes = [of(rows), of(width)];
                elementwise(queue, *op, floats(a), floats(b), *layout, sizes, slot(out))
            }
            Self::Unary { op, x, out } => unary(queue, *op, floats(x), slot(out)),
            Self::Embed { table, rows, width, ids, out } => {
                let sizes = [of(rows), of(width)];
                embed(queue, floats(table), sizes, frame.indices(*ids), slot(out))
            }
            Self::EmbedAffine { weight, shape, ids, out } => {
                let (table, ids) = (frame.bytes(*weight), frame.indices(*ids));
                embed_affine(queue, table, *shape, ids, slot(out))
            }
            Self::Matmul { args: [x, w], rows, n, k, out } => {
                let sizes = [of(rows), of(n), of(k)];
                matmul(queue, floats(x), floats(w), sizes, slot(out))
            }
            Self::MatmulAffine { x, weight, shape, rows, n, out } => {
                let (w, sizes) = (frame.bytes(*weight), [of(rows), *n]);
                matmul_affine(queue, floats(x), w, *shape, sizes, slot(out))
            }
            Self::RmsNorm { args: [x, w], eps, weight_offset, out } => {
                rms_norm(queue, floats(x), floats(w), [*eps, *weight_offset], slot(out))
            }
            Self::Swiglu { args: [gate, up], out } => {
                swiglu(queue, floats(gate), floats(up), slot(out))
            }
        }
    }
}
