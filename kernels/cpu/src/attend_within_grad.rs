//! Gradient of attention within one sequence: first by queries, then by keys and values.
//!
//! Weights are computed again from what the first half leaves of each softmax, so that each half writes
//! one token's rows only and can be divided by tokens and heads.

use crate::{
    attend::AttendShape,
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
    math,
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

/// Writes the gradient by the queries of one token that use one key-value head, and what is left of their
/// softmax: the greatest score, the sum of exponentials below it, and the mean gradient of the weights.
///
/// | argument                      | shape                              |
/// |-------------------------------|------------------------------------|
/// | `q`, `out_grad`, `q_grad`     | `[heads / kv_heads, head_dim]`     |
/// | `k`, `v`                      | `[sequence, kv_heads, head_dim]`   |
/// | `left`                        | `[heads / kv_heads, 3]`            |
///
/// `token` is its place in the sequence.
///
/// # Panics
///
/// If the lengths do not fit the shapes.
///
/// # Source
///
/// Dao et al., "FlashAttention", arXiv:2205.14135, appendix B.2, without its tiles.
#[expect(clippy::too_many_arguments, reason = "each is a tensor or an attribute of the op")]
pub fn attend_within_query_grad(
    isa: Isa,
    spec: GradSpec,
    kv_head: usize,
    token: usize,
    [q, out_grad]: [&[f32]; 2],
    [k, v]: [&[f32]; 2],
    q_grad: &mut [f32],
    left: &mut [f32],
) {
    let AttendShape { heads, kv_heads, head_dim } = spec.shape;
    let group = heads / kv_heads;
    let is_wide = [q.len(), out_grad.len(), q_grad.len()] == [group * head_dim; 3];
    assert!(
        is_wide && left.len() == LEFT * group,
        "attend_within_query_grad: not one token's group"
    );
    let sequence = k.len() / (kv_heads * head_dim);
    let is_whole = k.len() == v.len() && k.len() == sequence * kv_heads * head_dim;
    assert!(
        is_whole && token < sequence,
        "attend_within_query_grad: k, v are not [sequence, g, d]"
    );
    let end = if spec.is_causal { token + 1 } else { sequence };
    dispatch(isa, Queries { spec, kv_head, end, q, out_grad, k, v, q_grad, left });
}

/// Writes the gradient by one token's key and value of one key-value head.
///
/// | argument                     | shape                         |
/// |------------------------------|-------------------------------|
/// | `q`, `out_grad`              | `[sequence, heads, head_dim]` |
/// | `left`                       | `[sequence, heads, 3]`        |
/// | `k`, `v`, `k_grad`, `v_grad` | `[head_dim]`                  |
///
/// `token` is its place in the sequence; `left` is what [`attend_within_query_grad`] wrote.
///
/// # Panics
///
/// If the lengths do not fit the shapes.
#[expect(clippy::too_many_arguments, reason = "each is a tensor or an attribute of the op")]
pub fn attend_within_key_grad(
    isa: Isa,
    spec: GradSpec,
    kv_head: usize,
    token: usize,
    [q, out_grad, left]: [&[f32]; 3],
    [k, v]: [&[f32]; 2],
    k_grad: &mut [f32],
    v_grad: &mut [f32],
) {
    let AttendShape { heads, head_dim, .. } = spec.shape;
    let lens = [k.len(), v.len(), k_grad.len(), v_grad.len()];
    assert_eq!(lens, [head_dim; 4], "attend_within_key_grad: not one head of one token");
    let sequence = left.len() / (LEFT * heads);
    let is_whole = q.len() == out_grad.len() && q.len() == sequence * heads * head_dim;
    assert!(is_whole && token < sequence, "attend_within_key_grad: q is not [sequence, h, d]");
    dispatch(isa, Keys { spec, kv_head, token, q, out_grad, left, k, v, k_grad, v_grad });
}

/// Numbers that are left of one softmax.
const LEFT: usize = 3;

struct Queries<'a> {
    spec: GradSpec,
    kv_head: usize,
    end: usize,
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
    fn run<L: Lanes>(self) {
        let head_dim = self.spec.shape.head_dim;
        let rows = self.q.chunks_exact(head_dim).zip(self.out_grad.chunks_exact(head_dim));
        let outputs = self.q_grad.chunks_exact_mut(head_dim).zip(self.left.chunks_exact_mut(LEFT));
        for ((q, out_grad), (q_grad, left)) in rows.zip(outputs) {
            let scene = Query { spec: self.spec, kv_head: self.kv_head, q, out_grad };
            let softmax = scene.softmax::<L>(self.end, self.k, self.v);
            left.copy_from_slice(&softmax);
            q_grad.fill(0.0);
            scene.grad::<L>(self.end, [self.k, self.v], softmax, q_grad);
        }
    }
}

/// One query head of one token.
struct Query<'a> {
    spec: GradSpec,
    kv_head: usize,
    q: &'a [f32],
    out_grad: &'a [f32],
}

impl Query<'_> {
    /// Greatest score, sum of exponentials below it, and mean gradient of the weights.
    #[inline(always)]
    fn softmax<L: Lanes>(&self, end: usize, k: &[f32], v: &[f32]) -> [f32; LEFT] {
        let (mut peak, mut sum, mut weighed) = (f32::NEG_INFINITY, 0.0_f32, 0.0_f32);
        for first in (0..end).step_by(LANES) {
            let count = (end - first).min(LANES);
            let [scores, grads] = self.block::<L>(first, count, k, v);
            let higher = L::load(&scores).peak().max(peak);
            let old = math::exp(L::splat(peak - higher)).sum() / LANES as f32;
            let weights = math::exp(L::load(&scores).sub(L::splat(higher)));
            sum = sum * old + weights.sum();
            weighed = weighed * old + weights.mul(L::load(&grads)).sum();
            peak = higher;
        }
        [peak, sum, weighed / sum]
    }

    /// Adds the gradient by the query.
    #[inline(always)]
    fn grad<L: Lanes>(
        &self,
        end: usize,
        [k, v]: [&[f32]; 2],
        [peak, sum, mean]: [f32; LEFT],
        q_grad: &mut [f32],
    ) {
        for first in (0..end).step_by(LANES) {
            let count = (end - first).min(LANES);
            let [scores, grads] = self.block::<L>(first, count, k, v);
            let weights = math::exp(L::load(&scores).sub(L::splat(peak))).div(L::splat(sum));
            let slopes = weights.mul(L::load(&grads).sub(L::splat(mean)));
            let mut factors = [0.0; LANES];
            slopes.mul(L::splat(self.spec.scale)).store(&mut factors);
            for (j, factor) in factors.iter().take(count).enumerate() {
                add_times::<L>(*factor, self.row(k, first + j), q_grad);
            }
        }
    }

    /// Scores of some tokens, and the gradients of their weights; lowest and 0 beyond `count`.
    #[inline(always)]
    fn block<L: Lanes>(
        &self,
        first: usize,
        count: usize,
        k: &[f32],
        v: &[f32],
    ) -> [[f32; LANES]; 2] {
        let (mut scores, mut grads) = ([f32::MIN; LANES], [0.0; LANES]);
        for j in 0..count {
            scores[j] = dot::<L>(self.q, self.row(k, first + j)) * self.spec.scale;
            grads[j] = dot::<L>(self.out_grad, self.row(v, first + j));
        }
        [scores, grads]
    }

    #[inline(always)]
    fn row<'x>(&self, x: &'x [f32], token: usize) -> &'x [f32] {
        let AttendShape { kv_heads, head_dim, .. } = self.spec.shape;
        &x[(token * kv_heads + self.kv_head) * head_dim..][..head_dim]
    }
}

struct Keys<'a> {
    spec: GradSpec,
    kv_head: usize,
    token: usize,
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
    fn run<L: Lanes>(self) {
        let GradSpec { scale, is_causal, shape: AttendShape { heads, kv_heads, head_dim } } =
            self.spec;
        let (group, sequence) = (heads / kv_heads, self.left.len() / (LEFT * heads));
        self.k_grad.fill(0.0);
        self.v_grad.fill(0.0);
        // Queries that see the token: so many tokens, each with its group of heads.
        let start = if is_causal { self.token } else { 0 };
        let end = (sequence - start) * group;
        let at = |i: usize| (start + i / group) * heads + self.kv_head * group + i % group;
        for first in (0..end).step_by(LANES) {
            let count = (end - first).min(LANES);
            let (mut scores, mut grads) = ([f32::MIN; LANES], [0.0; LANES]);
            let (mut peaks, mut sums, mut means) = ([0.0; LANES], [1.0; LANES], [0.0; LANES]);
            for i in 0..count {
                let at = at(first + i);
                scores[i] = dot::<L>(&self.q[at * head_dim..][..head_dim], self.k) * scale;
                grads[i] = dot::<L>(&self.out_grad[at * head_dim..][..head_dim], self.v);
                let left = &self.left[LEFT * at..][..LEFT];
                (peaks[i], sums[i], means[i]) = (left[0], left[1], left[2]);
            }
            let weights = math::exp(L::load(&scores).sub(L::load(&peaks))).div(L::load(&sums));
            let slopes = weights.mul(L::load(&grads).sub(L::load(&means)));
            let (mut factors, mut shares) = ([0.0; LANES], [0.0; LANES]);
            slopes.mul(L::splat(scale)).store(&mut factors);
            weights.store(&mut shares);
            for i in 0..count {
                let at = at(first + i) * head_dim;
                add_times::<L>(factors[i], &self.q[at..][..head_dim], self.k_grad);
                add_times::<L>(shares[i], &self.out_grad[at..][..head_dim], self.v_grad);
            }
        }
    }
}

/// The sum of products.
#[inline(always)]
fn dot<L: Lanes>(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = L::splat(0.0);
    for (a, b) in a.iter().zip(b) {
        sums = L::load(a).fma(L::load(b), sums);
    }
    if !a_tail.is_empty() {
        sums = L::load_part(a_tail, 0.0).fma(L::load_part(b_tail, 0.0), sums);
    }
    sums.sum()
}

/// Adds `factor` times `x` to `out`.
#[inline(always)]
fn add_times<L: Lanes>(factor: f32, x: &[f32], out: &mut [f32]) {
    let ((x, x_tail), (out, out_tail)) = (x.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    let factor = L::splat(factor);
    for (x, out) in x.iter().zip(out) {
        L::load(x).fma(factor, L::load(out)).store(out);
    }
    if !x_tail.is_empty() {
        let sum = L::load_part(x_tail, 0.0).fma(factor, L::load_part(out_tail, 0.0));
        sum.store_part(out_tail);
    }
}

#[cfg(test)]
mod tests {
    use kernels_reference as reference;

    use super::*;
    use crate::testing::{assert_near, bits, doubles, floats, isas};

    /// The gradients by queries, keys and values of one sequence.
    fn run(isa: Isa, spec: GradSpec, tokens: usize) -> [Vec<f32>; 3] {
        let AttendShape { heads, kv_heads, head_dim } = spec.shape;
        let group = heads / kv_heads;
        let [q, out_grad] = [3, 4].map(|seed| floats(tokens * heads * head_dim, seed));
        let [k, v] = [1, 2].map(|seed| floats(tokens * kv_heads * head_dim, seed));
        let (mut q_grad, mut left) =
            (vec![f32::NAN; q.len()], vec![f32::NAN; tokens * heads * LEFT]);
        let mut grads = [vec![f32::NAN; k.len()], vec![f32::NAN; k.len()]];
        let units = (0..tokens).flat_map(|token| (0..kv_heads).map(move |head| (token, head)));
        for (token, head) in units.clone() {
            let (first, len) = (token * heads + head * group, group * head_dim);
            let own = [&q, &out_grad].map(|x| &x[first * head_dim..][..len]);
            let (q_grad, left) =
                (&mut q_grad[first * head_dim..][..len], &mut left[first * LEFT..][..group * LEFT]);
            attend_within_query_grad(isa, spec, head, token, own, [&k, &v], q_grad, left);
        }
        for (token, head) in units {
            let at = (token * kv_heads + head) * head_dim;
            let own = [&k, &v].map(|x| &x[at..][..head_dim]);
            let [k_grad, v_grad] = &mut grads;
            let (k_grad, v_grad) = (&mut k_grad[at..][..head_dim], &mut v_grad[at..][..head_dim]);
            let all = [&q[..], &out_grad, &left];
            attend_within_key_grad(isa, spec, head, token, all, own, k_grad, v_grad);
        }
        let [k_grad, v_grad] = grads;
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
    fn is_near_the_reference_with_equal_bits_on_every_isa() {
        for (heads, kv_heads, head_dim) in [(1, 1, 1), (2, 1, 9), (4, 4, 32), (6, 2, 17)] {
            let shape = AttendShape { heads, kv_heads, head_dim };
            for (is_causal, tokens) in
                [1, 7, 8, 9, 63, 130].map(|n| [(false, n), (true, n)]).concat()
            {
                let spec = GradSpec { scale: 0.25, is_causal, shape };
                let first = run(Isa::Scalar, spec, tokens);
                for (i, expected) in expected(spec, tokens).into_iter().enumerate() {
                    assert_near(&first[i], &expected, 1e-4, &format!("{spec:?} {tokens} {i}"));
                }
                for isa in isas() {
                    let found = run(isa, spec, tokens);
                    for (found, first) in found.iter().zip(&first) {
                        assert_eq!(bits(found), bits(first), "{isa:?} {spec:?} {tokens}");
                    }
                }
            }
        }
    }
}
