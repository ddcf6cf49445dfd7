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
    store_rows(isa, width, k, tokens, table, state.k);
    store_rows(isa, width, v, tokens, table, state.v);
}

/// Stores a row for each of the call's tokens into its slot, rounded to the cache's dtype.
///
/// | argument | shape                             |
/// |----------|-----------------------------------|
/// | `rows`   | `[tokens, width]`                 |
/// | `pool`   | `[num_blocks, block_size, width]` |
///
/// # Panics
///
/// If the lengths do not fit the shapes or a slot is outside the pool.
pub fn store_rows<S: Element>(
    isa: Isa,
    width: usize,
    rows: &[f32],
    tokens: TokenRefs<'_>,
    table: BlockTable<'_>,
    pool: &mut [S],
) {
    assert_eq!(rows.len(), tokens.positions.len() * width, "store_rows: not [tokens, width]");
    assert_eq!(tokens.positions.len(), tokens.sequence_index.len(), "store_rows: tokens differ");
    for (t, &position) in tokens.positions.iter().enumerate() {
        let block = position as usize / table.block_size;
        assert!(block < table.blocks_per_seq, "store_rows: {position} is outside the table");
        let row = tokens.sequence_index[t] as usize * table.blocks_per_seq;
        let slot = table.entries[row + block] as usize * table.block_size
            + position as usize % table.block_size;
        narrow(isa, &rows[t * width..][..width], &mut pool[slot * width..][..width]);
    }
}
