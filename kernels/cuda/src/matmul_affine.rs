//! Matrix product with affine-quantized weights, decoded where they are multiplied.

use crate::device::Kernel;
use crate::matmul::TILE_ROWS;
use crate::queue::{WARP, args};
use crate::{AffineShape, Fault, Queue, Span};

/// Queues `out[r, j] = sum over i of x[r, i] * w[j, i]` with exact activations: nothing but the
/// weights is quantized. A warp sums in a fixed order.
///
/// | argument | shape                              |
/// |----------|------------------------------------|
/// | `x`      | `[rows, cols]`, aligned to 16 bytes |
/// | `w`      | `[n, row_bytes]`                   |
/// | `out`    | `[rows, n]`                        |
///
/// # Errors
///
/// [`Fault::Driver`].
///
/// # Panics
///
/// If the lengths do not fit the shapes, or `x` is not aligned.
pub fn matmul_affine(
    queue: &Queue,
    x: Span<'_, f32>,
    w: Span<'_, u8>,
    shape: AffineShape,
    [rows, n]: [usize; 2],
    out: Span<'_, f32>,
) -> Result<(), Fault> {
    assert_eq!(x.len, rows * shape.cols(), "matmul_affine: x is not [rows, cols]");
    assert_eq!(w.len, n * shape.row_bytes(), "matmul_affine: w is not [n, row_bytes]");
    assert_eq!(out.len, rows * n, "matmul_affine: out is not [rows, n]");
    assert!(x.address.is_multiple_of(16), "matmul_affine: x is not aligned to 16 bytes");
    let args = args![x.address, w.address, shape, rows, n, out.address];
    let tiles = rows.div_ceil(TILE_ROWS) * n;
    // SAFETY: these are the arguments of `matmul_affine` in matmul_affine.cu, of the lengths above.
    unsafe { queue.launch(Kernel::MatmulAffine, [tiles, WARP], args) }
}
