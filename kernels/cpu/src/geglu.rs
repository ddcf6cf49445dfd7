//! The gated activation with GELU in its tanh form.

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
    math,
};

/// Writes `out = gelu_tanh(gate) * up`, element by element.
///
/// # Panics
///
/// If the lengths differ.
///
/// # Source
///
/// Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equation 5.
pub fn geglu(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert_eq!(gate.len(), up.len(), "geglu: gate and up differ in length");
    assert_eq!(gate.len(), out.len(), "geglu: gate and out differ in length");
    dispatch(isa, Geglu { gate, up, out });
}

struct Geglu<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Geglu<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let (gate, gate_tail) = self.gate.as_chunks::<LANES>();
        let (up, up_tail) = self.up.as_chunks::<LANES>();
        let (out, out_tail) = self.out.as_chunks_mut::<LANES>();
        for ((gate, up), out) in gate.iter().zip(up).zip(out) {
            math::gelu_tanh(L::load(gate)).mul(L::load(up)).store(out);
        }
        if !gate_tail.is_empty() {
            let (gate, up) = (L::load_part(gate_tail, 0.0), L::load_part(up_tail, 0.0));
            math::gelu_tanh(gate).mul(up).store_part(out_tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_near, bits, doubles, floats, isas};

    #[test]
    fn is_near_the_reference_with_equal_bits_on_every_isa() {
        for len in [0, 1, 7, 8, 9, 16, 63, 257] {
            let (gate, up) = (floats(len, 1), floats(len, 2));
            let mut expected = vec![0.0_f64; len];
            kernels_reference::geglu(&doubles(&gate), &doubles(&up), &mut expected);
            let mut first = vec![0.0; len];
            geglu(Isa::Scalar, &gate, &up, &mut first);
            assert_near(&first, &expected, 1e-6, &format!("{len}"));
            for isa in isas() {
                let mut found = vec![0.0; len];
                geglu(isa, &gate, &up, &mut found);
                assert_eq!(bits(&found), bits(&first), "{isa:?} {len}");
            }
        }
    }
}
