//! Products with weights, and the table of embeddings.

use kernels_cpu::{PANEL_ROWS, quantized_row_bytes};
use plugin_api::{Error, Result};

use super::builder::{Builder, Value};
use super::lower::Call;
use crate::check::Check;
use crate::code::{Element, Op, Output, Product, ProductWeight, SlotId, Units};
use crate::layout::Packing;
use crate::size::Size;

/// Instructions back to which a product looks for another one of the same input.
const REACH: usize = 16;

impl Builder<'_> {
    pub(super) fn embed(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let Value::Weight(weight) = call.arg(0)? else { return self.gather(call) };
        let ids = self.dense(call.arg(1)?)?;
        let plan = self.weights[weight];
        self.expect_shape(call, 0, weight)?;
        self.check(Check::Below { indices: ids, end: Size::fixed(plan.rows) });
        let out = self.scratch_for(call.result(0)?)?;
        let (units, width) = (Units::Count(self.slots[ids].len), Size::fixed(plan.cols));
        self.emit(Op::Embed { weight, ids }, units, plan.cols, &[ids], &[(out, width)]);
        Ok(out)
    }

    pub(super) fn matmul(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let x = self.dense(call.arg(0)?)?;
        match call.arg(1)? {
            Value::Weight(weight) if self.weights[weight].packing != Packing::Dense => {
                self.expect_shape(call, 1, weight)?;
                self.product(call, x, weight)
            }
            w => self.dense_matmul(call, x, w),
        }
    }

    /// The plan's shape of a weight is that of its rows in memory.
    fn expect_shape(&self, call: &Call<'_>, i: usize, weight: usize) -> Result<()> {
        let [rows, cols] = self.symbols.rows_width(call.spec(i)?)?;
        let plan = &self.weights[weight];
        if (rows.as_fixed(), cols.as_fixed()) == (Some(plan.rows), Some(plan.cols)) {
            return Ok(());
        }
        let found = format!("[{}, {}] in memory", plan.rows, plan.cols);
        Err(Error::shape(call.op, call.spec(i)?, found))
    }

    fn product(&mut self, call: &Call<'_>, x: SlotId, weight: usize) -> Result<SlotId> {
        let plan = self.weights[weight];
        let [rows, _] = self.symbols.rows_width(call.spec(0)?)?;
        let (n, k) = (plan.rows, plan.cols);
        let is_quantized = matches!(plan.packing, Packing::Affine(_));
        let panels = n.div_ceil(PANEL_ROWS);
        let unit_ns = (plan.size_bytes / panels.max(1)).div_ceil(BYTES_PER_NS);
        let out = self.scratch_for(call.result(0)?)?;
        let output = Output { slot: out, per_unit: Size::fixed(0) };
        let product_weight = ProductWeight { weight, n };

        if let Some(&at) = self.products.get(&(x, is_quantized))
            && self.drafts.len() - at <= REACH
            && let instruction = &mut self.drafts[at].instruction
            && let Op::Product(product) = &mut instruction.op
            && product.rows == rows
        {
            product.weights.push(product_weight);
            let all = product.weights.iter().map(|weight| weight.n.div_ceil(PANEL_ROWS)).sum();
            instruction.units = Units::Count(Size::fixed(all));
            instruction.unit_ns = instruction.unit_ns.max(unit_ns);
            instruction.outputs.push(output);
            return Ok(out);
        }
        let quantized = if is_quantized { Some(self.quantize(x, rows, k)) } else { None };
        let (terms, weights) = (self.terms, vec![product_weight]);
        let product = Product { x, quantized, terms, rows, weights };
        let units = Units::Count(Size::fixed(panels));
        let reads = [quantized.unwrap_or(x)];
        self.products.insert((x, is_quantized), self.drafts.len());
        self.emit(Op::Product(Box::new(product)), units, unit_ns, &reads, &[]);
        if let Some(draft) = self.drafts.last_mut() {
            draft.instruction.outputs.push(output);
        }
        Ok(out)
    }

    pub(super) fn quantize(&mut self, x: SlotId, rows: Size, k: usize) -> SlotId {
        if let Some(slot) = self.quantized.get(&x) {
            return *slot;
        }
        let (width, terms) = (quantized_row_bytes(k) * self.terms, self.terms);
        let out = self.scratch(Element::Byte, rows.times(width));
        let op = Op::Quantize { x, k, terms };
        self.emit(op, Units::Count(rows), k / 2, &[x], &[(out, Size::fixed(width))]);
        self.quantized.insert(x, out);
        out
    }

    /// A product with something that the plan computed, or with a dense weight of one row.
    fn dense_matmul(&mut self, call: &Call<'_>, x: SlotId, w: Value) -> Result<SlotId> {
        let [n, k] = self.symbols.rows_width(call.spec(1)?)?;
        let panels = match w {
            Value::Turned { slot, .. } => self.pack_panels(call, slot, [n, k], true)?,
            w => {
                let w = self.dense(w)?;
                self.pack_panels(call, w, [n, k], false)?
            }
        };
        let [rows, _] = self.symbols.rows_width(call.spec(0)?)?;
        self.panels(call, [panels, x], [n, k], rows, false)
    }

    /// The product over all rows of both.
    pub(super) fn matmul_rows(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let (a, b) = (self.floats(call, 0)?, self.floats(call, 1)?);
        let [rows, n] = self.symbols.rows_width(call.spec(0)?)?;
        let [_, k] = self.symbols.rows_width(call.spec(1)?)?;
        let panels = self.pack_panels(call, b, [k, rows], true)?;
        let a = self.pack_panels(call, a, [n, rows], true)?;
        self.panels(call, [panels, a], [k, rows], n, true)
    }

    /// A matrix `[n, k]`, or `[k, n]` if it is `turned`, as panels; each once.
    fn pack_panels(
        &mut self,
        call: &Call<'_>,
        w: SlotId,
        [n, k]: [Size; 2],
        turned: bool,
    ) -> Result<SlotId> {
        let max = |size: &Size| self.symbols.max(size).unwrap_or(usize::MAX);
        let len = max(&n).checked_next_multiple_of(PANEL_ROWS);
        let len = len.and_then(|rows| rows.checked_mul(max(&k)));
        let len = len.filter(|len| *len <= isize::MAX as usize / 64);
        let len = len.ok_or_else(|| Error::unsupported(call.op, "sizes that fit into memory"))?;
        if let Some(panels) = self.panels.get(&(w, turned, n, k)) {
            return Ok(*panels);
        }
        let op = Op::PackPanels { w, n, k, turned };
        let panels = match n.as_fixed() {
            Some(fixed) => {
                let per_panel = k.times(PANEL_ROWS);
                let count = fixed.div_ceil(PANEL_ROWS);
                let ns = max(&per_panel) / FLOATS_PER_NS;
                let panels = self.scratch(Element::F32, k.times(count * PANEL_ROWS));
                let units = Units::Count(Size::fixed(count));
                self.emit(op, units, ns, &[w], &[(panels, per_panel)]);
                panels
            }
            None => {
                let panels = self.scratch(Element::F32, Size::fixed(len));
                self.emit_whole(op, &[w], &[panels]);
                panels
            }
        };
        self.panels.insert((w, turned, n, k), panels);
        Ok(panels)
    }

    fn panels(
        &mut self,
        call: &Call<'_>,
        [w, x]: [SlotId; 2],
        [n, k]: [Size; 2],
        rows: Size,
        turned: bool,
    ) -> Result<SlotId> {
        let out = self.scratch_for(call.result(0)?)?;
        let op = Op::Panels { w, x, n, k, turned };
        match n.as_fixed() {
            Some(fixed) => {
                let max = |size: &Size| self.symbols.max(size).unwrap_or(usize::MAX);
                let macs = max(&rows).saturating_mul(max(&k)).saturating_mul(PANEL_ROWS);
                let units = Units::Count(Size::fixed(fixed.div_ceil(PANEL_ROWS)));
                self.emit(op, units, macs / MACS_PER_NS, &[w, x], &[(out, Size::fixed(0))]);
            }
            None => self.emit_whole(op, &[w, x], &[out]),
        }
        Ok(out)
    }
}

/// Floats that one thread packs in a nanosecond.
const FLOATS_PER_NS: usize = 2;
/// Multiply-adds of floats that one thread does in a nanosecond.
const MACS_PER_NS: usize = 16;
/// Bytes of weights that one thread reads in a nanosecond.
pub(super) const BYTES_PER_NS: usize = 12;
