//! Rotary position embedding.

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
};

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
    /// Channels of a head.
    pub head_dim: usize,
    /// Channels of a head that turn; the others pass through.
    pub rotary_dim: usize,
    /// Which channels turn together.
    pub pairing: Pairing,
}

/// Writes the cosines and sines of `positions[t] * inv_freq[i]` radians, times
/// `attention_factor`: once per step, for all layers and heads.
///
/// | argument     | shape                      | unit              |
/// |--------------|----------------------------|-------------------|
/// | `positions`  | `[tokens]`                 | tokens from start |
/// | `inv_freq`   | `[rotary_dim / 2]`         | radians per token |
/// | `cos`, `sin` | `[tokens, rotary_dim / 2]` | none              |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn rope_table(
    positions: &[u32],
    inv_freq: &[f32],
    attention_factor: f32,
    cos: &mut [f32],
    sin: &mut [f32],
) {
    let len = positions.len() * inv_freq.len();
    assert!(cos.len() == len && sin.len() == len, "rope_table: cos, sin are not [tokens, pairs]");
    for (t, &position) in positions.iter().enumerate() {
        for (i, &inv_freq) in inv_freq.iter().enumerate() {
            let (s, c) = (position as f32 * inv_freq).sin_cos();
            let at = t * (len / positions.len()) + i;
            (cos[at], sin[at]) = (c * attention_factor, s * attention_factor);
        }
    }
}

/// Rotates each head of `x` by its token's angles.
///
/// | argument     | shape                       | unit           |
/// |--------------|-----------------------------|----------------|
/// | `x`          | `[tokens, heads, head_dim]` | none, in place |
/// | `cos`, `sin` | `[tokens, rotary_dim / 2]`  | none           |
///
/// # Panics
///
/// If the lengths do not fit the shapes or the rotation is wider than a head.
///
/// # Source
///
/// Su et al., "RoFormer", arXiv:2104.09864, section 3.4.2.
pub fn rope(isa: Isa, x: &mut [f32], cos: &[f32], sin: &[f32], shape: RopeShape) {
    let RopeShape { heads, head_dim, rotary_dim, .. } = shape;
    assert!(rotary_dim <= head_dim, "rope: the rotation is wider than a head");
    assert!(rotary_dim.is_multiple_of(2), "rope: the rotation is not whole pairs");
    assert_eq!(cos.len(), sin.len(), "rope: cos and sin differ in length");
    if rotary_dim == 0 || x.is_empty() {
        return;
    }
    let is_fitting = cos.len() * heads * head_dim == x.len() * (rotary_dim / 2);
    assert!(is_fitting, "rope: x is not [tokens, heads, head_dim]");
    dispatch(isa, Rope { x, cos, sin, shape });
}

struct Rope<'a> {
    x: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    shape: RopeShape,
}

impl Kernel for Rope<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let RopeShape { heads, head_dim, rotary_dim, pairing } = self.shape;
        let pairs = rotary_dim / 2;
        let angles = self.cos.chunks_exact(pairs).zip(self.sin.chunks_exact(pairs));
        for (x, (cos, sin)) in self.x.chunks_exact_mut(heads * head_dim).zip(angles) {
            for x in x.chunks_exact_mut(head_dim) {
                let x = &mut x[..rotary_dim];
                match pairing {
                    Pairing::HalfSplit => turn_halves::<L>(x, cos, sin),
                    Pairing::Interleaved => turn_neighbours(x, cos, sin),
                }
            }
        }
    }
}

#[inline(always)]
fn turn_halves<L: Lanes>(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (a, b) = x.split_at_mut(cos.len());
    let (cos, cos_tail) = cos.as_chunks::<LANES>();
    let (sin, sin_tail) = sin.as_chunks::<LANES>();
    let (a, a_tail) = a.as_chunks_mut::<LANES>();
    let (b, b_tail) = b.as_chunks_mut::<LANES>();
    for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
        let (x, y) = turn(L::load(a), L::load(b), L::load(cos), L::load(sin));
        x.store(a);
        y.store(b);
    }
    let (cos, sin) = (L::load_part(cos_tail, 0.0), L::load_part(sin_tail, 0.0));
    let (x, y) = turn(L::load_part(a_tail, 0.0), L::load_part(b_tail, 0.0), cos, sin);
    x.store_part(a_tail);
    y.store_part(b_tail);
}

#[inline(always)]
fn turn<L: Lanes>(a: L, b: L, cos: L, sin: L) -> (L, L) {
    (a.mul(cos).sub(b.mul(sin)), a.mul(sin).add(b.mul(cos)))
}

#[inline(always)]
fn turn_neighbours(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    for (([a, b], cos), sin) in x.as_chunks_mut().0.iter_mut().zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

#[cfg(test)]
mod tests {
    use kernels_reference as reference;

    use super::*;
    use crate::testing::{bits, floats, isas};

    #[test]
    fn equals_the_reference_bit_for_bit() {
        let pairings = [
            (Pairing::Interleaved, reference::Pairing::Interleaved),
            (Pairing::HalfSplit, reference::Pairing::HalfSplit),
        ];
        let positions = [0, 1, 7, 4095, 131_071];
        for (head_dim, rotary_dim) in [(2, 2), (9, 6), (16, 0), (63, 62), (64, 64), (128, 66)] {
            let inv_freq: Vec<f32> = (0..rotary_dim / 2).map(|i| 0.9_f32.powi(i)).collect();
            let rotary_dim = rotary_dim as usize;
            let x = floats(positions.len() * 3 * head_dim, 4);
            for (pairing, other) in pairings {
                let mut expected = x.clone();
                let other = reference::RopeShape { heads: 3, head_dim, pairing: other };
                reference::rope(&mut expected, &positions, &inv_freq, 1.25, other);
                let mut cos = vec![0.0; positions.len() * inv_freq.len()];
                let mut sin = cos.clone();
                rope_table(&positions, &inv_freq, 1.25, &mut cos, &mut sin);
                let shape = RopeShape { heads: 3, head_dim, rotary_dim, pairing };
                for isa in isas() {
                    let mut found = x.clone();
                    rope(isa, &mut found, &cos, &sin, shape);
                    assert_eq!(bits(&found), bits(&expected), "{isa:?} {head_dim} {pairing:?}");
                }
            }
        }
    }
}
