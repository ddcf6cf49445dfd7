//! Products with packed weights, and the ops around them.

use bytemuck::Pod;
use half::{bf16, f16};
use kernels_cpu::{
    AffinePanels, Element, FloatPanels, OutputColumns, PANEL_ROWS, QuantizedRows, matmul,
    matmul_affine, matmul_rows, pack_columns, pack_float, quantize_rows, quantize_rows_twice,
    unpack_affine_row, unpack_float_row,
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
    match (plan.packing, op.quantized) {
        (Packing::Affine(desc), Some(quantized)) => {
            let w = AffinePanels::new(desc, plan.rows, plan.cols, bytes);
            let bytes = part.read(quantized);
            let x = match op.terms {
                1 => QuantizedRows::new(bytes, op.k),
                _ => QuantizedRows::twice(bytes, op.k),
            };
            matmul_affine(isa, w, x, &mut columns(part));
        }
        (Packing::F16, _) => floats::<f16>(plan, bytes, op.x, part, columns),
        (Packing::BF16, _) => floats::<bf16>(plan, bytes, op.x, part, columns),
        _ => floats::<f32>(plan, bytes, op.x, part, columns),
    }
}

fn floats<W: Element + Pod>(
    plan: &WeightPlan,
    bytes: &[u8],
    x: SlotId,
    part: &mut Part<'_>,
    columns: impl for<'p> FnOnce(&'p mut Part<'_>) -> OutputColumns<'p>,
) {
    let (isa, x) = (part.isa(), part.read(x));
    matmul(isa, float_panels::<W>(plan, bytes), x, &mut columns(part));
}

fn float_panels<'w, W: Element + Pod>(plan: &WeightPlan, bytes: &'w [u8]) -> FloatPanels<'w, W> {
    FloatPanels::new(bytemuck::cast_slice(bytes), plan.rows, plan.cols)
}

/// Panels that the plan computed: those of this part, or all if they are one unit.
pub(super) fn panels([w, x]: [SlotId; 2], [n, k]: [Size; 2], turned: bool, part: &mut Part<'_>) {
    let count = n.as_fixed().map(|_| part.units());
    let (n, k) = (n.of(part.sizes()), k.of(part.sizes()));
    if n == 0 {
        return;
    }
    let (isa, x) = (part.isa(), part.read(x));
    let w = &part.read::<f32>(w)[..n.next_multiple_of(PANEL_ROWS) * k];
    let w = FloatPanels::new(w, n, k);
    let mut columns = match count {
        Some(panels) => part.columns(0, n, 0, panels),
        None => OutputColumns::new(part.write(0), n),
    };
    if turned { matmul_rows(isa, w, x, &mut columns) } else { matmul(isa, w, x, &mut columns) }
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
            let panels = float_panels::<f32>(plan, bytes);
            rows.for_each(|(row, out)| unpack_float_row(panels, row, out));
        }
        Packing::F16 => {
            let panels = float_panels::<f16>(plan, bytes);
            rows.for_each(|(row, out)| unpack_float_row(panels, row, out));
        }
        Packing::BF16 => {
            let panels = float_panels::<bf16>(plan, bytes);
            rows.for_each(|(row, out)| unpack_float_row(panels, row, out));
        }
        Packing::Dense => {
            let table: &[f32] = bytemuck::cast_slice(bytes);
            rows.for_each(|(row, out)| out.copy_from_slice(&table[row * plan.cols..][..plan.cols]));
        }
    }
}
