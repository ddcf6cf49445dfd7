//! Fused ops that have a kernel of their own.

use kernels_cpu::{Pairing, RopeShape};
use plugin_api::kinds::rotary_embedding;
use plugin_api::plan::ops;
use plugin_api::{Error, Result};

use super::builder::{Builder, RopeTable, SortedRows, Value};
use super::lower::Call;
use crate::code::{Element, GatedKind, Op, SlotId, Units};
use crate::size::Size;

impl Builder<'_> {
    pub(super) fn norm(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let [rows, width] = self.symbols.rows_width(call.spec(0)?)?;
        let (x, w, eps) = (self.floats(call, 0)?, self.floats(call, 1)?, call.float("eps")?);
        let mut reads = vec![x, w];
        let op = if call.op == ops::RMS_NORM {
            Op::RmsNorm { x, w, eps, weight_offset: call.float("weight_offset")? }
        } else {
            let b = self.floats(call, 2)?;
            reads.push(b);
            Op::LayerNorm { x, w, b, eps }
        };
        let out = self.scratch_for(call.result(0)?)?;
        let ns = self.row_ns(&width, 4);
        self.emit(op, Units::Count(rows), ns, &reads, &[(out, width)]);
        Ok(out)
    }

    pub(super) fn gated(&mut self, call: &Call<'_>) -> Result<Value> {
        let kind = if call.op == ops::SWIGLU { GatedKind::Swiglu } else { GatedKind::Geglu };
        // Numbers one by one: what is sorted alike stays so.
        let sorted = match (call.arg(0)?, call.arg(1)?) {
            (Value::Sorted(gate), Value::Sorted(up)) => {
                (gate == SortedRows { slot: gate.slot, ..up }).then_some((gate, up))
            }
            _ => None,
        };
        let (gate, up) = match sorted {
            Some((gate, up)) => (gate.slot, up.slot),
            None => (self.floats(call, 0)?, self.floats(call, 1)?),
        };
        let out = self.scratch_for(call.result(0)?)?;
        self.emit_blocks(Op::Gated { kind, gate, up }, 800, &[gate, up], out);
        Ok(match sorted {
            Some((rows, _)) => Value::Sorted(SortedRows { slot: out, ..rows }),
            None => Value::Slot(out),
        })
    }

    pub(super) fn rope(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let x = self.floats(call, 0)?;
        let positions = self.dense(call.arg(1)?)?;
        let spec = call.spec(0)?;
        let expected = || Error::shape(call.op, "[tokens, heads, head_dim]", spec);
        let [tokens, heads, head_dim] = spec.dims[..] else { return Err(expected()) };
        let fixed = |dim| self.symbols.size(&[dim]).ok().and_then(|size| size.as_fixed());
        let (Some(heads), Some(head_dim)) = (fixed(heads), fixed(head_dim)) else {
            return Err(expected());
        };
        let inv_freq = call.attrs.get_floats("inv_freq")?;
        let rotary_dim = inv_freq.len() * 2;
        if rotary_dim == 0 || rotary_dim > head_dim {
            return Err(Error::shape(
                call.op,
                format!("1 to {} frequencies", head_dim / 2),
                inv_freq.len(),
            ));
        }
        let pairing = match rotary_embedding::Pairing::of(call.attrs.get_text("pairing")?)? {
            rotary_embedding::Pairing::HalfSplit => Pairing::HalfSplit,
            rotary_embedding::Pairing::Interleaved => Pairing::Interleaved,
        };
        let factor = call.float("attention_factor")?;
        let tokens = self.symbols.size(&[tokens])?;
        let (cos, sin) = self.rope_table(positions, tokens, inv_freq, factor);
        let shape = RopeShape { heads, head_dim, rotary_dim, pairing };
        let out = self.scratch_for(call.result(0)?)?;
        let width = heads * head_dim;
        let op = Op::Rope { x, cos, sin, shape };
        let outputs = [(out, Size::fixed(width))];
        self.emit(op, Units::Count(tokens), width / 2, &[x, cos, sin], &outputs);
        self.in_place_of(x);
        Ok(out)
    }

    /// Cosines and sines, computed once for all layers with the same frequencies.
    fn rope_table(
        &mut self,
        positions: SlotId,
        tokens: Size,
        inv_freq: &[f32],
        factor: f32,
    ) -> (SlotId, SlotId) {
        let known = self.rope_tables.iter().find(|table| {
            (table.positions, &*table.inv_freq, table.factor) == (positions, inv_freq, factor)
        });
        if let Some(table) = known {
            return (table.cos, table.sin);
        }
        let pairs = inv_freq.len();
        let [cos, sin] = [(); 2].map(|()| self.scratch(Element::F32, tokens.times(pairs)));
        let op = Op::RopeTable { positions, inv_freq: inv_freq.to_vec(), factor };
        let outputs = [(cos, Size::fixed(pairs)), (sin, Size::fixed(pairs))];
        self.emit(op, Units::Count(tokens), pairs * 20, &[positions], &outputs);
        let inv_freq = inv_freq.to_vec();
        self.rope_tables.push(RopeTable { positions, inv_freq, factor, cos, sin });
        (cos, sin)
    }
}
