//! Rows of a table, by id.

use crate::device::Kernel;
use crate::queue::args;
use crate::{AffineShape, Fault, Queue, Span};

/// Queues `out[i] = table[ids[i]]`; NaN for ids beyond the table.
///
/// | argument | shape           |
/// |----------|-----------------|
/// | `table`  | `[rows, width]` |
/// | `ids`    | `[count]`       |
/// | `out`    | `[count, width]`|
///
/// # Errors
///
/// [`Fault::Driver`].
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn embed(
    queue: &Queue,
    table: Span<'_, f32>,
    [rows, width]: [usize; 2],
    ids: Span<'_, u32>,
    out: Span<'_, f32>,
) -> Result<(), Fault> {
    assert_eq!(table.len, rows * width, "embed: table is not [rows, width]");
    assert_eq!(out.len, ids.len * width, "embed: out is not [count, width]");
    let args = args![table.address, rows, width, ids.address, ids.len, out.address];
    // SAFETY: these are the arguments of `embed` in embed.cu, of the lengths above.
    unsafe { queue.launch(Kernel::Embed, [out.len, 1], args) }
}

/// As [`embed`], from a table of `[rows, row_bytes]` affine rows.
///
/// # Errors
///
/// [`Fault::Driver`].
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn embed_affine(
    queue: &Queue,
    table: Span<'_, u8>,
    shape: AffineShape,
    ids: Span<'_, u32>,
    out: Span<'_, f32>,
) -> Result<(), Fault> {
    let rows = table.len / shape.row_bytes();
    assert_eq!(table.len, rows * shape.row_bytes(), "embed_affine: table is not whole rows");
    assert_eq!(out.len, ids.len * shape.cols(), "embed_affine: out is not [count, cols]");
    let args = args![table.address, shape, rows, ids.address, ids.len, out.address];
    // SAFETY: these are the arguments of `embed_affine` in embed.cu, of the lengths above.
    unsafe { queue.launch(Kernel::EmbedAffine, [out.len, 1], args) }
}
