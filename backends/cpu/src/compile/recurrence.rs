//! Ops whose state is kept per sequence: where it lies, and what goes on from it.

use plugin_api::kinds::kv_cache::Storage;
use plugin_api::plan::{Per, ops};
use plugin_api::{DType, Error, Result};

use super::builder::{Builder, Value};
use super::lower::Call;
use crate::check::Check;
use crate::code::{Element, Op, Recurrence, RecurrentStep, SlotId};

impl Builder<'_> {
    pub(super) fn recurrence(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let [_, width] = self.symbols.rows_width(call.spec(0)?)?;
        let elements = |i: usize| -> Result<usize> {
            let dims = call.spec(i)?.dims.iter();
            let mut len = dims.map(|dim| dim.fixed().and_then(|n| usize::try_from(n).ok()));
            let len = len.try_fold(1_usize, |len, n| len.checked_mul(n?));
            len.ok_or_else(|| Error::unsupported(call.op, "a weight of a fixed size"))
        };
        let (first, size) = match call.op {
            ops::CAUSAL_CONV => (2, elements(1)?.saturating_sub(width.as_fixed().unwrap_or(0))),
            _ => (5, elements(2)?),
        };
        let mut floats = [0; 5];
        for (i, slot) in floats[..first].iter_mut().enumerate() {
            *slot = self.floats(call, i)?;
        }
        let [x, second, a, b, c] = floats;
        let step = match call.op {
            ops::CAUSAL_CONV => RecurrentStep::CausalConv { x, w: second },
            _ => RecurrentStep::SelectiveScan { x, dt: second, a, b, c },
        };
        let mut indices = [0; 3];
        for (i, slot) in indices.iter_mut().enumerate() {
            *slot = self.dense(call.arg(first + 1 + i)?)?;
            if self.slots[*slot].element != Element::U32 {
                return Err(Error::shape(call.op, "positions and tables of u32", "floats"));
            }
        }
        let [positions, sequence_index, block_table] = indices;
        let [_, blocks_per_seq] = self.symbols.rows_width(call.spec(first + 3)?)?;
        let (state_index, offset, num_blocks) = self.copies(call, first, size)?;
        let len = num_blocks.checked_mul(size);
        let len =
            len.ok_or_else(|| Error::unsupported(call.op, "a state that fits into memory"))?;
        let block_size = self.memory.block_size;
        // Its own block and that of the token before.
        let window = 2;
        self.check(Check::Blocks {
            positions,
            sequence_index,
            block_table,
            blocks_per_seq,
            block_size,
            num_blocks,
            window,
        });
        self.check(Check::Order { positions, sequence_index });
        let op = Recurrence {
            step,
            positions,
            sequence_index,
            block_table,
            blocks_per_seq,
            block_size,
            state_index,
            offset,
            size,
            len,
        };
        let out = self.scratch_for(call.result(0)?)?;
        let reads = [&floats[..first], &indices[..]].concat();
        self.emit_whole(Op::Recur(Box::new(op)), &reads, &[out]);
        Ok(out)
    }

    /// Which state it is, where its copies lie, and how many there are.
    fn copies(&self, call: &Call<'_>, at: usize, size: usize) -> Result<(usize, usize, usize)> {
        let Value::State(state) = call.arg(at)? else {
            return Err(Error::shape(call.op, "a state", "another value"));
        };
        let (place, spec) = (&self.memory.states[state], &self.states[state].spec);
        let part = call.attrs.get_count("part")?;
        let kept = spec.parts.get(part).filter(|_| spec.per == Per::Sequence);
        let (Some(kept), Some(&offset)) = (kept, place.offsets.get(part)) else {
            return Err(Error::shape(
                call.op,
                "a part of a state per sequence",
                format!("{spec:?}"),
            ));
        };
        if kept.num_elements() != size as u64 {
            return Err(Error::shape(call.op, format!("{size} elements"), format!("{kept:?}")));
        }
        if place.storage != Storage::Plain(DType::F32) || !offset.is_multiple_of(size_of::<f32>()) {
            return Err(Error::unsupported(call.op, format!("a state of {:?}", place.storage)));
        }
        if self.memory.block_size == 0 {
            return Err(Error::shape(call.op, "blocks of one position at least", "none"));
        }
        Ok((state, offset, place.num_blocks))
    }
}
