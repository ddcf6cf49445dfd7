//! Causal attention over a paged cache, for one token and one key-value head at a time.

use crate::{
    element::load_part,
    isa::{Isa, Kernel, dispatch},
    lanes::{Element, LANES, Lanes},
    math, reduce,
    softmax::exponentials,
};

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
pub struct AttendSpec {
    /// Factor of every score.
    pub scale: f32,
    /// Positions that a token sees, itself included; 0 for all up to itself.
    pub window: usize,
    /// Scores become `softcap * tanh(score / softcap)`; 0 for none.
    pub softcap: f32,
}

/// The blocks of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct SequenceBlocks<'a> {
    /// Its row of the block table, `[blocks_per_seq]`.
    pub blocks: &'a [u32],
    /// Positions of a block.
    pub block_size: usize,
}

/// Lets the query heads of one key-value head attend to the stored positions up to `position`.
///
/// Store the call's keys and values first (`store_kv`). The softmax runs in splits of
/// [`SPLIT_POSITIONS`] absolute positions, merged in order by log-sum-exp: the bits depend neither
/// on the block size nor on other tokens or heads. Callers divide the work by tokens and heads.
///
/// | argument   | shape                                          | dtype                |
/// |------------|------------------------------------------------|----------------------|
/// | `q`, `out` | `[heads / kv_heads, head_dim]`                 | `f32`                |
/// | `k`, `v`   | `[num_blocks, block_size, kv_heads, head_dim]` | `f32`, `f16`, `bf16` |
///
/// `position` is that of the query, in tokens from the start of the sequence.
///
/// # Panics
///
/// If the lengths do not fit the shapes, a slot is outside `k` or `v`, or there are more than
/// 64 query heads to a key-value head.
///
/// # Source
///
/// Kwon et al., "PagedAttention", arXiv:2309.06180, section 4.1; the merge: Dao et al.,
/// "FlashAttention", arXiv:2205.14135, section 3.1.
#[expect(clippy::too_many_arguments, reason = "each is a tensor or an attribute of the op")]
pub fn attend<S: Element>(
    isa: Isa,
    spec: AttendSpec,
    shape: AttendShape,
    kv_head: usize,
    q: &[f32],
    position: usize,
    sequence: SequenceBlocks<'_>,
    [k, v]: [&[S]; 2],
    out: &mut [f32],
) {
    let AttendShape { heads, kv_heads, head_dim } = shape;
    assert!(kv_head < kv_heads, "attend: key-value head {kv_head} of {kv_heads}");
    assert!(heads.is_multiple_of(kv_heads), "attend: heads are not a multiple of kv_heads");
    let group = heads / kv_heads;
    assert!(group <= GROUP_MAX, "attend: {group} query heads to a key-value head");
    assert!(head_dim > 0, "attend: head_dim is 0");
    let len = group * head_dim;
    assert!(q.len() == len && out.len() == len, "attend: q, out are not [group, head_dim]");
    let is_inside = position / sequence.block_size < sequence.blocks.len();
    assert!(is_inside, "attend: position {position} is outside the table");
    dispatch(isa, Attend { spec, shape, kv_head, q, position, sequence, k, v, out });
}

/// Query heads of a key-value head that running sums are kept for.
const GROUP_MAX: usize = 64;

struct Attend<'a, S> {
    spec: AttendSpec,
    shape: AttendShape,
    kv_head: usize,
    q: &'a [f32],
    position: usize,
    sequence: SequenceBlocks<'a>,
    k: &'a [S],
    v: &'a [S],
    out: &'a mut [f32],
}

/// The running softmax of one head.
#[derive(Clone, Copy)]
struct Running {
    peak: f32,
    sum: f32,
}

impl<S: Element> Kernel for Attend<'_, S> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let head_dim = self.shape.head_dim;
        let end = self.position + 1;
        let window = self.spec.window;
        let first = if window == 0 { 0 } else { end.saturating_sub(window) };
        let mut running = [Running { peak: f32::NEG_INFINITY, sum: 0.0 }; GROUP_MAX];
        let (mut rows, mut weights) = ([0; SPLIT_POSITIONS], [0.0; SPLIT_POSITIONS]);
        self.out.fill(0.0);
        for split in first / SPLIT_POSITIONS..=self.position / SPLIT_POSITIONS {
            let start = first.max(split * SPLIT_POSITIONS);
            let len = end.min((split + 1) * SPLIT_POSITIONS) - start;
            let (rows, weights) = (&mut rows[..len], &mut weights[..len]);
            self.find_rows(start, rows);
            let heads = self.q.chunks_exact(head_dim).zip(self.out.chunks_exact_mut(head_dim));
            for ((q, out), running) in heads.zip(&mut running) {
                scores::<S, L>(self.spec, q, self.k, rows, weights);
                let split_peak = reduce::peak::<L>(weights);
                let split_sum = exponentials::<L>(weights, split_peak);
                let peak = if running.peak > split_peak { running.peak } else { split_peak };
                let old = exp::<L>(running.peak - peak);
                let new = exp::<L>(split_peak - peak);
                *running = Running { peak, sum: running.sum * old + split_sum * new };
                merge_values::<S, L>([old, new], weights, self.v, rows, out);
            }
        }
        for (out, running) in self.out.chunks_exact_mut(head_dim).zip(running) {
            for out in out {
                *out /= running.sum;
            }
        }
    }
}

impl<S: Element> Attend<'_, S> {
    /// Where the rows of positions `start..` begin in `k` and `v`.
    #[inline(always)]
    fn find_rows(&self, start: usize, rows: &mut [usize]) {
        let AttendShape { kv_heads, head_dim, .. } = self.shape;
        let size = self.sequence.block_size;
        let (mut block, mut inside) = (start / size, start % size);
        for row in rows {
            let slot = self.sequence.blocks[block] as usize * size + inside;
            *row = (slot * kv_heads + self.kv_head) * head_dim;
            inside += 1;
            if inside == size {
                (block, inside) = (block + 1, 0);
            }
        }
    }
}

#[inline(always)]
fn exp<L: Lanes>(x: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    math::exp(L::splat(x)).store(&mut lanes);
    lanes[0]
}

/// Writes the score of each row of `k` against `q`.
#[inline(always)]
fn scores<S: Element, L: Lanes>(
    spec: AttendSpec,
    q: &[f32],
    k: &[S],
    rows: &[usize],
    scores: &mut [f32],
) {
    let (q_lanes, q_tail) = q.as_chunks::<LANES>();
    for (row, score) in rows.iter().zip(scores.iter_mut()) {
        let (k, k_tail) = k[*row..][..q.len()].as_chunks::<LANES>();
        let mut sums = L::splat(0.0);
        for (q, k) in q_lanes.iter().zip(k) {
            sums = L::load(q).fma(S::load(k), sums);
        }
        if !q_tail.is_empty() {
            sums = L::load_part(q_tail, 0.0).fma(load_part::<S, L>(k_tail), sums);
        }
        *score = sums.sum() * spec.scale;
    }
    if spec.softcap != 0.0 {
        let cap = L::splat(spec.softcap);
        let (scores, tail) = scores.as_chunks_mut::<LANES>();
        for x in scores {
            cap.mul(math::tanh(L::load(x).div(cap))).store(x);
        }
        cap.mul(math::tanh(L::load_part(tail, 0.0).div(cap))).store_part(tail);
    }
}

/// Writes `out = out * old + (sum of weights[j] * v[j]) * new`.
#[inline(always)]
fn merge_values<S: Element, L: Lanes>(
    [old, new]: [f32; 2],
    weights: &[f32],
    v: &[S],
    rows: &[usize],
    out: &mut [f32],
) {
    let (old, new) = (L::splat(old), L::splat(new));
    let mut channel = 0;
    let (wide, narrow) = out.as_chunks_mut::<{ WIDE * LANES }>();
    for out in wide {
        let mut sums = [L::splat(0.0); WIDE];
        for (weight, row) in weights.iter().zip(rows) {
            let (v, _) = v[row + channel..][..WIDE * LANES].as_chunks();
            for i in 0..WIDE {
                sums[i] = L::splat(*weight).fma(S::load(&v[i]), sums[i]);
            }
        }
        for (sum, out) in sums.into_iter().zip(out.as_chunks_mut().0) {
            L::load(out).mul(old).add(sum.mul(new)).store(out);
        }
        channel += WIDE * LANES;
    }
    for out in narrow.chunks_mut(LANES) {
        let mut sum = L::splat(0.0);
        for (weight, row) in weights.iter().zip(rows) {
            let v = load_part::<S, L>(&v[row + channel..][..out.len()]);
            sum = L::splat(*weight).fma(v, sum);
        }
        L::load_part(out, 0.0).mul(old).add(sum.mul(new)).store_part(out);
        channel += LANES;
    }
}

/// Vectors of channels whose sums one pass over the values keeps.
const WIDE: usize = 4;

#[cfg(test)]
mod tests {
    use half::f16;
    use kernels_reference as reference;

    use super::*;
    use crate::{
        BlockTable, KvState, TokenRefs, store_kv,
        testing::{assert_near, bits, doubles, floats, isas},
    };

    /// Two sequences with interleaved blocks, and the keys, values and queries of all tokens.
    struct Case {
        shape: AttendShape,
        spec: AttendSpec,
        block_size: usize,
        entries: Vec<u32>,
        positions: Vec<u32>,
        sequence_index: Vec<u32>,
    }

    impl Case {
        fn new(shape: AttendShape, spec: AttendSpec, block_size: usize, lens: [usize; 2]) -> Self {
            let width = lens[0].max(lens[1]).div_ceil(block_size) as u32;
            let entries = (0..width).rev().map(|b| 2 * b).chain((0..width).map(|b| 2 * b + 1));
            let all = || (0..2).flat_map(|s| (0..lens[s] as u32).map(move |p| (s as u32, p)));
            Self {
                shape,
                spec,
                block_size,
                entries: entries.collect(),
                positions: all().map(|(_, p)| p).collect(),
                sequence_index: all().map(|(s, _)| s).collect(),
            }
        }

        fn input(&self, heads: usize, seed: u64) -> Vec<f32> {
            floats(self.positions.len() * heads * self.shape.head_dim, seed)
        }

        /// Elements of the keys' pool.
        fn pool(&self) -> usize {
            self.entries.len() * self.block_size * self.shape.kv_heads * self.shape.head_dim
        }

        fn run<S: Element>(&self, isa: Isa) -> Vec<f32> {
            let AttendShape { heads, kv_heads, head_dim } = self.shape;
            let blocks_per_seq = self.entries.len() / 2;
            let table =
                BlockTable { entries: &self.entries, blocks_per_seq, block_size: self.block_size };
            let tokens =
                TokenRefs { positions: &self.positions, sequence_index: &self.sequence_index };
            let (mut k, mut v) = (vec![S::ZERO; self.pool()], vec![S::ZERO; self.pool()]);
            let mut state = KvState { k: &mut k, v: &mut v };
            let (new_k, new_v) = (self.input(kv_heads, 1), self.input(kv_heads, 2));
            store_kv(isa, self.shape, &new_k, &new_v, tokens, table, &mut state);
            let q = self.input(heads, 3);
            let mut out = vec![f32::NAN; q.len()];
            let group = heads / kv_heads * head_dim;
            for (i, (q, out)) in q.chunks(group).zip(out.chunks_mut(group)).enumerate() {
                let (t, kv_head) = (i / kv_heads, i % kv_heads);
                let row = self.sequence_index[t] as usize * blocks_per_seq;
                let blocks = &self.entries[row..][..blocks_per_seq];
                let sequence = SequenceBlocks { blocks, block_size: self.block_size };
                let position = self.positions[t] as usize;
                attend(isa, self.spec, self.shape, kv_head, q, position, sequence, [&k, &v], out);
            }
            out
        }

        fn expected<S: reference::Stored + Element>(&self) -> Vec<f64> {
            let AttendShape { heads, kv_heads, head_dim } = self.shape;
            let shape = reference::AttendShape { heads, kv_heads, head_dim };
            let table = reference::BlockTable {
                entries: &self.entries,
                blocks_per_seq: self.entries.len() / 2,
                block_size: self.block_size,
            };
            let tokens = reference::TokenRefs {
                positions: &self.positions,
                sequence_index: &self.sequence_index,
            };
            let (mut k, mut v) = (vec![S::ZERO; self.pool()], vec![S::ZERO; self.pool()]);
            let mut state = reference::KvState { k: &mut k, v: &mut v };
            let (new_k, new_v) = (self.input(kv_heads, 1), self.input(kv_heads, 2));
            reference::store_kv(shape, &new_k, &new_v, tokens, table, &mut state);
            let q = doubles(&self.input(heads, 3));
            let mut out = vec![f64::NAN; q.len()];
            let spec = reference::AttendSpec {
                scale: f64::from(self.spec.scale),
                window: self.spec.window,
                softcap: f64::from(self.spec.softcap),
            };
            reference::attend(spec, shape, &q, tokens, table, &state, &mut out);
            out
        }
    }

    const PLAIN: AttendSpec = AttendSpec { scale: 0.25, window: 0, softcap: 0.0 };

    #[test]
    fn is_near_the_reference_with_equal_bits_on_every_isa() {
        let specs = [
            PLAIN,
            AttendSpec { window: 9, ..PLAIN },
            AttendSpec { softcap: 3.0, ..PLAIN },
            AttendSpec { window: 300, softcap: 5.0, ..PLAIN },
        ];
        for (heads, kv_heads, head_dim) in
            [(1, 1, 1), (2, 1, 9), (3, 3, 16), (6, 2, 63), (4, 2, 144)]
        {
            let shape = AttendShape { heads, kv_heads, head_dim };
            for spec in specs {
                let lens = if head_dim == 16 { [600, 257] } else { [63, 8] };
                let case = Case::new(shape, spec, 16, lens);
                let first = case.run::<f32>(Isa::Scalar);
                assert_near(&first, &case.expected::<f32>(), 1e-5, &format!("{shape:?} {spec:?}"));
                let first_half = case.run::<f16>(Isa::Scalar);
                let expected = case.expected::<f16>();
                assert_near(&first_half, &expected, 1e-5, &format!("{shape:?} {spec:?} f16"));
                for isa in isas() {
                    assert_eq!(bits(&case.run::<f32>(isa)), bits(&first), "{isa:?} {shape:?}");
                    assert_eq!(bits(&case.run::<f16>(isa)), bits(&first_half), "{isa:?} {shape:?}");
                }
            }
        }
    }

    #[test]
    fn neither_block_size_nor_batch_mates_change_a_bit() {
        let shape = AttendShape { heads: 4, kv_heads: 2, head_dim: 24 };
        for isa in isas() {
            let expected = Case::new(shape, PLAIN, 16, [300, 40]).run::<f16>(isa);
            for block_size in [1, 7, 64, 512] {
                let found = Case::new(shape, PLAIN, block_size, [300, 40]).run::<f16>(isa);
                assert_eq!(bits(&found), bits(&expected), "{isa:?} {block_size}");
            }
            let alone = Case::new(shape, PLAIN, 16, [300, 0]).run::<f16>(isa);
            assert_eq!(bits(&alone), bits(&expected[..alone.len()]), "{isa:?}");
        }
    }
}
