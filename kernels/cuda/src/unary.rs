//! Unary ops, element by element.

use crate::device::Kernel;
use crate::queue::args;
use crate::{Fault, Queue, Span};

/// What is computed from one element: a case of `unary.cu`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UnaryOp {
    /// `-x`
    Neg,
    /// `e^x`
    Exp,
    /// `ln x`
    Log,
    /// Square root.
    Sqrt,
    /// `1 / sqrt(x)`
    Rsqrt,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `x * sigmoid(x)`; Elfwing et al., arXiv:1702.03118.
    Silu,
    /// `x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`; Hendrycks and Gimpel,
    /// arXiv:1606.08415, section 2.
    GeluTanh,
    /// Cosine of radians.
    Cos,
    /// Sine of radians.
    Sin,
    /// `x` times this.
    Scale(f32),
    /// `x` plus this.
    Offset(f32),
}

impl UnaryOp {
    fn code(self) -> (u32, f32) {
        match self {
            Self::Neg => (0, 0.0),
            Self::Exp => (1, 0.0),
            Self::Log => (2, 0.0),
            Self::Sqrt => (3, 0.0),
            Self::Rsqrt => (4, 0.0),
            Self::Tanh => (5, 0.0),
            Self::Sigmoid => (6, 0.0),
            Self::Silu => (7, 0.0),
            Self::GeluTanh => (8, 0.0),
            Self::Cos => (9, 0.0),
            Self::Sin => (10, 0.0),
            Self::Scale(by) => (11, by),
            Self::Offset(by) => (12, by),
        }
    }
}

/// Queues `out[i] = op(x[i])`.
///
/// # Errors
///
/// [`Fault::Driver`].
///
/// # Panics
///
/// If the lengths differ.
pub fn unary(
    queue: &Queue,
    op: UnaryOp,
    x: Span<'_, f32>,
    out: Span<'_, f32>,
) -> Result<(), Fault> {
    assert_eq!(x.len, out.len, "unary: x and out differ in length");
    let (op, by) = op.code();
    let args = args![op, by, x.address, x.len, out.address];
    // SAFETY: these are the arguments of `unary` in unary.cu, of the lengths above.
    unsafe { queue.launch(Kernel::Unary, [x.len, 1], args) }
}
