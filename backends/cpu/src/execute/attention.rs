//! Attention over the paged cache. Positions and blocks have been checked.

use std::ops::Range;

use bytemuck::Pod;
use half::{bf16, f16};
use kernels_cpu::{
    self as kernels, BlockTable, Element, KvCodes, KvState, Reach, SequenceBlocks, TokenRefs,
    attend_codes, store_kv, store_kv_codes, store_rows,
};

use crate::code::{Attention, StateElement, StoredCodes, Within};
use crate::frame::Part;

/// Stores keys and values of all tokens: one unit, since tokens may share a slot.
pub(super) fn store(op: &Attention, part: &mut Part<'_>) {
    match &op.state {
        StateElement::F32 => store_as::<f32>(op, part),
        StateElement::F16 => store_as::<f16>(op, part),
        StateElement::BF16 => store_as::<bf16>(op, part),
        StateElement::Codes(codes) => {
            let (isa, tokens, table) = (part.isa(), tokens(op, part), table(op, part));
            let [k, v] = [op.k, op.v].map(|slot| part.read(slot));
            let store = |of: &StoredCodes, rows, bytes: &mut [u8]| {
                let StoredCodes { layout, channel_scales } = of;
                store_kv_codes(isa, layout, channel_scales, rows, tokens, table, bytes);
            };
            if op.spec.value_dim > 0 {
                let [keys] = part.state_mut::<u8, 1>([op.offsets[0]], op.len);
                return store(&codes[0], k, keys);
            }
            let [keys, values] = part.state_mut::<u8, 2>(op.offsets, op.len);
            store(&codes[0], k, keys);
            store(&codes[1], v, values);
        }
    }
}

fn tokens<'f>(op: &Attention, part: &Part<'f>) -> TokenRefs<'f> {
    TokenRefs { positions: part.read(op.positions), sequence_index: part.read(op.sequence_index) }
}

fn table<'f>(op: &Attention, part: &Part<'f>) -> BlockTable<'f> {
    let (entries, blocks_per_seq) = (part.read(op.block_table), op.blocks_per_seq.of(part.sizes()));
    BlockTable { entries, blocks_per_seq, block_size: op.block_size }
}

fn store_as<S: Element + Pod>(op: &Attention, part: &mut Part<'_>) {
    let (isa, tokens, table) = (part.isa(), tokens(op, part), table(op, part));
    let (new_k, new_v) = (part.read(op.k), part.read(op.v));
    if op.spec.value_dim > 0 {
        let [keys] = part.state_mut::<S, 1>([op.offsets[0]], op.len);
        let width = op.shape.kv_heads * op.shape.head_dim;
        return store_rows(isa, width, new_k, tokens, table, keys);
    }
    let [k, v] = part.state_mut::<S, 2>(op.offsets, op.len);
    store_kv(isa, op.shape, new_k, new_v, tokens, table, &mut KvState { k, v });
}

/// One unit is one token and one head of keys and values, with all query heads that use it.
pub(super) fn attend(op: &Attention, part: &mut Part<'_>) {
    match &op.state {
        StateElement::F32 => attend_as::<f32>(op, part),
        StateElement::F16 => attend_as::<f16>(op, part),
        StateElement::BF16 => attend_as::<bf16>(op, part),
        StateElement::Codes(codes) => {
            let isa = part.isa();
            let bytes = op.offsets.map(|offset| part.state::<u8>(offset, op.len));
            let kv = [0, 1].map(|i: usize| {
                let StoredCodes { layout, channel_scales } = &codes[i];
                KvCodes { layout, channel_scales, bytes: bytes[i] }
            });
            attend_with(op, part, |kv_head, q, sinks, positions, blocks, out| {
                let (spec, shape) = (op.spec, op.shape);
                attend_codes(isa, spec, shape, kv_head, q, sinks, positions, blocks, kv, out);
            });
        }
    }
}

fn attend_as<S: Element + Pod>(op: &Attention, part: &mut Part<'_>) {
    let isa = part.isa();
    let kv = op.offsets.map(|offset| part.state::<S>(offset, op.len));
    attend_with(op, part, |kv_head, q, sinks, positions, blocks, out| {
        kernels::attend(isa, op.spec, op.shape, kv_head, q, sinks, positions, blocks, kv, out);
    });
}

/// Tokens that stand together in a sequence share what they read, head by head: `attend` is called
/// with a head, queries, sinks, positions, blocks and results.
fn attend_with(
    op: &Attention,
    part: &mut Part<'_>,
    attend: impl Fn(usize, &[f32], &[f32], &[u32], SequenceBlocks<'_>, &mut [f32]),
) {
    let width = op.blocks_per_seq.of(part.sizes());
    let kv_heads = op.shape.kv_heads;
    let group = op.shape.heads / kv_heads;
    let [width_in, width_out] =
        [op.shape.head_dim, op.spec.values_of(op.shape.head_dim)].map(|width| group * width);
    let sinks = op.sinks.map_or(&[][..], |sinks| part.read::<f32>(sinks));
    let positions = part.read::<u32>(op.positions);
    let sequences = part.read::<u32>(op.sequence_index);
    let table = part.read::<u32>(op.block_table);
    let (units, q) = (part.units(), part.read_share::<f32>(op.q, width_in));
    let out = part.write(0);
    for kv_head in 0..kv_heads {
        let token_from = |unit: usize| unit.saturating_sub(kv_head).div_ceil(kv_heads);
        let (mut first, end) = (token_from(units.start), token_from(units.end));
        while first < end {
            let sequence = sequences[first];
            let is_mate = |other: &&u32| **other == sequence;
            let mates = sequences[first..end].iter().take_while(is_mate).count();
            let blocks = &table[sequence as usize * width..][..width];
            let blocks = SequenceBlocks { blocks, block_size: op.block_size };
            let at = first * kv_heads + kv_head - units.start;
            let (q, out) = (&q[at * width_in..], &mut out[at * width_out..]);
            let positions = &positions[first..first + mates];
            attend(kv_head, q, sinks, positions, blocks, out);
            first += mates;
        }
    }
}

/// Units are those of [`attend`]; keys and values are those of the step.
pub(super) fn attend_within(op: &Within, part: &mut Part<'_>) {
    let (isa, kv_heads) = (part.isa(), op.shape.kv_heads);
    let (group, width) =
        (op.shape.heads / kv_heads * op.shape.head_dim, kv_heads * op.shape.head_dim);
    let [k, v] = [op.k, op.v].map(|slot| part.read::<f32>(slot));
    let sequences = part.read::<u32>(op.sequence_index);
    let (units, q) = (part.units(), part.read_share::<f32>(op.q, group));
    let out = part.write(0);
    for kv_head in 0..kv_heads {
        let token_from = |unit: usize| unit.saturating_sub(kv_head).div_ceil(kv_heads);
        let (mut first, end) = (token_from(units.start), token_from(units.end));
        while first < end {
            let run = run_around(sequences, first);
            let count = run.end.min(end) - first;
            let kv = [k, v].map(|x| &x[run.start * width..run.end * width]);
            let at = (first * kv_heads + kv_head - units.start) * group;
            let (q, out) = (&q[at..], &mut out[at..]);
            let reach = match op.is_causal {
                true => Reach::Causal { first: first - run.start },
                false => Reach::Sequence,
            };
            kernels::attend_within(isa, op.scale, reach, op.shape, kv_head, count, q, kv, out);
            first += count;
        }
    }
}

/// The tokens around `token` with its sequence index.
pub(super) fn run_around(sequences: &[u32], token: usize) -> Range<usize> {
    let is_mate = |other: &&u32| **other == sequences[token];
    let before = sequences[..token].iter().rev().take_while(is_mate).count();
    let after = sequences[token..].iter().take_while(is_mate).count();
    token - before..token + after
}
