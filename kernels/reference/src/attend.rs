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
    /// Positions of a chunk: a token sees those of its own chunk only; 0 for no chunks.
    pub chunk: usize,
    /// Channels of a value, the first of its row; 0 for as many as a head has.
    pub value_dim: usize,
}

impl<T> AttendSpec<T> {
    /// The first position that the token at `position` sees.
    pub fn first(&self, position: usize) -> usize {
        let of_window = match self.window {
            0 => 0,
            window => (position + 1).saturating_sub(window),
        };
        let of_chunk = position.checked_div(self.chunk).map_or(0, |chunk| chunk * self.chunk);
        of_window.max(of_chunk)
    }
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
/// A sink is the score of a place without a value: it takes its share of the softmax of its head.
///
/// | argument | shape                                     |
/// |----------|-------------------------------------------|
/// | `q`      | `[tokens, heads, head_dim]`               |
/// | `sinks`  | `[heads]`, or nothing                     |
/// | `out`    | `[tokens, heads, head_dim or value_dim]`  |
///
/// # Panics
///
/// If the lengths do not fit the shapes or a slot is outside the state.
///
/// # Source
///
/// Kwon et al., "PagedAttention", arXiv:2309.06180, section 4.1; the merge: Dao et al.,
/// "FlashAttention", arXiv:2205.14135, section 3.1; sinks: OpenAI, "gpt-oss-120b & gpt-oss-20b Model
/// Card", arXiv:2508.10925, section 2.2.
#[expect(clippy::too_many_arguments, reason = "each is a tensor or an attribute of the op")]
pub fn attend<T: Real, S: Stored>(
    spec: AttendSpec<T>,
    shape: AttendShape,
    q: &[T],
    sinks: &[T],
    tokens: TokenRefs<'_>,
    table: BlockTable<'_>,
    state: &KvState<'_, S>,
    out: &mut [T],
) {
    let AttendShape { heads, kv_heads, head_dim } = shape;
    let value_dim = if spec.value_dim == 0 { head_dim } else { spec.value_dim };
    assert!(value_dim <= head_dim, "attend: values are wider than heads");
    let rows = tokens.positions.len() * heads;
    assert_eq!(q.len(), rows * head_dim, "attend: q is not [tokens, heads, head_dim]");
    assert_eq!(out.len(), rows * value_dim, "attend: out is not [tokens, heads, value_dim]");
    assert_eq!(heads % kv_heads, 0, "attend: heads are not a multiple of kv_heads");
    assert!(sinks.is_empty() || sinks.len() == heads, "attend: sinks are not [heads]");
    for (t, &position) in tokens.positions.iter().enumerate() {
        let sequence = tokens.sequence_index[t] as usize;
        for head in 0..heads {
            let row = t * heads + head;
            let sink = sinks.get(head).copied();
            let at = HeadRef { sequence, kv_head: head * kv_heads / heads, sink };
            let q = &q[row * head_dim..][..head_dim];
            let out = &mut out[row * value_dim..][..value_dim];
            attend_head(spec, shape, at, q, position as usize, table, state, out);
        }
    }
}

/// One head of one sequence in the cache.
#[derive(Clone, Copy)]
struct HeadRef<T> {
    sequence: usize,
    kv_head: usize,
    sink: Option<T>,
}

#[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename them")]
fn attend_head<T: Real, S: Stored>(
    spec: AttendSpec<T>,
    shape: AttendShape,
    at: HeadRef<T>,
    q: &[T],
    position: usize,
    table: BlockTable<'_>,
    state: &KvState<'_, S>,
    out: &mut [T],
) {
    let row =
        |j: usize| (table.slot(at.sequence, j) * shape.kv_heads + at.kv_head) * shape.head_dim;
    let first = spec.first(position);
    let nothing = (T::NEG_INFINITY, T::zero());
    let (mut running_peak, mut running_sum) = at.sink.map_or(nothing, |sink| (sink, T::one()));
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
        output_of(num_tokens, [window, 0], block_size, &[])
    }

    fn output_of(
        num_tokens: usize,
        [window, chunk]: [usize; 2],
        block_size: usize,
        sinks: &[f64],
    ) -> [f64; 4] {
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
        let spec = AttendSpec { scale: 1.0, window, softcap: 0.0, chunk, value_dim: 0 };
        let mut out = [0.0; 4];
        attend(spec, SHAPE, &[1.0, 0.0, 0.0, 1.0], sinks, last, table, &state, &mut out);
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
    fn a_chunk_is_all_that_its_tokens_see() {
        for (num_tokens, chunk, first) in [(9, 4, 8), (8, 4, 4), (3, 4, 0), (601, 300, 600)] {
            let alike = (first..num_tokens).sum::<usize>() as f64 / (num_tokens - first) as f64;
            let found = output_of(num_tokens, [0, chunk], 16, &[]);
            assert!((found[2] - alike).abs() < 1e-9, "{num_tokens} {chunk}: {found:?}");
        }
    }

    #[test]
    fn a_sink_takes_its_share() {
        // Head 1 weighs each of the tokens by 1, and the sink by 7.
        for num_tokens in [1_usize, 9, 300] {
            let sinks = [0.0, 7.0_f64.ln()];
            let found = output_of(num_tokens, [0, 0], 16, &sinks);
            let n = num_tokens as f64;
            assert!((found[3] - n / (n + 7.0)).abs() < 1e-12, "{num_tokens}: {found:?}");
            let weights = n * (n + 1.0) / 2.0;
            assert!((found[1] - weights / (weights + 1.0)).abs() < 1e-12, "{found:?}");
        }
    }

    #[test]
    fn the_softcap_bends_large_scores() {
        assert_eq!(cap(3.0_f64, 0.0), 3.0);
        assert!((cap(100.0_f64, 5.0) - 5.0).abs() < 1e-12);
        assert!((cap(0.01_f64, 5.0) - 0.01).abs() < 1e-6);
    }
}
