//! The gate of a feed-forward layer.

use crate::device::Kernel;
use crate::queue::args;
use crate::{Fault, Queue, Span};

/// Queues `out = silu(gate) * up`; Shazeer, arXiv:2002.05202.
///
/// # Errors
///
/// [`Fault::Driver`].
///
/// # Panics
///
/// If the lengths differ.
pub fn swiglu(
    queue: &Queue,
    gate: Span<'_, f32>,
    up: Span<'_, f32>,
    out: Span<'_, f32>,
) -> Result<(), Fault> {
    assert_eq!(gate.len, up.len, "swiglu: gate and up differ in length");
    assert_eq!(gate.len, out.len, "swiglu: gate and out differ in length");
    let args = args![gate.address, up.address, gate.len, out.address];
    // SAFETY: these are the arguments of `swiglu` in swiglu.cu, of the lengths above.
    unsafe { queue.launch(Kernel::Swiglu, [gate.len, 1], args) }
}
