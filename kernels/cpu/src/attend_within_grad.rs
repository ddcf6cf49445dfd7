//! Gradient of attention within one sequence: first by queries, then by keys and values.
//!
//! Weights are computed again from what the first half leaves of each softmax, so that each half writes
//! its own tokens' rows only and can be divided by tokens and heads. Both are products of the tiles of
//! `attend`: rows of one side with all of the other that they see.

use crate::{
    attend::{
        AttendShape, Elements, KEYS_ZERO, Row, SPLIT_POSITIONS, TILE_ROWS, Weights, scores, values,
    },
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
    math, reduce,
};

/// What the gradients of a whole attention have in common.
#[derive(Clone, Copy, Debug)]
pub struct GradSpec {
    /// Of the scores.
    pub scale: f32,
    /// Whether a token attends to itself and those before it only.
    pub is_causal: bool,
    /// Heads and their size.
    pub shape: AttendShape,
}

/// Some tokens of a sequence, one after the other, and one key-value head.
#[derive(Clone, Copy, Debug)]
pub struct GradOf {
    /// The head of keys and values.
    pub kv_head: usize,
    /// Where in the sequence the first token stands.
    pub first: usize,
    /// How many tokens.
    pub tokens: usize,
}

/// Writes the gradient by the queries of some tokens that use one key-value head, and what is left of their
/// softmax: the greatest score, the sum of exponentials below it, and the mean gradient of the weights.
///
/// | argument                      | shape                                         |
/// |-------------------------------|-----------------------------------------------|
/// | `q`, `out_grad`, `q_grad`     | `[tokens, heads, head_dim]`, see below        |
/// | `k`, `v`                      | `[sequence, kv_heads, head_dim]`              |
/// | `left`                        | `[tokens, heads, 3]`, likewise                |
///
/// What is of some tokens begins with the first query head of the key-value head in the first token, and
/// ends no sooner than its last one in the last token. Only the heads of that are read and written.
///
/// # Panics
///
/// If the lengths do not fit the shapes.
///
/// # Source
///
/// Dao et al., "FlashAttention", arXiv:2205.14135, appendix B.2.
pub fn attend_within_query_grad(
    isa: Isa,
    spec: GradSpec,
    of: GradOf,
    [q, out_grad]: [&[f32]; 2],
    [k, v]: [&[f32]; 2],
    q_grad: &mut [f32],
    left: &mut [f32],
) {
    let AttendShape { heads, kv_heads, head_dim } = spec.shape;
    let Some(before) = of.tokens.checked_sub(1) else { return };
    let rows = before * heads + heads / kv_heads;
    let is_wide = [q.len(), out_grad.len(), q_grad.len()].iter().all(|&n| n >= rows * head_dim);
    assert!(
        is_wide && left.len() >= LEFT * rows,
        "attend_within_query_grad: q is not [tokens, h, d]"
    );
    let sequence = k.len() / (kv_heads * head_dim);
    let is_whole = k.len() == v.len() && k.len() == sequence * kv_heads * head_dim;
    assert!(
        is_whole && of.first + of.tokens <= sequence,
        "attend_within_query_grad: k, v are not [sequence, g, d]"
    );
    dispatch(isa, Queries { spec, of, sequence, q, out_grad, k, v, q_grad, left });
}

/// Writes the gradient by some tokens' keys and values of one key-value head.
///
/// | argument                     | shape                                     |
/// |------------------------------|-------------------------------------------|
/// | `q`, `out_grad`              | `[sequence, heads, head_dim]`             |
/// | `left`                       | `[sequence, heads, 3]`                    |
/// | `k`, `v`, `k_grad`, `v_grad` | `[tokens, kv_heads, head_dim]`, see below |
///
/// What is of some tokens begins with the key-value head of the first token, and ends no sooner than that
/// of the last; `left` is what [`attend_within_query_grad`] wrote.
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn attend_within_key_grad(
    isa: Isa,
    spec: GradSpec,
    of: GradOf,
    [q, out_grad, left]: [&[f32]; 3],
    [k, v]: [&[f32]; 2],
    k_grad: &mut [f32],
    v_grad: &mut [f32],
) {
    let AttendShape { heads, kv_heads, head_dim } = spec.shape;
    let Some(before) = of.tokens.checked_sub(1) else { return };
    let len = (before * kv_heads + 1) * head_dim;
    let is_wide = [k.len(), v.len(), k_grad.len(), v_grad.len()].iter().all(|&n| n >= len);
    assert!(is_wide, "attend_within_key_grad: k, v are not [tokens, g, d]");
    let sequence = left.len() / (LEFT * heads);
    let is_whole = q.len() == out_grad.len() && q.len() == sequence * heads * head_dim;
    assert!(
        is_whole && of.first + of.tokens <= sequence,
        "attend_within_key_grad: q is not [sequence, h, d]"
    );
    dispatch(isa, Keys { spec, of, sequence, q, out_grad, left, k, v, k_grad, v_grad });
}

/// Numbers that are left of one softmax.
const LEFT: usize = 3;

struct Queries<'a> {
    spec: GradSpec,
    of: GradOf,
    sequence: usize,
    q: &'a [f32],
    out_grad: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    q_grad: &'a mut [f32],
    left: &'a mut [f32],
}

impl Kernel for Queries<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self) {
        let AttendShape { heads, kv_heads, head_dim } = self.spec.shape;
        let group = heads / kv_heads;
        let num_rows = self.of.tokens * group;
        let mut room = Room::new();
        for done in (0..num_rows).step_by(TILE_ROWS) {
            let mut rows = [Row::NONE; TILE_ROWS];
            let rows = &mut rows[..TILE_ROWS.min(num_rows - done)];
            for (i, row) in (done..).zip(&mut *rows) {
                let (token, head) = (i / group, i % group);
                row.at = (token * heads + head) * head_dim;
                row.to = row.at;
                row.end =
                    if self.spec.is_causal { self.of.first + token + 1 } else { self.sequence };
                (row.old, row.new) = (1.0, 1.0);
            }
            self.tile::<L>(rows, &mut room);
        }
    }
}

impl Queries<'_> {
    #[inline(always)]
    fn tile<L: Lanes>(&mut self, rows: &mut [Row], room: &mut Room) {
        let head_dim = self.spec.shape.head_dim;
        let end = rows.iter().map(|row| row.end).max().unwrap_or(0);
        let splits = end.div_ceil(SPLIT_POSITIONS);
        let mut weighed = [0.0; TILE_ROWS];
        for split in 0..splits {
            self.products::<L>(split, end, rows, room);
            for (i, row) in rows.iter_mut().enumerate().filter(|(_, row)| row.seen.1 > 0) {
                let (scores, grads) = (&mut room.scores[i][..row.seen.1], &room.grads[i]);
                let split_peak = reduce::peak::<L>(scores);
                let split = exponentials::<L>(scores, grads, split_peak);
                let peak = if row.peak > split_peak { row.peak } else { split_peak };
                let (old, new) = (exp::<L>(row.peak - peak), exp::<L>(split_peak - peak));
                row.sum = row.sum * old + split[0] * new;
                weighed[i] = weighed[i] * old + split[1] * new;
                row.peak = peak;
            }
        }
        for (row, weighed) in rows.iter().zip(&mut weighed) {
            *weighed /= row.sum;
            let left = &mut self.left[row.at / head_dim * LEFT..][..LEFT];
            left.copy_from_slice(&[row.peak, row.sum, *weighed]);
            self.q_grad[row.at..][..head_dim].fill(0.0);
        }
        for split in 0..splits {
            if splits > 1 {
                self.products::<L>(split, end, rows, room);
            }
            for (i, row) in rows.iter_mut().enumerate().filter(|(_, row)| row.seen.1 > 0) {
                let scores = &mut room.scores[i][..row.seen.1];
                if splits > 1 {
                    exponentials::<L>(scores, &room.grads[i], row.peak);
                }
                slopes::<L>(scores, &room.grads[i], row.sum, weighed[i], self.spec.scale);
            }
            let slots =
                &room.slots[..end.min((split + 1) * SPLIT_POSITIONS) - split * SPLIT_POSITIONS];
            values::<_, L>(head_dim, plain(self.k), slots, rows, &room.scores, self.q_grad);
        }
    }

    /// Scores of the positions of a split, and the gradients of their weights.
    #[inline(always)]
    fn products<L: Lanes>(&self, split: usize, end: usize, rows: &mut [Row], room: &mut Room) {
        let AttendShape { kv_heads, head_dim, .. } = self.spec.shape;
        let start = split * SPLIT_POSITIONS;
        let stop = end.min(start + SPLIT_POSITIONS);
        let slots = &mut room.slots[..stop - start];
        for (position, slot) in (start..).zip(&mut *slots) {
            *slot = (position * kv_heads + self.of.kv_head) * head_dim;
        }
        for row in &mut *rows {
            row.seen = (0, row.end.min(stop).max(start) - start);
        }
        let scale = self.spec.scale;
        let Room { keys, scores: weights, grads, .. } = room;
        scores::<_, L>(scale, head_dim, self.q, plain(self.k), slots, rows, keys, weights);
        scores::<_, L>(1.0, head_dim, self.out_grad, plain(self.v), slots, rows, keys, grads);
    }
}

struct Keys<'a> {
    spec: GradSpec,
    of: GradOf,
    sequence: usize,
    q: &'a [f32],
    out_grad: &'a [f32],
    left: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    k_grad: &'a mut [f32],
    v_grad: &'a mut [f32],
}

impl Kernel for Keys<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self) {
        let AttendShape { heads, kv_heads, head_dim } = self.spec.shape;
        let mut room = Room::new();
        for done in (0..self.of.tokens).step_by(TILE_ROWS) {
            let mut rows = [Row::NONE; TILE_ROWS];
            let rows = &mut rows[..TILE_ROWS.min(self.of.tokens - done)];
            for (token, row) in (done..).zip(&mut *rows) {
                row.at = token * kv_heads * head_dim;
                row.to = row.at;
                // Queries that see the token: those of so many tokens, each with its group of heads.
                let first = if self.spec.is_causal { self.of.first + token } else { 0 };
                row.first = first * (heads / kv_heads);
                (row.old, row.new) = (1.0, 1.0);
                self.k_grad[row.at..][..head_dim].fill(0.0);
                self.v_grad[row.at..][..head_dim].fill(0.0);
            }
            self.tile::<L>(rows, &mut room);
        }
    }
}

impl Keys<'_> {
    #[inline(always)]
    fn tile<L: Lanes>(&mut self, rows: &mut [Row], room: &mut Room) {
        let GradSpec { scale, shape: AttendShape { heads, kv_heads, head_dim }, .. } = self.spec;
        let group = heads / kv_heads;
        let (first, end) = (rows[0].first, self.sequence * group);
        for split in first / SPLIT_POSITIONS..end.div_ceil(SPLIT_POSITIONS) {
            let start = first.max(split * SPLIT_POSITIONS);
            let stop = end.min((split + 1) * SPLIT_POSITIONS);
            let Room { keys, scores: weights, grads, slots, left } = &mut *room;
            let slots = &mut slots[..stop - start];
            for (i, slot) in slots.iter_mut().enumerate() {
                let query = start + i;
                let at = query / group * heads + self.of.kv_head * group + query % group;
                *slot = at * head_dim;
                for (left, x) in left.iter_mut().zip(&self.left[at * LEFT..][..LEFT]) {
                    left[i] = *x;
                }
            }
            for row in &mut *rows {
                row.seen = (row.first.clamp(start, stop) - start, stop - start);
            }
            scores::<_, L>(scale, head_dim, self.k, plain(self.q), slots, rows, keys, weights);
            scores::<_, L>(1.0, head_dim, self.v, plain(self.out_grad), slots, rows, keys, grads);
            for (i, row) in rows.iter().enumerate() {
                let seen = row.seen.0..row.seen.1;
                let left = [0, 1, 2].map(|which: usize| &left[which][seen.clone()]);
                shares::<L>(
                    &mut weights[i][seen.clone()],
                    &mut grads[i][seen.clone()],
                    left,
                    scale,
                );
            }
            values::<_, L>(head_dim, plain(self.q), slots, rows, grads, self.k_grad);
            values::<_, L>(head_dim, plain(self.out_grad), slots, rows, weights, self.v_grad);
        }
    }
}

/// Rows of which nothing else has to be known.
#[inline(always)]
fn plain(x: &[f32]) -> (Elements<'_, f32>, &'static ()) {
    (Elements(x), &())
}

/// Working memory, for the stack.
struct Room {
    keys: crate::attend::Keys,
    scores: Weights,
    grads: Weights,
    slots: [usize; SPLIT_POSITIONS],
    /// What is left of the softmax of each query.
    left: [[f32; SPLIT_POSITIONS]; LEFT],
}

impl Room {
    #[inline(always)]
    fn new() -> Self {
        Self {
            keys: KEYS_ZERO,
            scores: [[0.0; SPLIT_POSITIONS]; TILE_ROWS],
            grads: [[0.0; SPLIT_POSITIONS]; TILE_ROWS],
            slots: [0; SPLIT_POSITIONS],
            left: [[0.0; SPLIT_POSITIONS]; LEFT],
        }
    }
}

/// Turns scores into exponentials below `peak`; returns their sum, and that of their products with `grads`.
#[inline(always)]
fn exponentials<L: Lanes>(scores: &mut [f32], grads: &[f32], peak: f32) -> [f32; 2] {
    let (mut sum, mut weighed) = (L::splat(0.0), L::splat(0.0));
    let grads = &grads[..scores.len()];
    for (scores, grads) in scores.chunks_mut(LANES).zip(grads.chunks(LANES)) {
        let weights = math::exp(load::<L>(scores, f32::MIN).sub(L::splat(peak)));
        (sum, weighed) = (sum.add(weights), weights.fma(load(grads, 0.0), weighed));
        store(weights, scores);
    }
    [sum.sum(), weighed.sum()]
}

/// Turns exponentials into gradients of scores, times `scale`.
#[inline(always)]
fn slopes<L: Lanes>(scores: &mut [f32], grads: &[f32], sum: f32, mean: f32, scale: f32) {
    let grads = &grads[..scores.len()];
    let factor = L::splat(scale / sum);
    for (scores, grads) in scores.chunks_mut(LANES).zip(grads.chunks(LANES)) {
        let weights = load::<L>(scores, 0.0).mul(factor);
        store(weights.mul(load::<L>(grads, 0.0).sub(L::splat(mean))), scores);
    }
}

/// Turns scores into weights and gradients of weights into gradients of scores, times `scale`.
#[inline(always)]
fn shares<L: Lanes>(
    scores: &mut [f32],
    grads: &mut [f32],
    [peaks, sums, means]: [&[f32]; LEFT],
    scale: f32,
) {
    let rows = scores.chunks_mut(LANES).zip(grads.chunks_mut(LANES));
    let left = peaks.chunks(LANES).zip(sums.chunks(LANES)).zip(means.chunks(LANES));
    for ((scores, grads), ((peaks, sums), means)) in rows.zip(left) {
        let weights = math::exp(load::<L>(scores, 0.0).sub(load(peaks, 0.0))).div(load(sums, 1.0));
        let slopes = weights.mul(load::<L>(grads, 0.0).sub(load(means, 0.0)));
        store(weights, scores);
        store(slopes.mul(L::splat(scale)), grads);
    }
}

#[inline(always)]
fn load<L: Lanes>(x: &[f32], fill: f32) -> L {
    match x.first_chunk() {
        Some(x) => L::load(x),
        None => L::load_part(x, fill),
    }
}

#[inline(always)]
fn store<L: Lanes>(x: L, out: &mut [f32]) {
    match out.first_chunk_mut() {
        Some(out) => x.store(out),
        None => x.store_part(out),
    }
}

#[inline(always)]
fn exp<L: Lanes>(x: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    math::exp(L::splat(x)).store(&mut lanes);
    lanes[0]
}

#[cfg(test)]
mod tests {
    use kernels_reference as reference;

    use super::*;
    use crate::testing::{assert_near, bits, doubles, floats, isas};

    /// The gradients by queries, keys and values of one sequence, `at_once` tokens in a call.
    fn run(isa: Isa, spec: GradSpec, tokens: usize, at_once: usize) -> [Vec<f32>; 3] {
        let AttendShape { heads, kv_heads, head_dim } = spec.shape;
        let group = heads / kv_heads;
        let [q, out_grad] = [3, 4].map(|seed| floats(tokens * heads * head_dim, seed));
        let [k, v] = [1, 2].map(|seed| floats(tokens * kv_heads * head_dim, seed));
        let (mut q_grad, mut left) =
            (vec![f32::NAN; q.len()], vec![f32::NAN; tokens * heads * LEFT]);
        let (mut k_grad, mut v_grad) = (vec![f32::NAN; k.len()], vec![f32::NAN; k.len()]);
        let calls = (0..tokens).step_by(at_once).flat_map(|first| {
            let tokens = at_once.min(tokens - first);
            (0..kv_heads).map(move |kv_head| GradOf { kv_head, first, tokens })
        });
        for of in calls.clone() {
            let row = of.first * heads + of.kv_head * group;
            let own = [&q, &out_grad].map(|x| &x[row * head_dim..]);
            let (q_grad, left) = (&mut q_grad[row * head_dim..], &mut left[row * LEFT..]);
            attend_within_query_grad(isa, spec, of, own, [&k, &v], q_grad, left);
        }
        for of in calls {
            let at = (of.first * kv_heads + of.kv_head) * head_dim;
            let (own, all) = ([&k, &v].map(|x| &x[at..]), [&q[..], &out_grad, &left]);
            let (k_grad, v_grad) = (&mut k_grad[at..], &mut v_grad[at..]);
            attend_within_key_grad(isa, spec, of, all, own, k_grad, v_grad);
        }
        [q_grad, k_grad, v_grad]
    }

    fn expected(spec: GradSpec, tokens: usize) -> [Vec<f64>; 3] {
        let AttendShape { heads, kv_heads, head_dim } = spec.shape;
        let shape = reference::AttendShape { heads, kv_heads, head_dim };
        let (wide, narrow) = (tokens * heads * head_dim, tokens * kv_heads * head_dim);
        let [q, out_grad] = [3, 4].map(|seed| doubles(&floats(wide, seed)));
        let [k, v] = [1, 2].map(|seed| doubles(&floats(narrow, seed)));
        let mut grads = [wide, narrow, narrow].map(|len| vec![f64::NAN; len]);
        let [q_grad, k_grad, v_grad] = &mut grads;
        let reach =
            if spec.is_causal { reference::Reach::Causal } else { reference::Reach::Sequence };
        reference::attend_within_grad(
            f64::from(spec.scale),
            reach,
            shape,
            [&q, &k, &v, &out_grad],
            &vec![0; tokens],
            &mut vec![0.0; 2 * tokens],
            [q_grad, k_grad, v_grad],
        );
        grads
    }

    #[test]
    fn is_near_the_reference_with_equal_bits_on_every_isa_and_for_every_division() {
        for (heads, kv_heads, head_dim) in [(1, 1, 1), (2, 1, 9), (4, 4, 32), (6, 2, 17)] {
            let shape = AttendShape { heads, kv_heads, head_dim };
            for (is_causal, tokens) in
                [1, 7, 8, 9, 63, 300].map(|n| [(false, n), (true, n)]).concat()
            {
                let spec = GradSpec { scale: 0.25, is_causal, shape };
                let first = run(Isa::Scalar, spec, tokens, tokens);
                for (i, expected) in expected(spec, tokens).into_iter().enumerate() {
                    assert_near(&first[i], &expected, 1e-4, &format!("{spec:?} {tokens} {i}"));
                }
                for isa in isas() {
                    for at_once in [1, 20, 300] {
                        let found = run(isa, spec, tokens, at_once);
                        for (found, first) in found.iter().zip(&first) {
                            assert_eq!(bits(found), bits(first), "{isa:?} {spec:?} {tokens}");
                        }
                    }
                }
            }
        }
    }
}
