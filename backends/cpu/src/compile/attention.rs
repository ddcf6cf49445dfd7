//! `attend`: where keys and values lie, and what reads them; `attend_within`, which keeps nothing.

use kernels_cpu::{AttendShape, AttendSpec, KvCodeLayout};
use plugin_api::kinds::kv_cache::{AffineStorage, CodeScales, Storage};
use plugin_api::plan::ops::is_causal;
use plugin_api::plan::{Part, Per};
use plugin_api::{DType, Error, Result};

use super::builder::{Builder, Value};
use super::lower::Call;
use crate::check::Check;
use crate::code::{
    Attention, Element, LEFT, Op, SlotId, StateElement, StoredCodes, Units, Within, WithinGrad,
};
use crate::run::ATTEND_CONTEXT;
use crate::size::Size;

impl Builder<'_> {
    pub(super) fn attend(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let shape = self.attend_shape(call)?;
        let Value::State(state) = call.arg(3)? else {
            return Err(Error::shape(call.op, "a state", "another value"));
        };
        let Per::Token { window } = self.states[state].spec.per else {
            return Err(Error::unsupported(call.op, "a state that is kept per token"));
        };
        let place = &self.memory.states[state];
        let (num_blocks, block_size) = (place.num_blocks, self.memory.block_size);
        let spec = AttendSpec {
            scale: call.float("scale")?,
            window: window as usize,
            softcap: call.float("softcap")?,
            chunk: call.attrs.get_count_or_zero("chunk")?,
            value_dim: call.attrs.get_count_or_zero("value_dim")?,
        };
        let state_index = state;
        let (state, offsets, len) = self.state(call, state, shape, spec.value_dim > 0)?;
        let sinks = if call.args.len() > SINKS { Some(self.floats(call, SINKS)?) } else { None };
        let [q, k, v] = [self.floats(call, 0)?, self.floats(call, 1)?, self.floats(call, 2)?];
        let mut indices = [0; 3];
        for (i, slot) in indices.iter_mut().enumerate() {
            *slot = self.dense(call.arg(4 + i)?)?;
            if self.slots[*slot].element != Element::U32 {
                return Err(Error::shape(call.op, "positions and tables of u32", "floats"));
            }
        }
        let [positions, sequence_index, block_table] = indices;
        let [_, blocks_per_seq] = self.symbols.rows_width(call.spec(6)?)?;
        self.check(Check::Blocks {
            positions,
            sequence_index,
            block_table,
            blocks_per_seq,
            block_size,
            num_blocks,
            window: spec.window,
        });
        let attention = Attention {
            shape,
            spec,
            q,
            k,
            v,
            sinks,
            positions,
            sequence_index,
            block_table,
            blocks_per_seq,
            block_size,
            state_index,
            state,
            offsets,
            len,
        };
        let tables = [positions, sequence_index, block_table];
        let reads = [&[k, v], &tables[..]].concat();
        self.emit_whole(Op::Store(Box::new(attention.clone())), &reads, &[]);
        let out = self.scratch_for(call.result(0)?)?;
        let group = shape.heads / shape.kv_heads;
        let tokens = self.slots[positions].len;
        let units = Units::Count(tokens.times(shape.kv_heads));
        let mut reads = [&[q], &tables[..]].concat();
        reads.extend(sinks);
        let (ns, width) =
            (group * shape.head_dim * ATTEND_CONTEXT / 12, spec.values_of(shape.head_dim));
        let op = Op::Attend(Box::new(attention));
        self.emit(op, units, ns, &reads, &[(out, Size::fixed(group * width))]);
        Ok(out)
    }

    pub(super) fn attend_within(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let (within, units) = self.within(call)?;
        let Within { shape, q, k, v, sequence_index, .. } = within;
        let out = self.scratch_for(call.result(0)?)?;
        let group = shape.heads / shape.kv_heads * shape.head_dim;
        let op = Op::AttendWithin(Box::new(within));
        let ns = group * ATTEND_CONTEXT / 12;
        self.emit(op, units, ns, &[q, k, v, sequence_index], &[(out, Size::fixed(group))]);
        Ok(out)
    }

    /// Gradients by queries, keys and values.
    pub(super) fn attend_within_grad(&mut self, call: &Call<'_>) -> Result<[SlotId; 3]> {
        let (of, units) = self.within(call)?;
        let out_grad = self.floats(call, 4)?;
        let Within { shape, q, k, v, sequence_index, .. } = of;
        let group = shape.heads / shape.kv_heads;
        let mut grads = [0; 3];
        for (i, grad) in grads.iter_mut().enumerate() {
            *grad = self.scratch_for(call.result(i)?)?;
        }
        let [q_grad, k_grad, v_grad] = grads;
        let left =
            self.scratch(Element::F32, self.slots[sequence_index].len.times(LEFT * shape.heads));
        let grad = WithinGrad { of, out_grad, left };
        let reads = [q, k, v, out_grad, sequence_index];
        let ns = group * shape.head_dim * ATTEND_CONTEXT / 5;
        let widths = [group * shape.head_dim, LEFT * group].map(Size::fixed);
        let outputs = [(q_grad, widths[0]), (left, widths[1])];
        self.emit(Op::QueryGrad(Box::new(grad.clone())), units, ns, &reads, &outputs);
        let reads = [q, k, v, out_grad, left, sequence_index];
        let width = Size::fixed(shape.head_dim);
        let outputs = [(k_grad, width), (v_grad, width)];
        self.emit(Op::KeyGrad(Box::new(grad)), units, ns, &reads, &outputs);
        Ok(grads)
    }

    /// What attention within a step reads; a unit is a token and a head of keys and values.
    fn within(&mut self, call: &Call<'_>) -> Result<(Within, Units)> {
        let (shape, scale) = (self.attend_shape(call)?, call.float("scale")?);
        let [q, k, v] = [self.floats(call, 0)?, self.floats(call, 1)?, self.floats(call, 2)?];
        let sequence_index = self.dense(call.arg(3)?)?;
        if self.slots[sequence_index].element != Element::U32 {
            return Err(Error::shape(call.op, "a sequence index of u32", "floats"));
        }
        let is_causal = is_causal(call.attrs)?;
        let within = Within { shape, scale, is_causal, q, k, v, sequence_index };
        Ok((within, Units::Count(self.slots[sequence_index].len.times(shape.kv_heads))))
    }

    fn attend_shape(&self, call: &Call<'_>) -> Result<AttendShape> {
        let fixed = |i: usize, axis: usize| -> Result<usize> {
            let spec = call.spec(i)?;
            let dim = spec.dims.get(axis).and_then(|dim| dim.fixed());
            let size = dim.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
            size.ok_or_else(|| Error::shape(call.op, "[tokens, heads, head_dim]", spec))
        };
        let (heads, head_dim, kv_heads) = (fixed(0, 1)?, fixed(0, 2)?, fixed(1, 1)?);
        if !heads.is_multiple_of(kv_heads) {
            let expected = format!("a multiple of {kv_heads} heads");
            return Err(Error::shape(call.op, expected, heads));
        }
        Ok(AttendShape { heads, kv_heads, head_dim })
    }

    /// Type, offsets of keys and values, and elements of each. Values that are channels of the keys lie
    /// where those do.
    fn state(
        &self,
        call: &Call<'_>,
        state: usize,
        shape: AttendShape,
        is_shared: bool,
    ) -> Result<(StateElement, [usize; 2], usize)> {
        let place = &self.memory.states[state];
        let width = shape.kv_heads * shape.head_dim;
        let parts = &self.states[state].spec.parts;
        let are_rows = parts.iter().all(|part| part.num_elements() == width as u64);
        let [k, v] = match place.offsets[..] {
            [k] if is_shared && are_rows && parts.len() == 1 => [k, k],
            [k, v] if !is_shared && are_rows && parts.len() == 2 => [k, v],
            _ => {
                let what = if is_shared { "keys" } else { "keys and values" };
                let expected = format!("{what} of {width} elements");
                return Err(Error::shape(call.op, expected, format!("{parts:?}")));
            }
        };
        let (element, size) = match &place.storage {
            Storage::Plain(DType::F32) => (StateElement::F32, 4),
            Storage::Plain(DType::F16) => (StateElement::F16, 2),
            Storage::Plain(DType::BF16) => (StateElement::BF16, 2),
            Storage::Affine(affine) => (self.codes(call, affine, parts, shape)?, 1),
            other => return Err(Error::unsupported(call.op, format!("a state of {other:?}"))),
        };
        let block_bytes = place.storage.block_bytes(&parts[0], self.memory.block_size);
        let bytes = place.num_blocks.checked_mul(block_bytes);
        let bytes = bytes.filter(|_| block_bytes < usize::MAX);
        let bytes =
            bytes.ok_or_else(|| Error::unsupported(call.op, "a state that is too large"))?;
        let is_apart = (is_shared || k.abs_diff(v) >= bytes) && k % size == 0 && v % size == 0;
        if self.memory.block_size == 0 || !is_apart {
            let expected = "keys and values apart, in blocks of one position at least";
            return Err(Error::shape(call.op, expected, format!("{place:?}")));
        }
        Ok((element, [k, v], bytes / size))
    }

    /// How the codes of keys and values lie, as the kernels know it; those of values that are
    /// channels of the keys lie as keys do.
    fn codes(
        &self,
        call: &Call<'_>,
        affine: &AffineStorage,
        parts: &[Part],
        shape: AttendShape,
    ) -> Result<StateElement> {
        let storage = Storage::Affine(affine.clone());
        let stored = |index: usize| {
            let layout = storage.codes(&parts[index], self.memory.block_size)?;
            let is_heads =
                (layout.num_vectors, layout.vector_len) == (shape.kv_heads, shape.head_dim);
            let channel_scales = match &affine.scales {
                CodeScales::PerVector => Vec::new(),
                CodeScales::PerChannel(scales) => scales.get(index)?.clone(),
            };
            let num_scales = if layout.has_scales { 0 } else { shape.kv_heads * shape.head_dim };
            let layout = KvCodeLayout {
                heads: layout.num_vectors,
                head_dim: layout.vector_len,
                block_size: layout.block_size,
                has_scales: layout.has_scales,
                row_bytes: layout.row_bytes,
                num_patches: layout.num_patches,
                patch_bytes: layout.patch_bytes,
                error_min: layout.error_min,
                block_bytes: layout.block_bytes,
            };
            let is_whole = is_heads && channel_scales.len() == num_scales;
            is_whole.then_some(StoredCodes { layout, channel_scales })
        };
        match (stored(0), stored(parts.len() - 1)) {
            (Some(k), Some(v)) => Ok(StateElement::Codes(Box::new([k, v]))),
            _ => {
                let expected = format!("codes of [{}, {}]", shape.kv_heads, shape.head_dim);
                Err(Error::shape(call.op, expected, format!("{parts:?}")))
            }
        }
    }
}

/// Which input of `attend` its sinks are.
const SINKS: usize = 7;
