//! Stores keys and values into a paged cache.

use crate::{attend::AttendShape, cast::narrow, isa::Isa, lanes::Element};

/// Where the tokens of a call stand.
#[derive(Clone, Copy, Debug)]
pub struct TokenRefs<'a> {
    /// `[tokens]`, tokens from the start of the sequence.
    pub positions: &'a [u32],
    /// `[tokens]`, row of the block table.
    pub sequence_index: &'a [u32],
}

/// Which blocks of the pool hold a sequence, in order.
#[derive(Clone, Copy, Debug)]
pub struct BlockTable<'a> {
    /// `[seqs, blocks_per_seq]`
    pub entries: &'a [u32],
    /// Width of the table.
    pub blocks_per_seq: usize,
    /// Positions of a block.
    pub block_size: usize,
}

/// The cache: keys and values, each `[num_blocks, block_size, kv_heads, head_dim]`.
#[derive(Debug)]
pub struct KvState<'a, S> {
    /// Keys.
    pub k: &'a mut [S],
    /// Values.
    pub v: &'a mut [S],
}

/// Stores the keys and values of the call's tokens into their slots, rounded to the cache's dtype.
///
/// | argument | shape                          |
/// |----------|--------------------------------|
/// | `k`, `v` | `[tokens, kv_heads, head_dim]` |
///
/// # Panics
///
/// If the lengths do not fit the shapes or a slot is outside the state.
///
/// # Source
///
/// Kwon et al., "PagedAttention", arXiv:2309.06180, section 4.1.
pub fn store_kv<S: Element>(
    isa: Isa,
    shape: AttendShape,
    k: &[f32],
    v: &[f32],
    tokens: TokenRefs<'_>,
    table: BlockTable<'_>,
    state: &mut KvState<'_, S>,
) {
    let width = shape.kv_heads * shape.head_dim;
    let len = tokens.positions.len() * width;
    assert!(
        k.len() == len && v.len() == len,
        "store_kv: k, v are not [tokens, kv_heads, head_dim]"
    );
    assert_eq!(tokens.positions.len(), tokens.sequence_index.len(), "store_kv: tokens differ");
    for (t, &position) in tokens.positions.iter().enumerate() {
        let block = position as usize / table.block_size;
        assert!(block < table.blocks_per_seq, "store_kv: position {position} is outside the table");
        let row = tokens.sequence_index[t] as usize * table.blocks_per_seq;
        let slot = table.entries[row + block] as usize * table.block_size
            + position as usize % table.block_size;
        let token = t * width..(t + 1) * width;
        narrow(isa, &k[token.clone()], &mut state.k[slot * width..][..width]);
        narrow(isa, &v[token], &mut state.v[slot * width..][..width]);
    }
}
