//! Softmax over the last axis.

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
    math, reduce,
};

/// Writes `out[r, c] = exp(x[r, c] - max) / sum of the same`, per row of `[rows, width]`.
///
/// # Panics
///
/// If the lengths differ or are not a multiple of `width`.
pub fn softmax(isa: Isa, x: &[f32], width: usize, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "softmax: x and out differ in length");
    if x.is_empty() {
        return;
    }
    assert!(width > 0 && x.len().is_multiple_of(width), "softmax: x is not [rows, width]");
    dispatch(isa, Softmax { x, width, out });
}

struct Softmax<'a> {
    x: &'a [f32],
    width: usize,
    out: &'a mut [f32],
}

impl Kernel for Softmax<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let rows = self.x.chunks_exact(self.width).zip(self.out.chunks_exact_mut(self.width));
        for (x, out) in rows {
            out.copy_from_slice(x);
            let sum = exponentials::<L>(out, reduce::peak::<L>(x));
            let (out, tail) = out.as_chunks_mut::<LANES>();
            let sum = L::splat(sum);
            for out in out {
                L::load(out).div(sum).store(out);
            }
            L::load_part(tail, 0.0).div(sum).store_part(tail);
        }
    }
}

/// Replaces each `x` by `exp(x - peak)`, or by zero where that is no normal number: arithmetic with
/// subnormal ones takes a hundred times as long. Returns their sum.
#[inline(always)]
pub(crate) fn exponentials<L: Lanes>(x: &mut [f32], peak: f32) -> f32 {
    let (x, tail) = x.as_chunks_mut::<LANES>();
    let peak = L::splat(peak);
    let mut sums = L::splat(0.0);
    for x in x {
        let y = weight(L::load(x).sub(peak));
        sums = sums.add(y);
        y.store(x);
    }
    if !tail.is_empty() {
        let y = weight(L::load_part(tail, f32::NEG_INFINITY).sub(peak));
        sums = sums.add(y);
        y.store_part(tail);
    }
    sums.sum()
}

/// The least number whose exponential is normal: `-126 * ln(2)`, rounded up.
const NORMAL_MIN: f32 = -87.336_54;

#[inline(always)]
fn weight<L: Lanes>(x: L) -> L {
    let least = L::splat(NORMAL_MIN);
    // The second operand stays where it is NaN.
    x.if_less(least, L::splat(0.0), math::exp(least.max(x)))
}

#[cfg(test)]
mod tests {
    use kernels_reference as reference;

    use super::*;
    use crate::testing::{assert_near, bits, doubles, floats, isas};

    #[test]
    fn is_near_the_reference_with_equal_bits_on_every_isa() {
        for width in [1, 7, 8, 9, 16, 63, 257] {
            let mut x = floats(3 * width, width as u64);
            x[0] = 20.0;
            x[width - 1] = -1e30;
            let mut expected = vec![0.0_f64; x.len()];
            reference::softmax(&doubles(&x), width, &mut expected);
            let mut first = vec![0.0; x.len()];
            softmax(Isa::Scalar, &x, width, &mut first);
            assert_near(&first, &expected, 1e-6, &format!("width {width}"));
            for isa in isas() {
                let mut found = vec![0.0; x.len()];
                softmax(isa, &x, width, &mut found);
                assert_eq!(bits(&found), bits(&first), "{isa:?} {width}");
                // A row alone has the bits that it has among others.
                softmax(isa, &x[width..2 * width], width, &mut found[..width]);
                assert_eq!(bits(&found[..width]), bits(&first[width..2 * width]), "{isa:?}");
            }
        }
    }
}
