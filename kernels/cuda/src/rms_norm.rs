//! Root mean square normalization.

use crate::device::Kernel;
use crate::queue::{WARP, args};
use crate::{Fault, Queue, Span};

/// Queues `out = x * (mean(x^2) + eps)^-1/2 * (w + weight_offset)`, row by row.
///
/// | argument   | shape           |
/// |------------|-----------------|
/// | `x`, `out` | `[rows, width]` |
/// | `w`        | `[width]`       |
///
/// # Errors
///
/// [`Fault::Driver`].
///
/// # Panics
///
/// If the lengths do not fit the shapes.
///
/// # Source
///
/// Zhang and Sennrich, "Root Mean Square Layer Normalization", arXiv:1910.07467, equation 4.
pub fn rms_norm(
    queue: &Queue,
    x: Span<'_, f32>,
    w: Span<'_, f32>,
    [eps, weight_offset]: [f32; 2],
    out: Span<'_, f32>,
) -> Result<(), Fault> {
    let width = w.len;
    assert_eq!(x.len, out.len, "rms_norm: x and out differ in length");
    if x.len == 0 {
        return Ok(());
    }
    assert!(width > 0 && x.len.is_multiple_of(width), "rms_norm: x is not [rows, width]");
    let rows = x.len / width;
    let args = args![x.address, w.address, eps, weight_offset, rows, width, out.address];
    // SAFETY: these are the arguments of `rms_norm` in rms_norm.cu, of the lengths above.
    unsafe { queue.launch(Kernel::RmsNorm, [rows, WARP], args) }
}
