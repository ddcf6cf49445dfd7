//! What a plugin's answers are checked against.

use crate::error::{Error, Result};
use crate::kinds::backend::{Layout, RawForm, WeightDesc};
use crate::kinds::quantizer::Lowering;

/// Refuses layouts that the host cannot allocate or fill.
pub(super) fn check_layout(
    layout: &Layout,
    weight: &WeightDesc,
    lowering: &Lowering,
) -> Result<()> {
    let blocks = weight.rows.checked_div(layout.row_block).and_then(|n| n.checked_add(1));
    let bytes = blocks.and_then(|blocks| blocks.checked_mul(layout.block_bytes));
    let has_size = bytes.is_some_and(|bytes| isize::try_from(bytes).is_ok());
    let is_open = layout.wants == RawForm::Floats || matches!(lowering, Lowering::Affine { .. });
    if has_size && layout.block_bytes > 0 && is_open {
        return Ok(());
    }
    let what = format!("layout of {}", weight.name);
    Err(Error::malformed(what, "blocks of rows that can be filled", format!("{layout:?}")))
}

/// No machine has more memory to compute in.
pub(super) const SCRATCH_BYTES_MAX: u64 = 1 << 44;
