//! The gated activation of most decoders.

use crate::{
    Real,
    unary::{UnaryOp, apply},
};

/// Writes `out = silu(gate) * up`, element by element.
///
/// # Panics
///
/// If the lengths differ.
///
/// # Source
///
/// Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equation 5.
pub fn swiglu<T: Real>(gate: &[T], up: &[T], out: &mut [T]) {
    assert_eq!(gate.len(), up.len(), "swiglu: gate and up differ in length");
    assert_eq!(gate.len(), out.len(), "swiglu: gate and out differ in length");
    for i in 0..gate.len() {
        out[i] = apply(UnaryOp::Silu, gate[i]) * up[i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_by_silu() {
        let mut out = [0.0_f64; 2];
        swiglu(&[0.0, 3.0_f64.ln()], &[5.0, 4.0], &mut out);
        assert_eq!(out[0], 0.0);
        assert!((out[1] - 3.0 * 3.0_f64.ln()).abs() < 1e-12, "sigmoid(ln 3) is 3/4");
    }
}
