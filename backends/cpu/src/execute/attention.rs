//! Attention over the paged cache. Positions and blocks have been checked.

use bytemuck::Pod;
use half::{bf16, f16};
use kernels_cpu::{
    self as kernels, BlockTable, Element, KvState, SequenceBlocks, TokenRefs, store_kv,
};

use crate::code::{Attention, StateElement};
use crate::frame::Part;

/// Stores keys and values of all tokens: one unit, since tokens may share a slot.
pub(super) fn store(op: &Attention, part: &mut Part<'_>) {
    match op.state {
        StateElement::F32 => store_as::<f32>(op, part),
        StateElement::F16 => store_as::<f16>(op, part),
        StateElement::BF16 => store_as::<bf16>(op, part),
    }
}

fn store_as<S: Element + Pod>(op: &Attention, part: &mut Part<'_>) {
    let (isa, blocks_per_seq) = (part.isa(), op.blocks_per_seq.of(part.sizes()));
    let entries = part.read(op.block_table);
    let table = BlockTable { entries, blocks_per_seq, block_size: op.block_size };
    let tokens = TokenRefs {
        positions: part.read(op.positions),
        sequence_index: part.read(op.sequence_index),
    };
    let (new_k, new_v) = (part.read(op.k), part.read(op.v));
    let [k, v] = part.state_mut::<S>(op.offsets, op.len);
    store_kv(isa, op.shape, new_k, new_v, tokens, table, &mut KvState { k, v });
}

/// One unit is one token and one head of keys and values, with all query heads that use it.
pub(super) fn attend(op: &Attention, part: &mut Part<'_>) {
    match op.state {
        StateElement::F32 => attend_as::<f32>(op, part),
        StateElement::F16 => attend_as::<f16>(op, part),
        StateElement::BF16 => attend_as::<bf16>(op, part),
    }
}

fn attend_as<S: Element + Pod>(op: &Attention, part: &mut Part<'_>) {
    let (isa, width) = (part.isa(), op.blocks_per_seq.of(part.sizes()));
    let kv_heads = op.shape.kv_heads;
    let group = op.shape.heads / kv_heads * op.shape.head_dim;
    let kv = op.offsets.map(|offset| part.state::<S>(offset, op.len));
    let (positions, sequences) =
        (part.read::<u32>(op.positions), part.read::<u32>(op.sequence_index));
    let table = part.read::<u32>(op.block_table);
    let (units, q) = (part.units(), part.read_share::<f32>(op.q, group));
    let heads = q.chunks_exact(group).zip(part.write(0).chunks_exact_mut(group));
    for (unit, (q, out)) in units.zip(heads) {
        let (token, kv_head) = (unit / kv_heads, unit % kv_heads);
        let blocks = &table[sequences[token] as usize * width..][..width];
        let sequence = SequenceBlocks { blocks, block_size: op.block_size };
        let position = positions[token] as usize;
        kernels::attend(isa, op.spec, op.shape, kv_head, q, position, sequence, kv, out);
    }
}
