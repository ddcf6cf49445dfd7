//! How weights lie in memory, and how they get there: the same on the host and on the device.

use kernels_cuda::{AffineRows, AffineShape, pack_affine};
use plugin_api::kinds::backend::{Layout, LayoutId, RawForm, RawRows, RawValues, WeightDesc};
use plugin_api::{Error, Lowering, Result};

/// How the rows of a weight are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Rows of `f32`.
    Dense,
    /// Rows of codes with their scales.
    Affine(AffineShape),
}

impl Packing {
    /// The packing of a weight: vectors are read by ops that want them plain.
    pub(crate) fn of(weight: &WeightDesc, lowering: &Lowering) -> Self {
        match *lowering {
            Lowering::Affine { bits, group, zero_point, has_min, .. } if weight.rows > 1 => {
                let shape = AffineShape::new(bits, group, zero_point, has_min, weight.cols);
                shape.map_or(Self::Dense, Self::Affine)
            }
            _ => Self::Dense,
        }
    }

    fn id(self, lowering: &Lowering) -> LayoutId {
        LayoutId(match (self, lowering) {
            (Self::Affine(shape), &Lowering::Affine { group, zero_point, has_min, .. }) => {
                let bits = shape.code_bits();
                let min = if has_min { "min" } else { "no min" };
                format!("{VERSION} affine {bits} bits, group {group}, zero {zero_point}, {min}")
            }
            _ => format!("{VERSION} dense f32"),
        })
    }
}

/// How `weight` would be packed.
pub(crate) fn layout(weight: &WeightDesc, lowering: &Lowering) -> Result<Layout> {
    let packing = Packing::of(weight, lowering);
    let (block_bytes, wants) = match packing {
        Packing::Dense => (weight.cols.checked_mul(size_of::<f32>()), RawForm::Floats),
        Packing::Affine(shape) => (Some(shape.row_bytes()), RawForm::Affine),
    };
    let fits = |bytes: &usize| *bytes > 0 && weight.rows.checked_mul(*bytes).is_some();
    let block_bytes = block_bytes.filter(fits);
    let block_bytes =
        block_bytes.ok_or_else(|| Error::shape(&weight.name, "a size in bytes", weight.cols))?;
    Ok(Layout { id: packing.id(lowering), row_block: 1, block_bytes, wants })
}

/// Packs rows.
pub(crate) fn pack(raw: &RawRows<'_>, expected: &Layout, out: &mut [u8]) -> Result<()> {
    let (name, rows, cols) = (&raw.desc.name, raw.rows, raw.desc.cols);
    let mine = layout(raw.desc, raw.lowering)?;
    if mine != *expected {
        return Err(Error::shape(name, format!("layout {mine:?}"), format!("{expected:?}")));
    }
    let len = rows.checked_mul(cols);
    let size_bytes = rows.checked_mul(mine.block_bytes);
    let (Some(len), Some(size_bytes)) = (len, size_bytes) else {
        return Err(Error::shape(name, "rows that fit into memory", rows));
    };
    if out.len() != size_bytes {
        return Err(Error::shape(name, format!("{size_bytes} bytes"), out.len()));
    }
    match (Packing::of(raw.desc, raw.lowering), raw.values) {
        (Packing::Dense, RawValues::Floats(values)) if values.len() == len => {
            out.copy_from_slice(bytemuck::cast_slice(values));
            Ok(())
        }
        (Packing::Affine(shape), RawValues::Affine { codes, scales, mins }) => {
            let from = AffineRows { codes, scales, mins };
            check_affine(raw, &from, len)?;
            pack_affine(&shape, from, out);
            Ok(())
        }
        (_, RawValues::Floats(values)) => {
            let found = format!("{} numbers", values.len());
            Err(Error::shape(name, format!("{len} {:?}", mine.wants), found))
        }
        (_, RawValues::Affine { codes, .. }) => {
            let found = format!("{} codes", codes.len());
            Err(Error::shape(name, format!("{len} {:?}", mine.wants), found))
        }
    }
}

/// What [`pack_affine`] takes for granted.
fn check_affine(raw: &RawRows<'_>, rows: &AffineRows<'_>, len: usize) -> Result<()> {
    let Lowering::Affine { bits, group, has_min, .. } = *raw.lowering else { return Ok(()) };
    let groups = len / group;
    let expected = [len, groups, if has_min { groups } else { 0 }];
    let found = [rows.codes.len(), rows.scales.len(), rows.mins.len()];
    let name = &raw.desc.name;
    if expected != found {
        return Err(Error::shape(name, format!("{expected:?}"), format!("{found:?}")));
    }
    match rows.codes.iter().find(|&&code| u32::from(code) >> bits != 0) {
        Some(code) => Err(Error::malformed(name, format!("codes of {bits} bits"), code)),
        None => Ok(()),
    }
}

/// Changes when bytes of the same name would lie otherwise.
const VERSION: &str = "cuda/1";
