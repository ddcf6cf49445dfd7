//! Matrix product with a transposed second factor, as weights are stored.

use crate::device::Kernel;
use crate::queue::{WARP, args};
use crate::{Fault, Queue, Span};

/// Queues `out[r, j] = sum over i of x[r, i] * w[j, i]`. A warp sums in a fixed order.
///
/// | argument | shape       |
/// |----------|-------------|
/// | `x`      | `[rows, k]` |
/// | `w`      | `[n, k]`    |
/// | `out`    | `[rows, n]` |
///
/// # Errors
///
/// [`Fault::Driver`].
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn matmul(
    queue: &Queue,
    x: Span<'_, f32>,
    w: Span<'_, f32>,
    [rows, n, k]: [usize; 3],
    out: Span<'_, f32>,
) -> Result<(), Fault> {
    assert_eq!(x.len, rows * k, "matmul: x is not [rows, k]");
    assert_eq!(w.len, n * k, "matmul: w is not [n, k]");
    assert_eq!(out.len, rows * n, "matmul: out is not [rows, n]");
    let args = args![x.address, w.address, rows, n, k, out.address];
    let tiles = rows.div_ceil(TILE_ROWS) * n;
    // SAFETY: these are the arguments of `matmul` in matmul.cu, of the lengths above.
    unsafe { queue.launch(Kernel::Matmul, [tiles, WARP], args) }
}

/// Rows of `x` that share one read of a weight: `TILE_ROWS` of `warp.cuh`.
pub(crate) const TILE_ROWS: usize = 4;
