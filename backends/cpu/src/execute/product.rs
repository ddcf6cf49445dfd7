//! Products with packed weights, and the ops around them.

use std::ops::Range;

use bytemuck::Pod;
use half::{bf16, f16};
use kernels_cpu::{
    AffineDesc, AffinePanels, Element, FloatPanels, Isa, OutputColumns, PANEL_ROWS, QuantizedRows,
    matmul, matmul_affine, matmul_rows, pack_columns, pack_float, quantize_rows,
    quantize_rows_twice, unpack_affine_row, unpack_float_row,
};

use crate::code::{Product, SlotId, WeightPlan};
use crate::frame::Part;
use crate::layout::Packing;
use crate::size::Size;

/// The panels of this part of each weight in turn.
pub(super) fn product(op: &Product, part: &mut Part<'_>) {
    let mut first = 0;
    let units = part.units();
    for (i, weight) in op.weights.iter().enumerate() {
        let count = weight.n.div_ceil(PANEL_ROWS);
        let start = units.start.clamp(first, first + count) - first;
        let end = units.end.clamp(first, first + count) - first;
        if start < end {
            one_weight(op, weight.weight, part, |part| {
                part.columns(i, weight.n, first, start..end)
            });
        }
        first += count;
    }
}

fn one_weight(
    op: &Product,
    weight: usize,
    part: &mut Part<'_>,
    columns: impl for<'p> FnOnce(&'p mut Part<'_>) -> OutputColumns<'p>,
) {
    let isa = part.isa();
    let (plan, bytes) = part.weight(weight);
    let x = Rows::of(part, plan, op.x, op.quantized, op.terms);
    multiply(isa, plan, plan.rows, bytes, x, &mut columns(part));
}

/// Rows of activations, as a weight wants them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows<'x> {
    Floats(&'x [f32]),
    Quantized(AffineDesc, QuantizedRows<'x>),
}

impl<'x> Rows<'x> {
    pub(super) fn of(
        part: &Part<'x>,
        plan: &WeightPlan,
        x: SlotId,
        quantized: Option<SlotId>,
        terms: usize,
    ) -> Self {
        match (plan.packing, quantized) {
            (Packing::Affine(desc), Some(quantized)) => {
                let bytes = part.read(quantized);
                Self::Quantized(
                    desc,
                    match terms {
                        1 => QuantizedRows::new(bytes, plan.cols),
                        _ => QuantizedRows::twice(bytes, plan.cols),
                    },
                )
            }
            _ => Self::Floats(part.read(x)),
        }
    }

    /// Some of the rows, of `k` elements.
    pub(super) fn part(self, rows: Range<usize>, k: usize) -> Self {
        match self {
            Self::Floats(x) => Self::Floats(&x[rows.start * k..rows.end * k]),
            Self::Quantized(desc, x) => Self::Quantized(desc, x.select(rows)),
        }
    }
}

/// `n` rows of a weight times `x`.
pub(super) fn multiply(
    isa: Isa,
    plan: &WeightPlan,
    n: usize,
    bytes: &[u8],
    x: Rows<'_>,
    columns: &mut OutputColumns<'_>,
) {
    let k = plan.cols;
    match (plan.packing, x) {
        (_, Rows::Quantized(desc, x)) => {
            matmul_affine(isa, AffinePanels::new(desc, n, k, bytes), x, columns);
        }
        (Packing::F16, Rows::Floats(x)) => {
            matmul(isa, float_panels::<f16>([n, k], bytes), x, columns);
        }
        (Packing::BF16, Rows::Floats(x)) => {
            matmul(isa, float_panels::<bf16>([n, k], bytes), x, columns);
        }
        (_, Rows::Floats(x)) => matmul(isa, float_panels::<f32>([n, k], bytes), x, columns),
    }
}

fn float_panels<W: Element + Pod>([n, k]: [usize; 2], bytes: &[u8]) -> FloatPanels<'_, W> {
    FloatPanels::new(bytemuck::cast_slice(bytes), n, k)
}

/// Panels that the plan computed: those of this part, or all if they are one unit.
pub(super) fn panels([w, x]: [SlotId; 2], [n, k]: [Size; 2], turned: bool, part: &mut Part<'_>) {
    let count = n.as_fixed().map(|_| part.units());
    let (n, k) = (n.of(part.sizes()), k.of(part.sizes()));
    if n == 0 {
        return;
    }
    let (isa, x) = (part.isa(), part.read::<f32>(x));
    let w = &part.read::<f32>(w)[..n.next_multiple_of(PANEL_ROWS) * k];
    let w = FloatPanels::new(w, n, k);
    let mut columns = match count {
        Some(panels) => part.columns(0, n, 0, panels),
        None => OutputColumns::new(part.write(0), n),
    };
    if turned {
        let rows = columns.rows();
        let x = FloatPanels::new(&x[..rows.next_multiple_of(PANEL_ROWS) * k], rows, k);
        matmul_rows(isa, w, x, &mut columns);
    } else {
        matmul(isa, w, x, &mut columns);
    }
}

pub(super) fn pack_panels(w: SlotId, [n, k]: [Size; 2], turned: bool, part: &mut Part<'_>) {
    let units = n.as_fixed().map(|_| part.units());
    let (n, k) = (n.of(part.sizes()), k.of(part.sizes()));
    let panels = units.unwrap_or(0..n.div_ceil(PANEL_ROWS));
    let w = part.read::<f32>(w);
    let out = &mut part.write(0)[..panels.len() * PANEL_ROWS * k];
    if turned {
        return pack_columns(w, n, k, panels.start, out);
    }
    let rows = (panels.start * PANEL_ROWS).min(n)..(panels.end * PANEL_ROWS).min(n);
    pack_float(&w[rows.start * k..rows.end * k], rows.len(), k, out);
}

pub(super) fn quantize(x: SlotId, k: usize, terms: usize, part: &mut Part<'_>) {
    let (isa, x) = (part.isa(), part.read_share(x, k));
    match terms {
        1 => quantize_rows(isa, x, k, part.write(0)),
        _ => quantize_rows_twice(isa, x, k, part.write(0)),
    }
}

/// The rows that `ids` name; they have been checked.
pub(super) fn embed(weight: usize, ids: SlotId, part: &mut Part<'_>) {
    let (plan, bytes) = part.weight(weight);
    let ids = part.read_share::<u32>(ids, 1);
    rows(plan, bytes, ids.iter().map(|&id| id as usize), part.write(0));
}

pub(super) fn unpack(weight: usize, part: &mut Part<'_>) {
    let (plan, bytes) = part.weight(weight);
    let units = part.units();
    rows(plan, bytes, units, part.write(0));
}

fn rows(plan: &WeightPlan, bytes: &[u8], rows: impl Iterator<Item = usize>, out: &mut [f32]) {
    if plan.cols == 0 {
        return;
    }
    let rows = rows.zip(out.chunks_exact_mut(plan.cols));
    match plan.packing {
        Packing::Affine(desc) => {
            let panels = AffinePanels::new(desc, plan.rows, plan.cols, bytes);
            rows.for_each(|(row, out)| unpack_affine_row(panels, row, out));
        }
        Packing::F32 => {
            let panels = float_panels::<f32>([plan.rows, plan.cols], bytes);
            rows.for_each(|(row, out)| unpack_float_row(panels, row, out));
        }
        Packing::F16 => {
            let panels = float_panels::<f16>([plan.rows, plan.cols], bytes);
            rows.for_each(|(row, out)| unpack_float_row(panels, row, out));
        }
        Packing::BF16 => {
            let panels = float_panels::<bf16>([plan.rows, plan.cols], bytes);
            rows.for_each(|(row, out)| unpack_float_row(panels, row, out));
        }
        Packing::Dense => {
            let table: &[f32] = bytemuck::cast_slice(bytes);
            rows.for_each(|(row, out)| out.copy_from_slice(&table[row * plan.cols..][..plan.cols]));
        }
    }
}
