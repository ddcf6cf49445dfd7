//! The gated activation with GELU in its tanh form.

use crate::{
    Real,
    unary::{UnaryOp, apply},
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
pub fn geglu<T: Real>(gate: &[T], up: &[T], out: &mut [T]) {
    assert_eq!(gate.len(), up.len(), "geglu: gate and up differ in length");
    assert_eq!(gate.len(), out.len(), "geglu: gate and out differ in length");
    for i in 0..gate.len() {
        out[i] = apply(UnaryOp::GeluTanh, gate[i]) * up[i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_by_gelu() {
        let mut out = [0.0_f64; 3];
        geglu(&[0.0, 1.0, -1.0], &[5.0, 2.0, 1.0], &mut out);
        for (found, expected) in out.iter().zip([0.0, 1.682_383_981_217_655, -0.158_808_009_391]) {
            assert!((found - expected).abs() < 1e-11, "{out:?}");
        }
    }
}
