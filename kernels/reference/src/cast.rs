//! Changes the dtype.

use crate::Stored;

/// Writes `out[i] = x[i]`, rounded to nearest, ties to even.
///
/// # Panics
///
/// If the lengths differ.
pub fn cast<A: Stored, B: Stored>(x: &[A], out: &mut [B]) {
    assert_eq!(x.len(), out.len(), "cast: x and out differ in length");
    for (x, out) in x.iter().zip(out) {
        *out = B::from_f64(x.to_f64());
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn rounds_to_nearest_even() {
        let x = [1.0_f32, -2.5, 1.0 + 1.0 / 2048.0, 65_520.0];
        let mut halves = [f16::ZERO; 4];
        cast(&x, &mut halves);
        assert_eq!(halves.map(f16::to_f32), [1.0, -2.5, 1.0, f32::INFINITY]);
        let mut brains = [bf16::ZERO; 4];
        cast(&x, &mut brains);
        assert_eq!(brains.map(bf16::to_f32), [1.0, -2.5, 1.0, 65_536.0]);
        let mut doubles = [0.0_f64; 4];
        cast(&halves, &mut doubles);
        assert_eq!(doubles[1], -2.5);
    }
}
