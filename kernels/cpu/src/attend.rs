//! Causal attention over a paged cache, for tokens of one sequence and one key-value head.
//!
//! Query rows are computed in tiles that share what they read; each row's arithmetic is its own:
//! a score is `fma(q[c], k[c], score)` for channels in order, a value `fma(weight, v, sum)` for
//! positions in order, whatever tile computes it.

mod rows;
mod spec;
mod tile;

use crate::{
    isa::{Isa, Kernel, dispatch},
    kv_codes::KvCodes,
    lanes::{Element, LANES, Lanes},
    math, reduce,
    softmax::exponentials,
};
pub(crate) use rows::{Elements, KvRows, LINE_BYTES};
pub use spec::{AttendShape, AttendSpec};
pub(crate) use tile::{KEYS_ZERO, Keys, scores, values};

/// Positions of one softmax split; splits start at its multiples.
pub const SPLIT_POSITIONS: usize = 256;

/// The blocks of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct SequenceBlocks<'a> {
    /// Its row of the block table, `[blocks_per_seq]`.
    pub blocks: &'a [u32],
    /// Positions of a block.
    pub block_size: usize,
}

/// Lets the query heads of one key-value head attend to the stored positions up to their own.
///
/// Store the call's keys and values first (`store_kv`). The softmax runs in splits of
/// [`SPLIT_POSITIONS`] absolute positions, merged in order by log-sum-exp: the bits depend neither
/// on the block size nor on other tokens or heads. Callers divide the work by tokens and heads.
///
/// | argument    | shape                                          | dtype                |
/// |-------------|------------------------------------------------|----------------------|
/// | `q`         | `[tokens, heads, head_dim]`, see below         | `f32`                |
/// | `out`       | the same with `value_dim`                      | `f32`                |
/// | `sinks`     | `[heads]`, or nothing                          | `f32`                |
/// | `positions` | `[tokens]`, from the start of the sequence     | `u32`                |
/// | `k`, `v`    | `[num_blocks, block_size, kv_heads, head_dim]` | `f32`, `f16`, `bf16` |
///
/// `q` and `out` begin with the first query head of `kv_head` in the first token, and end no
/// sooner than its last one in the last token. Only the heads of `kv_head` are read and written. A sink is
/// one more score of its head, of a place whose value is zero: where the running softmax begins. With a
/// `value_dim`, `v` may be `k`.
///
/// # Panics
///
/// If the lengths do not fit the shapes, or a slot is outside `k` or `v`.
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
    sinks: &[f32],
    positions: &[u32],
    sequence: SequenceBlocks<'_>,
    kv: [&[S]; 2],
    out: &mut [f32],
) {
    check(spec, shape, kv_head, [q, sinks, out], positions, sequence);
    let ([k, v], seen) = (kv.map(Elements), Seen::UpTo(positions));
    dispatch(isa, Attend { spec, shape, kv_head, q, sinks, seen, sequence, k, v, out });
}

/// [`attend`] over keys and values that are stored as codes, by `store_kv_codes`.
///
/// Its numbers are those of [`attend`] over what the codes stand for, bit for bit.
///
/// # Panics
///
/// As [`attend`] does, and if the layouts are not of heads of `shape`.
#[expect(clippy::too_many_arguments, reason = "each is a tensor or an attribute of the op")]
pub fn attend_codes(
    isa: Isa,
    spec: AttendSpec,
    shape: AttendShape,
    kv_head: usize,
    q: &[f32],
    sinks: &[f32],
    positions: &[u32],
    sequence: SequenceBlocks<'_>,
    kv: [KvCodes<'_>; 2],
    out: &mut [f32],
) {
    check(spec, shape, kv_head, [q, sinks, out], positions, sequence);
    for codes in &kv {
        let layout = codes.layout;
        let of = (layout.heads, layout.head_dim, layout.block_size);
        let expected = (shape.kv_heads, shape.head_dim, sequence.block_size);
        assert_eq!(of, expected, "attend: codes of other heads or blocks");
    }
    let ([k, v], seen) = (kv.map(|codes| codes.head(kv_head)), Seen::UpTo(positions));
    dispatch(isa, Attend { spec, shape, kv_head, q, sinks, seen, sequence, k, v, out });
}

fn check(
    spec: AttendSpec,
    shape: AttendShape,
    kv_head: usize,
    [q, sinks, out]: [&[f32]; 3],
    positions: &[u32],
    sequence: SequenceBlocks<'_>,
) {
    let AttendShape { heads, kv_heads, head_dim } = shape;
    assert!(kv_head < kv_heads, "attend: key-value head {kv_head} of {kv_heads}");
    assert!(heads.is_multiple_of(kv_heads), "attend: heads are not a multiple of kv_heads");
    assert!(head_dim > 0, "attend: head_dim is 0");
    let Some(before) = positions.len().checked_sub(1) else { return };
    let (rows, value_dim) = (before * heads + heads / kv_heads, spec.values_of(head_dim));
    assert!(value_dim <= head_dim, "attend: values are wider than heads");
    assert!(q.len() >= rows * head_dim, "attend: q is not [tokens, heads, head_dim]");
    assert!(out.len() >= rows * value_dim, "attend: out is not [tokens, heads, value_dim]");
    assert!(sinks.is_empty() || sinks.len() == heads, "attend: sinks are not [heads]");
    let places = sequence.blocks.len() * sequence.block_size;
    let is_inside = positions.iter().all(|&position| (position as usize) < places);
    assert!(is_inside, "attend: a position is outside the table");
}

/// Attention of some tokens to the positions of one sequence, for one key-value head. Arguments
/// have been checked.
pub(crate) struct Attend<'a, R> {
    pub(crate) spec: AttendSpec,
    pub(crate) shape: AttendShape,
    pub(crate) kv_head: usize,
    pub(crate) q: &'a [f32],
    pub(crate) sinks: &'a [f32],
    pub(crate) seen: Seen<'a>,
    pub(crate) sequence: SequenceBlocks<'a>,
    pub(crate) k: R,
    pub(crate) v: R,
    pub(crate) out: &'a mut [f32],
}

/// Which positions the tokens see.
#[derive(Clone, Copy)]
pub(crate) enum Seen<'a> {
    /// Those up to their own.
    UpTo(&'a [u32]),
    /// Each of `tokens` sees all positions below `end`.
    All { tokens: usize, end: usize },
    /// `tokens` stand one after the other from `first` on; each sees those up to its own.
    From { first: usize, tokens: usize },
}

impl Seen<'_> {
    #[inline(always)]
    fn tokens(self) -> usize {
        match self {
            Self::UpTo(positions) => positions.len(),
            Self::All { tokens, .. } | Self::From { tokens, .. } => tokens,
        }
    }

    #[inline(always)]
    fn end(self, token: usize) -> usize {
        match self {
            Self::UpTo(positions) => positions[token] as usize + 1,
            Self::All { end, .. } => end,
            Self::From { first, .. } => first + token + 1,
        }
    }
}

/// One query head of one token, with its running softmax.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// Where its channels begin in `q`.
    pub(crate) at: usize,
    /// Where its channels begin in `out`.
    pub(crate) to: usize,
    /// The positions that it sees.
    pub(crate) first: usize,
    pub(crate) end: usize,
    pub(crate) peak: f32,
    pub(crate) sum: f32,
    /// Its positions in the split at hand, from the split's first one, with the factors that
    /// merge them.
    pub(crate) seen: (usize, usize),
    pub(crate) old: f32,
    pub(crate) new: f32,
}

impl Row {
    pub(crate) const NONE: Self = Self {
        at: 0,
        to: 0,
        first: 0,
        end: 0,
        peak: f32::NEG_INFINITY,
        sum: 0.0,
        seen: (0, 0),
        old: 0.0,
        new: 0.0,
    };
}

/// Rows that share what they read.
pub(crate) const TILE_ROWS: usize = 16;

/// Scores of a tile's rows in one split, then their exponentials.
pub(crate) type Weights = [[f32; SPLIT_POSITIONS]; TILE_ROWS];

impl<R: KvRows> Kernel for Attend<'_, R> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self) {
        let AttendShape { heads, kv_heads, head_dim } = self.shape;
        let (group, value_dim) = (heads / kv_heads, self.spec.values_of(head_dim));
        let num_rows = self.seen.tokens() * group;
        let mut weights = [[0.0; SPLIT_POSITIONS]; TILE_ROWS];
        let mut keys = KEYS_ZERO;
        let mut splits = [R::NO_SPLIT; 2];
        let mut done = 0;
        while done < num_rows {
            let mut rows = [Row::NONE; TILE_ROWS];
            let rows = &mut rows[..TILE_ROWS.min(num_rows - done)];
            for (i, row) in (done..).zip(&mut *rows) {
                let (token, head) = (i / group, i % group);
                let index = token * heads + head;
                (row.at, row.to) = (index * head_dim, index * value_dim);
                row.end = self.seen.end(token);
                row.first = self.spec.first(row.end);
                if let Some(sink) = self.sinks.get(self.kv_head * group + head) {
                    (row.peak, row.sum) = (*sink, 1.0);
                }
            }
            self.tile::<L>(rows, &mut keys, &mut splits, &mut weights);
            done += rows.len();
        }
    }
}

impl<R: KvRows> Attend<'_, R> {
    #[inline(always)]
    fn tile<L: Lanes>(
        &mut self,
        rows: &mut [Row],
        keys: &mut Keys,
        splits: &mut [R::Split; 2],
        weights: &mut Weights,
    ) {
        let head_dim = self.shape.head_dim;
        let value_dim = self.spec.values_of(head_dim);
        let (mut first, mut end) = (usize::MAX, 0);
        for row in &*rows {
            (first, end) = (first.min(row.first), end.max(row.end));
            self.out[row.to..][..value_dim].fill(0.0);
        }
        let mut slots = [0; SPLIT_POSITIONS];
        for split in first / SPLIT_POSITIONS..end.div_ceil(SPLIT_POSITIONS) {
            let start = first.max(split * SPLIT_POSITIONS);
            let stop = end.min((split + 1) * SPLIT_POSITIONS);
            let slots = &mut slots[..stop - start];
            self.find_slots(start, slots);
            self.k.open::<L>(self.sequence, start, slots, &mut splits[0]);
            self.v.open::<L>(self.sequence, start, slots, &mut splits[1]);
            let (k, v) = ((self.k, &splits[0]), (self.v, &splits[1]));
            scores::<R, L>(self.spec.scale, head_dim, self.q, k, slots, rows, keys, weights);
            for (row, weights) in rows.iter_mut().zip(&mut *weights) {
                let seen = (row.first.max(start), row.end.min(stop));
                row.seen = (seen.0 - start, seen.1.max(seen.0) - start);
                if row.seen.0 < row.seen.1 {
                    soften::<L>(self.spec.softcap, row, &mut weights[row.seen.0..row.seen.1]);
                }
            }
            values::<R, L>(value_dim, v, slots, rows, weights, self.out);
        }
        for row in rows {
            for out in &mut self.out[row.to..][..value_dim] {
                *out /= row.sum;
            }
        }
    }

    /// Where the rows of positions `start..` begin in `k` and `v`.
    #[inline(always)]
    fn find_slots(&self, start: usize, slots: &mut [usize]) {
        let first = self.kv_head * self.shape.head_dim;
        let [block_stride, row_stride] = self.k.strides(self.shape, self.sequence.block_size);
        let size = self.sequence.block_size;
        let (mut block, mut inside) = (start / size, start % size);
        for slot in slots {
            let at = self.sequence.blocks[block] as usize * block_stride;
            *slot = at + inside * row_stride + first;
            inside += 1;
            if inside == size {
                (block, inside) = (block + 1, 0);
            }
        }
    }
}

/// Turns a row's scores into weights, and its running softmax to the new peak.
#[inline(always)]
fn soften<L: Lanes>(softcap: f32, row: &mut Row, scores: &mut [f32]) {
    if softcap != 0.0 {
        let cap = L::splat(softcap);
        let (scores, tail) = scores.as_chunks_mut::<LANES>();
        for x in scores {
            cap.mul(math::tanh(L::load(x).div(cap))).store(x);
        }
        cap.mul(math::tanh(L::load_part(tail, 0.0).div(cap))).store_part(tail);
    }
    let split_peak = reduce::peak::<L>(scores);
    let split_sum = exponentials::<L>(scores, split_peak);
    let peak = if row.peak > split_peak { row.peak } else { split_peak };
    row.old = exp::<L>(row.peak - peak);
    row.new = exp::<L>(split_peak - peak);
    row.sum = row.sum * row.old + split_sum * row.new;
    row.peak = peak;
}

#[inline(always)]
fn exp<L: Lanes>(x: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    math::exp(L::splat(x)).store(&mut lanes);
    lanes[0]
}

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
        tokens_per_call: usize,
        has_sinks: bool,
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
                tokens_per_call: 7,
                has_sinks: false,
            }
        }

        fn sinks(&self) -> Vec<f32> {
            if self.has_sinks { floats(self.shape.heads, 4) } else { Vec::new() }
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
            let (q, sinks) = (self.input(heads, 3), self.sinks());
            let width = self.spec.values_of(head_dim);
            let mut out = vec![f32::NAN; q.len() / head_dim * width];
            let mut first = 0;
            while first < self.positions.len() {
                let sequence = self.sequence_index[first];
                let is_mate = |other: &&u32| **other == sequence;
                let mates = self.sequence_index[first..].iter().take_while(is_mate).count();
                let end = first + mates.min(self.tokens_per_call);
                let row = sequence as usize * blocks_per_seq;
                let blocks = &self.entries[row..][..blocks_per_seq];
                let sequence = SequenceBlocks { blocks, block_size: self.block_size };
                let positions = &self.positions[first..end];
                for kv_head in 0..kv_heads {
                    let at = first * heads + kv_head * (heads / kv_heads);
                    let (q, out) = (&q[at * head_dim..], &mut out[at * width..]);
                    let (shape, spec, kv) = (self.shape, self.spec, [&*k, &*v]);
                    attend(isa, spec, shape, kv_head, q, &sinks, positions, sequence, kv, out);
                }
                first = end;
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
            let mut out = vec![f64::NAN; q.len() / head_dim * self.spec.values_of(head_dim)];
            let spec = reference::AttendSpec {
                scale: f64::from(self.spec.scale),
                window: self.spec.window,
                softcap: f64::from(self.spec.softcap),
                chunk: self.spec.chunk,
                value_dim: self.spec.value_dim,
            };
            let sinks = doubles(&self.sinks());
            reference::attend(spec, shape, &q, &sinks, tokens, table, &state, &mut out);
            out
        }
    }

    const PLAIN: AttendSpec = AttendSpec::plain(0.25);

    #[test]
    fn is_near_the_reference_with_equal_bits_on_every_isa() {
        let specs = [
            PLAIN,
            AttendSpec { window: 9, ..PLAIN },
            AttendSpec { softcap: 3.0, ..PLAIN },
            AttendSpec { window: 300, softcap: 5.0, ..PLAIN },
            AttendSpec { chunk: 37, ..PLAIN },
            AttendSpec { value_dim: 1, ..PLAIN },
            AttendSpec { value_dim: 56, chunk: 300, ..PLAIN },
        ];
        for (heads, kv_heads, head_dim) in
            [(1, 1, 1), (2, 1, 9), (3, 3, 16), (6, 2, 63), (4, 2, 144)]
        {
            let shape = AttendShape { heads, kv_heads, head_dim };
            for (i, spec) in specs.into_iter().enumerate() {
                let lens = if head_dim == 16 { [600, 257] } else { [63, 8] };
                let spec = AttendSpec { value_dim: spec.value_dim.min(head_dim), ..spec };
                let mut case = Case::new(shape, spec, 16, lens);
                case.has_sinks = i % 2 == 1;
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
    fn neither_block_size_nor_tiles_nor_batch_mates_change_a_bit() {
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
        for (window, heads, head_dim) in [(0, 4, 24), (5, 6, 80), (260, 2, 64), (1, 34, 7)] {
            let shape = AttendShape { heads, kv_heads: 2, head_dim };
            let spec = AttendSpec { window, ..PLAIN };
            let mut case = Case::new(shape, spec, 16, [300, 40]);
            case.tokens_per_call = 1;
            let expected = case.run::<f16>(Isa::Scalar);
            for tokens_per_call in [2, 3, 5, 64, 300] {
                case.tokens_per_call = tokens_per_call;
                for isa in isas() {
                    let found = case.run::<f16>(isa);
                    assert_eq!(bits(&found), bits(&expected), "{isa:?} {window} {tokens_per_call}");
                }
            }
        }
    }
}
