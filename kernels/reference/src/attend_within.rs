//! Attention over the tokens of a call alone: in both directions, or backwards only.

use crate::attend::AttendShape;
use crate::{Real, softmax};

/// Which tokens of its sequence a token attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of them.
    Sequence,
    /// Itself and those before it.
    Causal,
}

impl Reach {
    /// How many tokens of a sequence of `len` token `t` of it attends to.
    pub(crate) fn count(self, t: usize, len: usize) -> usize {
        match self {
            Self::Sequence => len,
            Self::Causal => t + 1,
        }
    }
}

/// Lets each token attend to the tokens of its sequence that `reach` says.
///
/// A sequence is a run of tokens with equal `sequence_index`; nothing outlives the call.
///
/// | argument         | shape                          |
/// |------------------|--------------------------------|
/// | `q`, `out`       | `[tokens, heads, head_dim]`    |
/// | `k`, `v`         | `[tokens, kv_heads, head_dim]` |
/// | `sequence_index` | `[tokens]`                     |
/// | `weights`        | `[2, tokens]`, working memory  |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
///
/// # Source
///
/// Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, section 3.2.1; without a mask:
/// Devlin et al., "BERT", arXiv:1810.04805, section 3.
pub fn attend_within<T: Real>(
    scale: T,
    reach: Reach,
    shape: AttendShape,
    [q, k, v]: [&[T]; 3],
    sequence_index: &[u32],
    weights: &mut [T],
    out: &mut [T],
) {
    let AttendShape { heads, kv_heads, head_dim } = shape;
    let tokens = sequence_index.len();
    let (wide, narrow) = (tokens * heads * head_dim, tokens * kv_heads * head_dim);
    assert!(q.len() == wide && out.len() == wide, "attend_within: q, out are not [t, h, d]");
    assert!(k.len() == narrow && v.len() == narrow, "attend_within: k, v are not [t, g, d]");
    assert_eq!(heads % kv_heads, 0, "attend_within: heads are not a multiple of kv_heads");
    assert_eq!(weights.len(), 2 * tokens, "attend_within: weights are not [2, tokens]");
    let mut start = 0;
    for run in sequence_index.chunk_by(|a, b| a == b) {
        let (scores, weights) = weights[..2 * run.len()].split_at_mut(run.len());
        let row =
            |j: usize, head: usize| ((start + j) * kv_heads + head * kv_heads / heads) * head_dim;
        for (t, head) in (0..run.len()).flat_map(|t| (0..heads).map(move |head| (t, head))) {
            let at = ((start + t) * heads + head) * head_dim;
            let count = reach.count(t, run.len());
            let (scores, weights) = (&mut scores[..count], &mut weights[..count]);
            for (j, score) in scores.iter_mut().enumerate() {
                let mut dot = T::zero();
                for c in 0..head_dim {
                    dot += q[at + c] * k[row(j, head) + c];
                }
                *score = dot * scale;
            }
            softmax(scores, count, weights);
            for c in 0..head_dim {
                let mut sum = T::zero();
                for (j, weight) in weights.iter().enumerate() {
                    sum += *weight * v[row(j, head) + c];
                }
                out[at + c] = sum;
            }
        }
        start += run.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: AttendShape = AttendShape { heads: 2, kv_heads: 1, head_dim: 2 };

    /// Key `(ln(1 + t), 0)` and value `(t, 1)` for position `t`, queries `(1, 0)` and `(0, 1)`: head
    /// 0 weighs position `t` by `1 + t`, head 1 all alike.
    fn outputs(lens: &[usize]) -> Vec<f64> {
        outputs_of(Reach::Sequence, lens)
    }

    fn outputs_of(reach: Reach, lens: &[usize]) -> Vec<f64> {
        let positions: Vec<f64> = lens.iter().flat_map(|n| (0..*n).map(|t| t as f64)).collect();
        let index: Vec<u32> =
            lens.iter().enumerate().flat_map(|(s, n)| vec![s as u32 % 2; *n]).collect();
        let k: Vec<f64> = positions.iter().flat_map(|t| [(1.0 + t).ln(), 0.0]).collect();
        let v: Vec<f64> = positions.iter().flat_map(|t| [*t, 1.0]).collect();
        let q = [1.0, 0.0, 0.0, 1.0].repeat(index.len());
        let (mut out, mut weights) = (vec![f64::NAN; q.len()], vec![0.0; 2 * index.len()]);
        attend_within(1.0, reach, SHAPE, [&q, &k, &v], &index, &mut weights, &mut out);
        out
    }

    #[test]
    fn every_token_weighs_the_whole_of_its_sequence() {
        let lens = [1_usize, 2, 7, 8, 9, 63, 257];
        let found = outputs(&lens);
        let mut rows = found.chunks_exact(4);
        for n in lens {
            let weights: f64 = (0..n).map(|t| (t + 1) as f64).sum();
            let weighted: f64 = (0..n).map(|t| (t * (t + 1)) as f64).sum();
            let expected = [weighted / weights, 1.0, (n - 1) as f64 / 2.0, 1.0];
            for row in rows.by_ref().take(n) {
                for (found, expected) in row.iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-9 * n as f64, "{n}: {found}");
                }
            }
        }
    }

    #[test]
    fn a_causal_token_weighs_those_before_it() {
        let found = outputs_of(Reach::Causal, &[9, 2]);
        for (row, t) in found.chunks_exact(4).zip((0..9).chain(0..2)) {
            let alone = outputs(&[t + 1]);
            assert_eq!(row, &alone[alone.len() - 4..], "token {t}");
        }
    }

    #[test]
    fn no_sequence_sees_another() {
        let together = outputs(&[3, 5, 4]);
        let alone: Vec<f64> = [3, 5, 4].iter().flat_map(|n| outputs(&[*n])).collect();
        assert_eq!(together, alone);
        assert_eq!(outputs(&[]), [0.0; 0]);
    }
}
