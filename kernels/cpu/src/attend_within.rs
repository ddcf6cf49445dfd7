//! Attention within one sequence, in both directions or backwards, for one key-value head.
//!
//! The tiles and splits of `attend`, over keys and values that lie as the call brings them.

use crate::{
    attend::{Attend, AttendShape, AttendSpec, Elements, Seen, SequenceBlocks},
    isa::{Isa, dispatch},
};

/// Which tokens of its sequence a token attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of them.
    Sequence,
    /// Itself and those before it.
    Causal {
        /// Where in the sequence the first token of the call stands.
        first: usize,
    },
}

/// Lets the query heads of one key-value head attend to those tokens of their sequence that
/// `reach` says.
///
/// The softmax runs in splits of 256 tokens, merged in order by log-sum-exp. Callers divide the
/// work by tokens and heads; the bits of a token depend on its sequence only.
///
/// | argument   | shape                                  | dtype |
/// |------------|----------------------------------------|-------|
/// | `q`, `out` | `[tokens, heads, head_dim]`, see below | `f32` |
/// | `k`, `v`   | `[sequence, kv_heads, head_dim]`       | `f32` |
///
/// `q` and `out` hold some tokens of the sequence, `k` and `v` all of them. `q` and `out` begin with
/// the first query head of `kv_head` in the first token, and end no sooner than its last one in
/// the last token. Only the heads of `kv_head` are read and written.
///
/// # Panics
///
/// If the lengths do not fit the shapes.
///
/// # Source
///
/// Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, section 3.2.1; the merge: Dao
/// et al., "FlashAttention", arXiv:2205.14135, section 3.1.
#[expect(clippy::too_many_arguments, reason = "each is a tensor or an attribute of the op")]
pub fn attend_within(
    isa: Isa,
    scale: f32,
    reach: Reach,
    shape: AttendShape,
    kv_head: usize,
    tokens: usize,
    q: &[f32],
    [k, v]: [&[f32]; 2],
    out: &mut [f32],
) {
    let AttendShape { heads, kv_heads, head_dim } = shape;
    assert!(kv_head < kv_heads, "attend_within: key-value head {kv_head} of {kv_heads}");
    assert!(heads.is_multiple_of(kv_heads), "attend_within: heads are not a multiple of kv_heads");
    assert!(head_dim > 0, "attend_within: head_dim is 0");
    let Some(before) = tokens.checked_sub(1) else { return };
    let len = (before * heads + heads / kv_heads) * head_dim;
    assert!(q.len() >= len && out.len() >= len, "attend_within: q, out are not [tokens, h, d]");
    let end = k.len() / (kv_heads * head_dim);
    let is_whole = k.len() == v.len() && k.len() == end * kv_heads * head_dim;
    assert!(is_whole && end > 0, "attend_within: k, v are not [sequence, kv_heads, head_dim]");
    let spec = AttendSpec::plain(scale);
    let sequence = SequenceBlocks { blocks: &[0], block_size: end };
    let seen = match reach {
        Reach::Sequence => Seen::All { tokens, end },
        Reach::Causal { first } => {
            assert!(first + tokens <= end, "attend_within: tokens are not in the sequence");
            Seen::From { first, tokens }
        }
    };
    let [k, v] = [k, v].map(Elements);
    dispatch(isa, Attend { spec, shape, kv_head, q, sinks: &[], seen, sequence, k, v, out });
}

#[cfg(test)]
mod tests {
    use kernels_reference as reference;

    use super::*;
    use crate::testing::{assert_near, bits, doubles, floats, isas};

    /// One sequence, `at_once` tokens in a call.
    fn run(isa: Isa, causal: bool, shape: AttendShape, tokens: usize, at_once: usize) -> Vec<f32> {
        let AttendShape { heads, kv_heads, head_dim } = shape;
        let q = floats(tokens * heads * head_dim, 3);
        let [k, v] = [1, 2].map(|seed| floats(tokens * kv_heads * head_dim, seed));
        let mut out = vec![f32::NAN; q.len()];
        for first in (0..tokens).step_by(at_once) {
            let count = at_once.min(tokens - first);
            for kv_head in 0..kv_heads {
                let at = (first * heads + kv_head * (heads / kv_heads)) * head_dim;
                let out = &mut out[at..];
                let reach = if causal { Reach::Causal { first } } else { Reach::Sequence };
                attend_within(isa, 0.25, reach, shape, kv_head, count, &q[at..], [&k, &v], out);
            }
        }
        out
    }

    fn expected(causal: bool, shape: AttendShape, tokens: usize) -> Vec<f64> {
        let AttendShape { heads, kv_heads, head_dim } = shape;
        let other = reference::AttendShape { heads, kv_heads, head_dim };
        let q = doubles(&floats(tokens * heads * head_dim, 3));
        let [k, v] = [1, 2].map(|seed| doubles(&floats(tokens * kv_heads * head_dim, seed)));
        let (mut weights, mut out) = (vec![0.0; 2 * tokens], vec![f64::NAN; q.len()]);
        let index = vec![0; tokens];
        let reach = if causal { reference::Reach::Causal } else { reference::Reach::Sequence };
        reference::attend_within(0.25, reach, other, [&q, &k, &v], &index, &mut weights, &mut out);
        out
    }

    #[test]
    fn is_near_the_reference_with_equal_bits_on_every_isa_and_for_every_division() {
        check(false);
        check(true);
    }

    fn check(causal: bool) {
        for (heads, kv_heads, head_dim) in
            [(1, 1, 1), (2, 1, 9), (12, 12, 32), (6, 2, 63), (4, 2, 144)]
        {
            let shape = AttendShape { heads, kv_heads, head_dim };
            for tokens in
                [0, 1, 7, 8, 9, 63, 257, 600].into_iter().take(if heads == 12 { 8 } else { 6 })
            {
                let first = run(Isa::Scalar, causal, shape, tokens, tokens.max(1));
                let what = format!("{shape:?}, {tokens} tokens");
                assert_near(&first, &expected(causal, shape, tokens), 1e-5, &what);
                for isa in isas() {
                    for at_once in [1, 5, 64, 600] {
                        let found = run(isa, causal, shape, tokens, at_once);
                        assert_eq!(bits(&found), bits(&first), "{isa:?} {what} {at_once}");
                    }
                }
            }
        }
    }
}
