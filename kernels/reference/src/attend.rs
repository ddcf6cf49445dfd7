//! Causal attention over a paged cache of keys and values.

use crate::{Real, Stored, reduce::peak};

/// Positions of one softmax split; splits start at its multiples.
pub const SPLIT_POSITIONS: usize = 256;

/// Sizes of one attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttendShape {
    /// Query heads of a token, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads; query head `h` uses `h * kv_heads / heads`.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
}

/// What is computed with the products of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttendSpec<T> {
    /// Factor of every score.
    pub scale: T,
    /// Positions that a token sees, itself included; 0 for all up to itself.
    pub window: usize,
    /// Scores become `softcap * tanh(score / softcap)`; 0 for none.
    pub softcap: T,
}

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

impl BlockTable<'_> {
    /// The slot of a position: block times block size plus the place inside.
    pub fn slot(&self, sequence: usize, position: usize) -> usize {
        let block = position / self.block_size;
        assert!(block < self.blocks_per_seq, "attend: position {position} is outside the table");
        let block = self.entries[sequence * self.blocks_per_seq + block] as usize;
        block * self.block_size + position % self.block_size
    }
}

/// The cache: keys and values, each `[num_blocks, block_size, kv_heads, head_dim]`.
#[derive(Debug)]
pub struct KvState<'a, S> {
    /// Keys.
    pub k: &'a mut [S],
    /// Values.
    pub v: &'a mut [S],
}

/// Stores the keys and values of the call's tokens into their slots.
///
/// | argument | shape                          |
/// |----------|--------------------------------|
/// | `k`, `v` | `[tokens, kv_heads, head_dim]` |
///
/// # Panics
///
/// If the lengths do not fit the shapes or a slot is outside the state.
pub fn store_kv<T: Real, S: Stored>(
    shape: AttendShape,
    k: &[T],
    v: &[T],
    tokens: TokenRefs<'_>,
    table: BlockTable<'_>,
    state: &mut KvState<'_, S>,
) {
    let width = shape.kv_heads * shape.head_dim;
    let len = tokens.positions.len() * width;
    assert!(k.len() == len && v.len() == len, "attend: k, v are not [tokens, kv_heads, head_dim]");
    for (t, &position) in tokens.positions.iter().enumerate() {
        let sequence = tokens.sequence_index[t] as usize;
        let slot = table.slot(sequence, position as usize);
        for c in 0..width {
            state.k[slot * width + c] = S::from_f64(k[t * width + c].to_f64());
            state.v[slot * width + c] = S::from_f64(v[t * width + c].to_f64());
        }
    }
}

/// Lets each token attend to the stored positions of its sequence up to its own.
///
/// Call [`store_kv`] first. The softmax runs in splits of [`SPLIT_POSITIONS`] absolute positions,
/// merged in order, so the numbers do not depend on blocks or on other tokens.
///
/// | argument   | shape                       |
/// |------------|-----------------------------|
/// | `q`, `out` | `[tokens, heads, head_dim]` |
///
/// # Panics
///
/// If the lengths do not fit the shapes or a slot is outside the state.
///
/// # Source
///
/// Kwon et al., "PagedAttention", arXiv:2309.06180, section 4.1; the merge: Dao et al.,
/// "FlashAttention", arXiv:2205.14135, section 3.1.
pub fn attend<T: Real, S: Stored>(
    spec: AttendSpec<T>,
    shape: AttendShape,
    q: &[T],
    tokens: TokenRefs<'_>,
    table: BlockTable<'_>,
    state: &KvState<'_, S>,
    out: &mut [T],
) {
    let AttendShape { heads, kv_heads, head_dim } = shape;
    let len = tokens.positions.len() * heads * head_dim;
    assert!(q.len() == len && out.len() == len, "attend: q, out are not [tokens, heads, head_dim]");
    assert_eq!(heads % kv_heads, 0, "attend: heads are not a multiple of kv_heads");
    for (t, &position) in tokens.positions.iter().enumerate() {
        let sequence = tokens.sequence_index[t] as usize;
        for head in 0..heads {
            let start = (t * heads + head) * head_dim;
            let at = HeadRef { sequence, kv_head: head * kv_heads / heads };
            let (q, out) = (&q[start..][..head_dim], &mut out[start..][..head_dim]);
            attend_head(spec, shape, at, q, position as usize, table, state, out);
        }
    }
}

/// One head of one sequence in the cache.
#[derive(Clone, Copy)]
struct HeadRef {
    sequence: usize,
    kv_head: usize,
}

#[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename them")]
fn attend_head<T: Real, S: Stored>(
    spec: AttendSpec<T>,
    shape: AttendShape,
    at: HeadRef,
    q: &[T],
    position: usize,
    table: BlockTable<'_>,
    state: &KvState<'_, S>,
    out: &mut [T],
) {
    let row =
        |j: usize| (table.slot(at.sequence, j) * shape.kv_heads + at.kv_head) * shape.head_dim;
    let first = if spec.window == 0 { 0 } else { (position + 1).saturating_sub(spec.window) };
    let (mut running_peak, mut running_sum) = (T::NEG_INFINITY, T::zero());
    out.fill(T::zero());
    for split in first / SPLIT_POSITIONS..=position / SPLIT_POSITIONS {
        let start = first.max(split * SPLIT_POSITIONS);
        let end = (position + 1).min((split + 1) * SPLIT_POSITIONS);
        let mut weights = [T::zero(); SPLIT_POSITIONS];
        let weights = &mut weights[..end - start];
        for (j, weight) in (start..end).zip(weights.iter_mut()) {
            let mut dot = T::zero();
            for (c, &q) in q.iter().enumerate() {
                dot += q * T::from_f64(state.k[row(j) + c].to_f64());
            }
            *weight = cap(dot * spec.scale, spec.softcap);
        }
        let split_peak = peak(weights);
        let mut split_sum = T::zero();
        for weight in weights.iter_mut() {
            *weight = (*weight - split_peak).exp();
            split_sum += *weight;
        }
        let new_peak = running_peak.greater(split_peak);
        let (old, new) = ((running_peak - new_peak).exp(), (split_peak - new_peak).exp());
        for (c, out) in out.iter_mut().enumerate() {
            let mut sum = T::zero();
            for (j, weight) in (start..end).zip(weights.iter()) {
                sum += *weight * T::from_f64(state.v[row(j) + c].to_f64());
            }
            *out = *out * old + sum * new;
        }
        running_sum = running_sum * old + split_sum * new;
        running_peak = new_peak;
    }
    for out in out {
        *out = *out / running_sum;
    }
}

fn cap<T: Real>(score: T, softcap: T) -> T {
    if softcap == T::zero() { score } else { softcap * (score / softcap).tanh() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: AttendShape = AttendShape { heads: 2, kv_heads: 1, head_dim: 2 };

    /// `num_tokens` of one sequence: key `(ln(1 + t), 0)`, value `(t, 1)`, queries `(1, 0)` and
    /// `(0, 1)`, so that head 0 weighs position `t` by `1 + t` and head 1 all alike.
    fn last_output(num_tokens: usize, window: usize, block_size: usize) -> [f64; 4] {
        let blocks = num_tokens.div_ceil(block_size);
        let entries: Vec<u32> = (0..blocks as u32).rev().collect();
        let table = BlockTable { entries: &entries, blocks_per_seq: blocks, block_size };
        let positions: Vec<u32> = (0..num_tokens as u32).collect();
        let sequence_index = vec![0; num_tokens];
        let tokens = TokenRefs { positions: &positions, sequence_index: &sequence_index };
        let k: Vec<f64> = (0..num_tokens).flat_map(|t| [((1 + t) as f64).ln(), 0.0]).collect();
        let v: Vec<f64> = (0..num_tokens).flat_map(|t| [t as f64, 1.0]).collect();
        let (mut pool_k, mut pool_v) = (vec![0.0_f64; blocks * block_size * 2], Vec::new());
        pool_v.clone_from(&pool_k);
        let mut state = KvState { k: &mut pool_k, v: &mut pool_v };
        store_kv(SHAPE, &k, &v, tokens, table, &mut state);
        let last = TokenRefs { positions: &positions[num_tokens - 1..], sequence_index: &[0] };
        let spec = AttendSpec { scale: 1.0, window, softcap: 0.0 };
        let mut out = [0.0; 4];
        attend(spec, SHAPE, &[1.0, 0.0, 0.0, 1.0], last, table, &state, &mut out);
        out
    }

    #[test]
    fn weighs_the_visible_positions() {
        for num_tokens in [1_usize, 2, 7, 8, 9, 63, 256, 257, 600] {
            for window in [0, 1, 5, 300] {
                let n = num_tokens as f64;
                let first = if window == 0 { 0 } else { num_tokens.saturating_sub(window) };
                let seen = first..num_tokens;
                let count = seen.len() as f64;
                let weights: f64 = seen.clone().map(|t| (t + 1) as f64).sum();
                let weighted: f64 = seen.clone().map(|t| (t * (t + 1)) as f64).sum();
                let plain: f64 = seen.map(|t| t as f64).sum();
                let expected = [weighted / weights, 1.0, plain / count, 1.0];
                let found = last_output(num_tokens, window, 16);
                for (found, expected) in found.iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-9 * n, "{num_tokens} {window}: {found}");
                }
            }
        }
    }

    #[test]
    fn the_block_size_changes_no_bit() {
        let expected = last_output(600, 0, 16);
        for block_size in [1, 7, 64, 1024] {
            assert_eq!(last_output(600, 0, block_size), expected, "block size {block_size}");
        }
    }

    #[test]
    fn the_softcap_bends_large_scores() {
        assert_eq!(cap(3.0_f64, 0.0), 3.0);
        assert!((cap(100.0_f64, 5.0) - 5.0).abs() < 1e-12);
        assert!((cap(0.01_f64, 5.0) - 0.01).abs() < 1e-6);
    }
}
