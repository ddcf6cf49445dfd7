//! How weights lie in memory, and how they get there. The same for every thread count and
//! instruction set: packed weights may be adopted by another instance.

use half::{bf16, f16};
use kernels_cpu::{
    AffineDesc, AffineRows, Element, PANEL_ROWS, RUN_MAX, Scales as Form, pack_affine, pack_float,
};
use plugin_api::kinds::backend::{Layout, LayoutId, RawForm, RawRows, RawValues, WeightDesc};
use plugin_api::{Error, Lowering, Result, Scales};

/// How the rows of a weight are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// One row of `f32`.
    Dense,
    /// Panels of codes with their scales.
    Affine(AffineDesc),
    /// Panels of `f32`.
    F32,
    /// Panels of `f16`.
    F16,
    /// Panels of `bf16`.
    BF16,
}

impl Packing {
    /// The packing of a weight: vectors are read by ops that want them plain.
    pub(crate) fn of(weight: &WeightDesc, lowering: &Lowering) -> Self {
        if weight.rows == 1 {
            return Self::Dense;
        }
        match *lowering {
            Lowering::Affine { bits, group, zero_point, has_min, scales } => {
                let is_known = (1..=8).contains(&bits) && group > 0 && group.is_multiple_of(16);
                if !is_known || weight.cols == 0 || !weight.cols.is_multiple_of(group) {
                    return Self::F32;
                }
                let (bits, scales) = (bits as u8, form_of(scales));
                Self::Affine(AffineDesc { bits, group, zero_point, has_min, scales })
            }
            Lowering::MiniFloat { exponent: 5, mantissa: 10 } => Self::F16,
            Lowering::MiniFloat { exponent: 8, mantissa: 7 } => Self::BF16,
            _ => Self::F32,
        }
    }

    fn id(self) -> LayoutId {
        LayoutId(match self {
            Self::Dense => format!("{VERSION} dense f32"),
            Self::F32 => format!("{VERSION} panels f32"),
            Self::F16 => format!("{VERSION} panels f16"),
            Self::BF16 => format!("{VERSION} panels bf16"),
            Self::Affine(desc) => {
                let AffineDesc { bits, group, zero_point, .. } = desc;
                let min = if desc.has_min { "min" } else { "no min" };
                let scales = match desc.scales {
                    Form::F32 => "f32".to_owned(),
                    Form::F16 => "f16".to_owned(),
                    Form::Product { groups } => format!("i8, f16 for {groups} groups"),
                };
                let codes = format!("{bits} bits, group {group}, zero {zero_point}, {min}");
                format!("{VERSION} affine {codes}, scales {scales}")
            }
        })
    }

    /// Bytes of a panel of rows of `cols` elements; of a row, if dense.
    fn block_bytes(self, cols: usize) -> Option<usize> {
        match self {
            Self::Dense => cols.checked_mul(size_of::<f32>()),
            Self::F32 => cols.checked_mul(PANEL_ROWS * size_of::<f32>()),
            Self::F16 | Self::BF16 => cols.checked_mul(PANEL_ROWS * size_of::<f16>()),
            Self::Affine(desc) => {
                // Codes and scales take 24 bytes an element and panel row at the very most.
                cols.checked_mul(PANEL_ROWS * 24).map(|_| desc.panel_bytes(cols))
            }
        }
    }
}

/// The form that loses nothing.
fn form_of(scales: Scales) -> Form {
    match scales {
        Scales::F16 => Form::F16,
        Scales::Product { groups } if (1..=RUN_MAX).contains(&groups) => Form::Product { groups },
        _ => Form::F32,
    }
}

/// How `weight` would be packed.
pub(crate) fn layout(weight: &WeightDesc, lowering: &Lowering) -> Result<Layout> {
    let packing = Packing::of(weight, lowering);
    let row_block = if packing == Packing::Dense { 1 } else { PANEL_ROWS };
    let block_bytes = packing.block_bytes(weight.cols).filter(|&bytes| bytes > 0);
    let wants = match packing {
        Packing::Affine(_) => RawForm::Affine,
        _ => RawForm::Floats,
    };
    match block_bytes {
        Some(block_bytes) => Ok(Layout { id: packing.id(), row_block, block_bytes, wants }),
        None => Err(Error::shape(&weight.name, "rows that fit into memory", weight.cols)),
    }
}

/// Packs rows into whole panels.
pub(crate) fn pack(raw: &RawRows<'_>, expected: &Layout, out: &mut [u8]) -> Result<()> {
    let (name, rows, cols) = (&raw.desc.name, raw.rows, raw.desc.cols);
    let packing = Packing::of(raw.desc, raw.lowering);
    let mine = layout(raw.desc, raw.lowering)?;
    if mine != *expected {
        return Err(Error::shape(name, format!("layout {mine:?}"), format!("{expected:?}")));
    }
    if out.len() != mine.size_bytes(rows) {
        return Err(Error::shape(name, format!("{} bytes", mine.size_bytes(rows)), out.len()));
    }
    let Some(len) = rows.checked_mul(cols) else {
        return Err(Error::shape(name, "rows that fit into memory", rows));
    };
    match (packing, raw.values) {
        (Packing::Affine(desc), RawValues::Affine { codes, scales, mins }) => {
            let canonical = AffineRows { codes, scales, mins };
            check_lengths(name, desc, &canonical, [rows, cols])?;
            pack_affine(desc, canonical, rows, cols, out)
                .map_err(|e| Error::malformed(name, e.expected, e.found))
        }
        (Packing::Affine(_), _) => Err(Error::shape(name, "codes and scales", "numbers")),
        (_, RawValues::Affine { .. }) => Err(Error::shape(name, "numbers", "codes and scales")),
        (_, RawValues::Floats(values)) if values.len() != len => {
            Err(Error::shape(name, format!("{len} numbers"), values.len()))
        }
        (Packing::Dense, RawValues::Floats(values)) => {
            out.copy_from_slice(bytemuck::cast_slice(values));
            Ok(())
        }
        (Packing::F32, RawValues::Floats(x)) => floats(name, x, [rows, cols], out),
        (Packing::F16, RawValues::Floats(x)) => {
            let x: Vec<f16> = x.iter().map(|x| f16::from_f32(*x)).collect();
            floats(name, &x, [rows, cols], out)
        }
        (Packing::BF16, RawValues::Floats(x)) => {
            let x: Vec<bf16> = x.iter().map(|x| bf16::from_f32(*x)).collect();
            floats(name, &x, [rows, cols], out)
        }
    }
}

fn floats<W: Element + bytemuck::Pod>(
    name: &str,
    values: &[W],
    [rows, cols]: [usize; 2],
    out: &mut [u8],
) -> Result<()> {
    let out = bytemuck::try_cast_slice_mut(out);
    let out = out.map_err(|e| Error::shape(name, "aligned memory", e))?;
    pack_float(values, rows, cols, out);
    Ok(())
}

/// The lengths that `pack_affine` takes for granted.
fn check_lengths(
    name: &str,
    desc: AffineDesc,
    rows: &AffineRows<'_>,
    [num_rows, cols]: [usize; 2],
) -> Result<()> {
    let (len, groups) = (num_rows * cols, num_rows * cols / desc.group);
    let mins = if desc.has_min { groups } else { 0 };
    let (expected, found) =
        ([len, groups, mins], [rows.codes.len(), rows.scales.len(), rows.mins.len()]);
    if expected == found {
        return Ok(());
    }
    let what = "codes, scales and minima";
    Err(Error::shape(name, format!("{expected:?} {what}"), format!("{found:?}")))
}

/// Of the layouts named here. Another number where bytes lie differently.
const VERSION: &str = "cpu/3";

#[cfg(test)]
mod tests {
    use super::*;

    fn desc(rows: usize, cols: usize) -> WeightDesc {
        WeightDesc { name: "w".to_owned(), format: "any".to_owned(), rows, cols }
    }

    fn affine(bits: u32, group: usize, scales: Scales) -> Lowering {
        Lowering::Affine { bits, group, zero_point: 8, has_min: false, scales }
    }

    const PRODUCT: Scales = Scales::Product { groups: 8 };

    #[test]
    fn the_name_says_everything_that_distinguishes() {
        let table = Lowering::Table { bits: 4, table: vec![0.0; 16], group: 32 };
        #[rustfmt::skip]
        let cases = [
            (affine(4, 32, Scales::F16),  "cpu/3 affine 4 bits, group 32, zero 8, no min, scales f16", 64 * 8 + 2 * 32),
            (affine(4, 32, Scales::F32), "cpu/3 affine 4 bits, group 32, zero 8, no min, scales f32", 64 * 8 + 2 * 64),
            (affine(6, 16, Scales::F32), "cpu/3 affine 6 bits, group 16, zero 8, no min, scales f32", 48 * 16 + 4 * 64),
            (affine(4, 32, PRODUCT), "cpu/3 affine 4 bits, group 32, zero 8, no min, scales i8, f16 for 8 groups", 64 * 8 + 64),
            (affine(6, 16, PRODUCT), "cpu/3 affine 6 bits, group 16, zero 8, no min, scales i8, f16 for 8 groups", 48 * 16 + 128),
            (affine(4, 48, Scales::F16),  "cpu/3 panels f32",  64 * 64),
            (affine(4, 24, Scales::F16),  "cpu/3 panels f32",  64 * 64),
            (affine(9, 32, Scales::F16),  "cpu/3 panels f32",  64 * 64),
            (table,                "cpu/3 panels f32",  64 * 64),
            (Lowering::Opaque,     "cpu/3 panels f32",  64 * 64),
            (Lowering::MiniFloat { exponent: 8, mantissa: 23 }, "cpu/3 panels f32",  64 * 64),
            (Lowering::MiniFloat { exponent: 5, mantissa: 10 }, "cpu/3 panels f16",  64 * 32),
            (Lowering::MiniFloat { exponent: 8, mantissa: 7 },  "cpu/3 panels bf16", 64 * 32),
            (Lowering::MiniFloat { exponent: 4, mantissa: 3 },  "cpu/3 panels f32",  64 * 64),
        ];
        for (lowering, id, block_bytes) in cases {
            let layout = layout(&desc(17, 64), &lowering).unwrap();
            assert_eq!((&*layout.id.0, layout.block_bytes), (id, block_bytes), "{lowering:?}");
            assert_eq!(layout.row_block, PANEL_ROWS);
            let vector = super::layout(&desc(1, 64), &lowering).unwrap();
            assert_eq!((&*vector.id.0, vector.block_bytes), ("cpu/3 dense f32", 256));
        }
    }

    #[test]
    fn refuses_numbers_that_do_not_fit() {
        let (desc, lowering) = (desc(2, 32), affine(4, 32, Scales::F16));
        let expected = layout(&desc, &lowering).unwrap();
        let run = |codes: &[u8], scales: &[f32], len: usize| {
            let values = RawValues::Affine { codes, scales, mins: &[] };
            let raw = RawRows { desc: &desc, lowering: &lowering, rows: 2, values };
            pack(&raw, &expected, &mut vec![0; len])
        };
        let size = expected.size_bytes(2);
        assert_eq!(run(&[15; 64], &[0.5; 2], size), Ok(()));
        assert!(matches!(run(&[15; 63], &[0.5; 2], size), Err(Error::ShapeMismatch { .. })));
        assert!(matches!(run(&[15; 64], &[0.5; 3], size), Err(Error::ShapeMismatch { .. })));
        assert!(matches!(run(&[15; 64], &[0.5; 2], size - 1), Err(Error::ShapeMismatch { .. })));
        assert!(matches!(run(&[16; 64], &[0.5; 2], size), Err(Error::Malformed { .. })));
        assert!(matches!(run(&[15; 64], &[0.1; 2], size), Err(Error::Malformed { .. })));
        let lowering = affine(4, 32, PRODUCT);
        let expected = layout(&desc, &lowering).unwrap();
        let scales = [63.0 * 0.1, -0.25];
        let values = RawValues::Affine { codes: &[15; 64], scales: &scales, mins: &[] };
        let raw = RawRows { desc: &desc, lowering: &lowering, rows: 2, values };
        let found = pack(&raw, &expected, &mut vec![0; expected.size_bytes(2)]);
        assert!(matches!(found, Err(Error::Malformed { .. })), "{found:?}");
        let values = RawValues::Floats(&[0.0; 64]);
        let raw = RawRows { desc: &desc, lowering: &lowering, rows: 2, values };
        let found = pack(&raw, &expected, &mut vec![0; size]);
        assert!(matches!(found, Err(Error::ShapeMismatch { .. })));
    }
}
