//! Binary ops, element by element, with the right side repeated where it is smaller.

use crate::device::Kernel;
use crate::queue::args;
use crate::{Fault, Queue, Span};

/// What is computed from a left and a right element: a case of `elementwise.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum BinaryOp {
    /// `l + r`
    Add = 0,
    /// `l - r`
    Sub = 1,
    /// `l * r`
    Mul = 2,
    /// `l / r`
    Div = 3,
    /// The greater; `r` if either is NaN.
    Max = 4,
    /// The lesser; `r` if either is NaN.
    Min = 5,
}

/// How the right side lies against a left side of `[rows, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Rhs {
    /// `[rows, width]`: element against element.
    Same = 0,
    /// `[width]`: the same row against every row.
    Row = 1,
    /// `[rows, 1]`: one value against a whole row.
    Column = 2,
}

/// Queues `out = lhs op rhs`.
///
/// | argument     | shape                                        |
/// |--------------|----------------------------------------------|
/// | `lhs`, `out` | `[rows, width]`                              |
/// | `rhs`        | `[rows, width]`, `[width]` or `[rows, 1]`    |
///
/// # Errors
///
/// [`Fault::Driver`].
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn elementwise(
    queue: &Queue,
    op: BinaryOp,
    lhs: Span<'_, f32>,
    rhs: Span<'_, f32>,
    layout: Rhs,
    [rows, width]: [usize; 2],
    out: Span<'_, f32>,
) -> Result<(), Fault> {
    let rhs_len = match layout {
        Rhs::Same => rows * width,
        Rhs::Row => width,
        Rhs::Column => rows,
    };
    assert_eq!(lhs.len, rows * width, "elementwise: lhs is not [rows, width]");
    assert_eq!(rhs.len, rhs_len, "elementwise: rhs does not fit its layout");
    assert_eq!(out.len, rows * width, "elementwise: out is not [rows, width]");
    let (op, layout) = (op as u32, layout as u32);
    let args = args![op, layout, lhs.address, rhs.address, rows, width, out.address];
    // SAFETY: these are the arguments of `elementwise` in elementwise.cu, of the lengths above.
    unsafe { queue.launch(Kernel::Elementwise, [rows * width, 1], args) }
}
