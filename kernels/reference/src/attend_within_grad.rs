//! Gradient of attention over the tokens of a call.

use crate::attend::AttendShape;
use crate::attend_within::Reach;
use crate::{Real, softmax};

/// Writes what `sum(out_grad * attend_within(q, k, v))` changes by with `q`, `k` and `v`.
///
/// | argument                         | shape                          |
/// |----------------------------------|--------------------------------|
/// | `q`, `out_grad`, `grads[0]`      | `[tokens, heads, head_dim]`    |
/// | `k`, `v`, `grads[1]`, `grads[2]` | `[tokens, kv_heads, head_dim]` |
/// | `sequence_index`                 | `[tokens]`                     |
/// | `memory`                         | `[2, tokens]`, working memory  |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
///
/// # Source
///
/// Dao et al., "FlashAttention", arXiv:2205.14135, appendix B.2, without its tiles.
pub fn attend_within_grad<T: Real>(
    scale: T,
    reach: Reach,
    shape: AttendShape,
    [q, k, v, out_grad]: [&[T]; 4],
    sequence_index: &[u32],
    memory: &mut [T],
    [q_grad, k_grad, v_grad]: [&mut [T]; 3],
) {
    let AttendShape { heads, kv_heads, head_dim } = shape;
    let tokens = sequence_index.len();
    let (wide, narrow) = (tokens * heads * head_dim, tokens * kv_heads * head_dim);
    let is_wide = [q.len(), out_grad.len(), q_grad.len()] == [wide; 3];
    let is_narrow = [k.len(), v.len(), k_grad.len(), v_grad.len()] == [narrow; 4];
    assert!(is_wide && is_narrow, "attend_within_grad: the lengths do not fit the shapes");
    assert_eq!(heads % kv_heads, 0, "attend_within_grad: heads are not a multiple of kv_heads");
    assert_eq!(memory.len(), 2 * tokens, "attend_within_grad: memory is not [2, tokens]");
    for grad in [&mut *q_grad, &mut *k_grad, &mut *v_grad] {
        grad.fill(T::zero());
    }
    let mut start = 0;
    for run in sequence_index.chunk_by(|a, b| a == b) {
        let row =
            |j: usize, head: usize| ((start + j) * kv_heads + head * kv_heads / heads) * head_dim;
        for (t, head) in (0..run.len()).flat_map(|t| (0..heads).map(move |head| (t, head))) {
            let at = ((start + t) * heads + head) * head_dim;
            let (q, out_grad) = (&q[at..][..head_dim], &out_grad[at..][..head_dim]);
            let count = reach.count(t, run.len());
            let (scores, weights) = memory.split_at_mut(tokens);
            let (scores, weights) = (&mut scores[..count], &mut weights[..count]);
            for (j, score) in scores.iter_mut().enumerate() {
                *score = dot(q, &k[row(j, head)..]) * scale;
            }
            softmax(scores, count, weights);
            // The scores have done their duty: their place takes the gradients of the weights.
            let mut mean = T::zero();
            for (j, grad) in scores.iter_mut().enumerate() {
                *grad = dot(out_grad, &v[row(j, head)..]);
                mean += *grad * weights[j];
            }
            for (j, (&grad, &weight)) in scores.iter().zip(&*weights).enumerate() {
                let score_grad = weight * (grad - mean) * scale;
                let j = row(j, head);
                for c in 0..head_dim {
                    q_grad[at + c] += score_grad * k[j + c];
                    k_grad[j + c] += score_grad * q[c];
                    v_grad[j + c] += weight * out_grad[c];
                }
            }
        }
        start += run.len();
    }
}

fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut sum = T::zero();
    for (&a, &b) in a.iter().zip(b) {
        sum += a * b;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attend_within;

    const SHAPE: AttendShape = AttendShape { heads: 2, kv_heads: 1, head_dim: 3 };
    const INDEX: [u32; 7] = [0, 0, 0, 4, 4, 1, 0];

    fn numbers(seed: usize, len: usize) -> Vec<f64> {
        (0..len).map(|i| ((i * 37 + seed * 101) % 64) as f64 / 32.0 - 1.0).collect()
    }

    /// The sum of the results, each times its `out_grad`.
    fn loss(reach: Reach, x: &[Vec<f64>; 4]) -> f64 {
        let (mut out, mut weights) = (vec![0.0; x[0].len()], [0.0; 2 * INDEX.len()]);
        attend_within(0.7, reach, SHAPE, [&x[0], &x[1], &x[2]], &INDEX, &mut weights, &mut out);
        out.iter().zip(&x[3]).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn agrees_with_central_differences() {
        let (wide, narrow) = (INDEX.len() * 6, INDEX.len() * 3);
        let x = [numbers(1, wide), numbers(2, narrow), numbers(3, narrow), numbers(4, wide)];
        for reach in [Reach::Sequence, Reach::Causal] {
            let mut grads = [vec![9.0; wide], vec![9.0; narrow], vec![9.0; narrow]];
            let [q, k, v] = &mut grads;
            let mut memory = [0.0; 2 * INDEX.len()];
            let given = [&x[0][..], &x[1], &x[2], &x[3]];
            attend_within_grad(0.7, reach, SHAPE, given, &INDEX, &mut memory, [q, k, v]);
            for (which, grad) in grads.iter().enumerate() {
                for (i, found) in grad.iter().enumerate() {
                    let [mut up, mut down] = [x.clone(), x.clone()];
                    up[which][i] += 1e-5;
                    down[which][i] -= 1e-5;
                    let expected = (loss(reach, &up) - loss(reach, &down)) / 2e-5;
                    assert!((found - expected).abs() < 1e-8, "{reach:?} {which} {i}: {found}");
                }
            }
        }
    }
}
