//! Products with the experts that tokens chose: choices are sorted by expert, so that each expert's
//! weights are read once for all of its rows.

use kernels_cpu::PANEL_ROWS;
use plugin_api::{Error, Result};

use super::builder::{Builder, SortedRows, Value};
use super::lower::Call;
use super::product::BYTES_PER_NS;
use crate::check::Check;
use crate::code::{Element, Experts, Op, SlotId, SortChoices, Units};
use crate::layout::Packing;
use crate::size::Size;

/// Choices that were sorted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sorted {
    /// Which choice stands where.
    order: SlotId,
    /// Row of the token of each.
    tokens: SlotId,
    /// Where each choice stands.
    places: SlotId,
    /// Where those of each expert end.
    ends: SlotId,
}

impl Builder<'_> {
    pub(super) fn matmul_experts(&mut self, call: &Call<'_>) -> Result<Value> {
        let Value::Weight(weight) = call.arg(1)? else {
            return Err(Error::unsupported(call.op, "experts that are a weight of the model"));
        };
        let (plan, dims) = (self.weights[weight], &call.spec(1)?.dims);
        let [experts, n, k] = [0, 1, 2].map(|i| dims[i].fixed().unwrap_or(0) as usize);
        if experts.checked_mul(n) != Some(plan.rows) || k != plan.cols {
            let found = format!("[{}, {}] in memory", plan.rows, plan.cols);
            return Err(Error::shape(call.op, call.spec(1)?, found));
        }
        if plan.packing == Packing::Dense || !n.is_multiple_of(PANEL_ROWS) {
            let missing = format!("experts of a multiple of {PANEL_ROWS} rows, not {n}");
            return Err(Error::unsupported(call.op, missing));
        }
        let chosen = self.dense(call.arg(2)?)?;
        self.check(Check::Below { indices: chosen, end: Size::fixed(experts) });
        let [tokens, choices] = self.symbols.rows_width(call.spec(2)?)?;
        let Some(choices) = choices.as_fixed() else {
            return Err(Error::shape(call.op, "a fixed number of choices", call.spec(2)?));
        };
        let rows = tokens.times(choices);
        let sorted = self.sorted(chosen, rows, choices, experts);
        let is_shared = call.spec(0)?.dims.len() == 2;
        let x = match call.arg(0)? {
            Value::Sorted(x) if !is_shared && x.places == sorted.places => x.slot,
            x => {
                let x = self.dense(x)?;
                let picks = if is_shared { sorted.tokens } else { sorted.order };
                self.picked(x, picks, [rows, Size::fixed(k)])
            }
        };

        let is_quantized = matches!(plan.packing, Packing::Affine(_));
        let quantized = if is_quantized { Some(self.quantize(x, rows, k)) } else { None };
        let out = self.scratch(Element::F32, rows.times(n));
        let panels = n / PANEL_ROWS;
        // A token reads as many experts as it chose.
        let panel_bytes = plan.size_bytes / (experts * panels).max(1);
        let unit_ns = (panel_bytes * choices.min(experts)).div_ceil(BYTES_PER_NS);
        let reads = [quantized.unwrap_or(x), sorted.ends];
        let (terms, ends) = (self.terms, sorted.ends);
        let op = Experts { x, quantized, terms, ends, weight, experts, n };
        let units = Units::Count(Size::fixed(panels));
        self.emit(Op::Experts(Box::new(op)), units, unit_ns, &reads, &[(out, Size::fixed(0))]);
        let (places, width) = (sorted.places, Size::fixed(n));
        Ok(Value::Sorted(SortedRows { slot: out, places, rows, width }))
    }

    fn sorted(&mut self, chosen: SlotId, rows: Size, choices: usize, experts: usize) -> Sorted {
        if let Some(sorted) = self.sorted.get(&(chosen, experts)) {
            return *sorted;
        }
        let [order, tokens, places] = [(); 3].map(|()| self.scratch(Element::U32, rows));
        let ends = self.scratch(Element::U32, Size::fixed(experts));
        let op = Op::SortChoices(Box::new(SortChoices { chosen, choices }));
        self.emit_whole(op, &[chosen], &[ends, places, order, tokens]);
        let sorted = Sorted { order, tokens, places, ends };
        self.sorted.insert((chosen, experts), sorted);
        sorted
    }

    /// Rows of `x` at `indices`, which are in range; each once.
    pub(super) fn picked(
        &mut self,
        x: SlotId,
        indices: SlotId,
        [rows, width]: [Size; 2],
    ) -> SlotId {
        if let Some(slot) = self.picked.get(&(x, indices)) {
            return *slot;
        }
        let factor = width.as_fixed().unwrap_or(0);
        let out = self.scratch(Element::F32, rows.times(factor));
        let ns = self.row_ns(&width, 4);
        let op = Op::Gather { x, indices, width };
        self.emit(op, Units::Count(rows), ns, &[x, indices], &[(out, width)]);
        self.picked.insert((x, indices), out);
        out
    }
}
