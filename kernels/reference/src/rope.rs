//! Rotary position embedding.

use crate::Real;

/// Which channels of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// `(2i, 2i + 1)`: GPT-J.
    Interleaved,
    /// `(i, i + rotary_dim / 2)`: GPT-NeoX, Llama checkpoints of Hugging Face.
    HalfSplit,
}

/// The sizes and the pairing of one rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RopeShape {
    /// Heads of a token.
    pub heads: usize,
    /// Channels of a head; those from `2 * inv_freq.len()` on pass through.
    pub head_dim: usize,
    /// Which channels turn together.
    pub pairing: Pairing,
}

/// Rotates each head of `x` by its token's position: pair `i` by `positions[t] * inv_freq[i]`
/// radians, the sine and the cosine multiplied by `attention_factor`.
///
/// | argument    | shape                       | unit              |
/// |-------------|-----------------------------|-------------------|
/// | `x`         | `[tokens, heads, head_dim]` | none, in place    |
/// | `positions` | `[tokens]`                  | tokens from start |
/// | `inv_freq`  | `[rotary_dim / 2]`          | radians per token |
///
/// # Panics
///
/// If the lengths do not fit the shapes or the rotation is wider than a head.
///
/// # Source
///
/// Su et al., "RoFormer", arXiv:2104.09864, section 3.4.2; the factor: Peng et al., "YaRN",
/// arXiv:2309.00071, section 3.4.
pub fn rope<T: Real>(
    x: &mut [T],
    positions: &[u32],
    inv_freq: &[f32],
    attention_factor: T,
    shape: RopeShape,
) {
    let RopeShape { heads, head_dim, pairing } = shape;
    assert_eq!(
        x.len(),
        positions.len() * heads * head_dim,
        "rope: x is not [tokens, heads, head_dim]"
    );
    assert!(2 * inv_freq.len() <= head_dim, "rope: the rotation is wider than a head");
    let pairs = inv_freq.len();
    for (token, &position) in positions.iter().enumerate() {
        for head in 0..heads {
            let x = &mut x[(token * heads + head) * head_dim..][..head_dim];
            for (i, &inv_freq) in inv_freq.iter().enumerate() {
                let angle = T::from_f64(f64::from(position)) * T::from_f64(f64::from(inv_freq));
                let (cos, sin) = (angle.cos() * attention_factor, angle.sin() * attention_factor);
                let (a, b) = match pairing {
                    Pairing::Interleaved => (2 * i, 2 * i + 1),
                    Pairing::HalfSplit => (i, i + pairs),
                };
                (x[a], x[b]) = (x[a] * cos - x[b] * sin, x[a] * sin + x[b] * cos);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::FRAC_PI_2;

    use super::*;

    #[test]
    fn turns_each_pair_and_passes_the_rest() {
        // Position 1 turns pair 0 by a quarter, pair 1 by a half; two channels pass.
        let inv_freq = [FRAC_PI_2 as f32, std::f32::consts::PI];
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        #[rustfmt::skip]
        let cases = [
            (Pairing::Interleaved, 1.0_f64, [-2.0, 1.0, -3.0, -4.0, 5.0, 6.0]),
            (Pairing::HalfSplit,   1.0, [-3.0, -2.0, 1.0, -4.0, 5.0, 6.0]),
            (Pairing::HalfSplit,   2.0, [-6.0, -4.0, 2.0, -8.0, 5.0, 6.0]),
        ];
        for (pairing, factor, expected) in cases {
            let mut found = x;
            let shape = RopeShape { heads: 1, head_dim: 6, pairing };
            rope(&mut found, &[1], &inv_freq, factor, shape);
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{pairing:?} {factor}: {found}");
            }
        }
    }

    #[test]
    fn position_zero_changes_nothing() {
        let mut x = [1.0_f32, 2.0, 3.0, 4.0];
        let shape = RopeShape { heads: 2, head_dim: 2, pairing: Pairing::Interleaved };
        rope(&mut x, &[0], &[0.5], 1.0, shape);
        assert_eq!(x, [1.0, 2.0, 3.0, 4.0]);
    }
}
