//! Binary ops, element by element, with the right side repeated where it is smaller.

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
};

/// What is computed from a left and a right element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// `l + r`
    Add,
    /// `l - r`
    Sub,
    /// `l * r`
    Mul,
    /// `l / r`
    Div,
    /// The greater; `r` if either is NaN.
    Max,
    /// The lesser; `r` if either is NaN.
    Min,
}

/// How the right side lies against a left side of `[rows, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rhs {
    /// `[rows, width]`: element against element.
    Same,
    /// `[width]`: the same row against every row.
    Row,
    /// `[rows, 1]`: one value against a whole row.
    Column,
}

/// Writes `out = lhs op rhs`.
///
/// | argument     | shape                                        |
/// |--------------|----------------------------------------------|
/// | `lhs`, `out` | `[rows, width]`                              |
/// | `rhs`        | `[rows, width]`, `[width]` or `[rows, 1]`    |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn elementwise(
    isa: Isa,
    op: BinaryOp,
    lhs: &[f32],
    rhs: &[f32],
    layout: Rhs,
    [rows, width]: [usize; 2],
    out: &mut [f32],
) {
    let rhs_len = match layout {
        Rhs::Same => rows * width,
        Rhs::Row => width,
        Rhs::Column => rows,
    };
    assert_eq!(lhs.len(), rows * width, "elementwise: lhs is not [rows, width]");
    assert_eq!(rhs.len(), rhs_len, "elementwise: rhs does not fit its layout");
    assert_eq!(out.len(), rows * width, "elementwise: out is not [rows, width]");
    if width == 0 {
        return;
    }
    // Equal layouts are one long row.
    let width = if layout == Rhs::Same { (rows * width).max(1) } else { width };
    dispatch(isa, Elementwise { op, lhs, rhs, layout, width, out });
}

struct Elementwise<'a> {
    op: BinaryOp,
    lhs: &'a [f32],
    rhs: &'a [f32],
    layout: Rhs,
    width: usize,
    out: &'a mut [f32],
}

impl Kernel for Elementwise<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { op, lhs, rhs, layout, width, out } = self;
        let rows = lhs.chunks_exact(width).zip(out.chunks_exact_mut(width));
        for (row, (lhs, out)) in rows.enumerate() {
            if layout == Rhs::Column {
                row_with_value::<L>(op, lhs, rhs[row], out);
            } else {
                row_with_row::<L>(op, lhs, rhs, out);
            }
        }
    }
}

#[inline(always)]
fn row_with_row<L: Lanes>(op: BinaryOp, lhs: &[f32], rhs: &[f32], out: &mut [f32]) {
    let (l, l_tail) = lhs.as_chunks::<LANES>();
    let (r, r_tail) = rhs.as_chunks::<LANES>();
    let (o, o_tail) = out.as_chunks_mut::<LANES>();
    for ((l, r), o) in l.iter().zip(r).zip(o) {
        apply(op, L::load(l), L::load(r)).store(o);
    }
    apply(op, L::load_part(l_tail, 0.0), L::load_part(r_tail, 0.0)).store_part(o_tail);
}

#[inline(always)]
fn row_with_value<L: Lanes>(op: BinaryOp, lhs: &[f32], rhs: f32, out: &mut [f32]) {
    let (l, l_tail) = lhs.as_chunks::<LANES>();
    let (o, o_tail) = out.as_chunks_mut::<LANES>();
    let r = L::splat(rhs);
    for (l, o) in l.iter().zip(o) {
        apply(op, L::load(l), r).store(o);
    }
    apply(op, L::load_part(l_tail, 0.0), r).store_part(o_tail);
}

#[inline(always)]
fn apply<L: Lanes>(op: BinaryOp, l: L, r: L) -> L {
    match op {
        BinaryOp::Add => l.add(r),
        BinaryOp::Sub => l.sub(r),
        BinaryOp::Mul => l.mul(r),
        BinaryOp::Div => l.div(r),
        BinaryOp::Max => l.max(r),
        BinaryOp::Min => l.min(r),
    }
}

#[cfg(test)]
mod tests {
    use kernels_reference as reference;

    use super::*;
    use crate::testing::{bits, floats, isas};

    #[test]
    fn equals_the_reference_bit_for_bit() {
        use BinaryOp::{Add, Div, Max, Min, Mul, Sub};
        use reference::BinaryOp as Other;
        let ops = [
            (Add, Other::Add),
            (Sub, Other::Sub),
            (Mul, Other::Mul),
            (Div, Other::Div),
            (Max, Other::Max),
            (Min, Other::Min),
        ];
        let layouts = [
            (Rhs::Same, reference::Rhs::Same),
            (Rhs::Row, reference::Rhs::Row),
            (Rhs::Column, reference::Rhs::Column),
        ];
        for isa in isas() {
            for (rows, width) in [(0, 3), (3, 0), (1, 1), (3, 7), (2, 16), (5, 63), (2, 257)] {
                let lhs = floats(rows * width, 1);
                for (layout, other_layout) in layouts {
                    let len = [rows * width, width, rows][layout as usize];
                    let rhs = floats(len, 2);
                    for (op, other_op) in ops {
                        let (mut found, mut expected) = (lhs.clone(), lhs.clone());
                        elementwise(isa, op, &lhs, &rhs, layout, [rows, width], &mut found);
                        let shape = [rows, width];
                        reference::elementwise(
                            other_op,
                            &lhs,
                            &rhs,
                            other_layout,
                            shape,
                            &mut expected,
                        );
                        assert_eq!(bits(&found), bits(&expected), "{isa:?} {op:?} {layout:?}");
                    }
                }
            }
        }
    }
}
