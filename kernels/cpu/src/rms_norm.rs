//! Root mean square normalization.

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
};

/// Writes `out = x * (mean(x^2) + eps)^-1/2 * (w + weight_offset)`, row by row.
///
/// | argument   | shape           |
/// |------------|-----------------|
/// | `x`, `out` | `[rows, width]` |
/// | `w`        | `[width]`       |
///
/// `weight_offset` is 1 where a checkpoint stores the weight minus one, else 0.
///
/// # Panics
///
/// If the lengths do not fit the shapes.
///
/// # Source
///
/// Zhang and Sennrich, "Root Mean Square Layer Normalization", arXiv:1910.07467, equation 4.
pub fn rms_norm(isa: Isa, x: &[f32], w: &[f32], eps: f32, weight_offset: f32, out: &mut [f32]) {
    let width = w.len();
    assert_eq!(x.len(), out.len(), "rms_norm: x and out differ in length");
    if x.is_empty() {
        return;
    }
    assert!(width > 0 && x.len().is_multiple_of(width), "rms_norm: x is not [rows, width]");
    dispatch(isa, RmsNorm { x, w, eps, weight_offset, out });
}

struct RmsNorm<'a> {
    x: &'a [f32],
    w: &'a [f32],
    eps: f32,
    weight_offset: f32,
    out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let width = self.w.len();
        let (w, w_tail) = self.w.as_chunks::<LANES>();
        let offset = L::splat(self.weight_offset);
        for (x, out) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)) {
            let mean = squares::<L>(x, 0.0) / width as f32;
            let inverse = L::splat(1.0 / (mean + self.eps).sqrt());
            let (x, x_tail) = x.as_chunks::<LANES>();
            let (out, out_tail) = out.as_chunks_mut::<LANES>();
            for ((x, w), out) in x.iter().zip(w).zip(out) {
                L::load(x).mul(inverse).mul(L::load(w).add(offset)).store(out);
            }
            let w = L::load_part(w_tail, 0.0).add(offset);
            L::load_part(x_tail, 0.0).mul(inverse).mul(w).store_part(out_tail);
        }
    }
}

/// Sum of `(x - center)^2`.
#[inline(always)]
pub(crate) fn squares<L: Lanes>(x: &[f32], center: f32) -> f32 {
    let (x, tail) = x.as_chunks::<LANES>();
    let mut sums = L::splat(0.0);
    for x in x {
        let x = L::load(x).sub(L::splat(center));
        sums = x.fma(x, sums);
    }
    let tail = L::load_part(tail, center).sub(L::splat(center));
    tail.fma(tail, sums).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_near, bits, doubles, floats, isas};

    #[test]
    fn is_near_the_reference_with_equal_bits_for_every_isa_and_row_count() {
        for width in [1, 7, 8, 9, 16, 63, 257, 896] {
            let (x, w) = (floats(17 * width, 1), floats(width, 2));
            let mut expected = vec![0.0_f64; x.len()];
            let (x_wide, w_wide) = (doubles(&x), doubles(&w));
            kernels_reference::rms_norm(&x_wide, &w_wide, 1e-6, 1.0, &mut expected);
            let mut first = vec![0.0; x.len()];
            rms_norm(Isa::Scalar, &x, &w, 1e-6, 1.0, &mut first);
            assert_near(&first, &expected, 2e-6, &format!("width {width}"));
            for isa in isas() {
                let mut found = vec![0.0; x.len()];
                rms_norm(isa, &x, &w, 1e-6, 1.0, &mut found);
                assert_eq!(bits(&found), bits(&first), "{isa:?} {width}");
                let row = 16 * width..17 * width;
                rms_norm(isa, &x[row.clone()], &w, 1e-6, 1.0, &mut found[..width]);
                assert_eq!(bits(&found[..width]), bits(&first[row]), "{isa:?} {width} alone");
            }
        }
    }
}
