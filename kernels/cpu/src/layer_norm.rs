//! Layer normalization.

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
    reduce,
    rms_norm::squares,
};

/// Writes `out = (x - mean) * (variance + eps)^-1/2 * w + b`, row by row; variance over `width`.
///
/// | argument   | shape           |
/// |------------|-----------------|
/// | `x`, `out` | `[rows, width]` |
/// | `w`, `b`   | `[width]`       |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
///
/// # Source
///
/// Ba, Kiros and Hinton, "Layer Normalization", arXiv:1607.06450, section 3.
pub fn layer_norm(isa: Isa, x: &[f32], w: &[f32], b: &[f32], eps: f32, out: &mut [f32]) {
    let width = w.len();
    assert_eq!(x.len(), out.len(), "layer_norm: x and out differ in length");
    assert_eq!(b.len(), width, "layer_norm: w and b differ in length");
    if x.is_empty() {
        return;
    }
    assert!(width > 0 && x.len().is_multiple_of(width), "layer_norm: x is not [rows, width]");
    dispatch(isa, LayerNorm { x, w, b, eps, out });
}

struct LayerNorm<'a> {
    x: &'a [f32],
    w: &'a [f32],
    b: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for LayerNorm<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let width = self.w.len();
        let (w, w_tail) = self.w.as_chunks::<LANES>();
        let (b, b_tail) = self.b.as_chunks::<LANES>();
        for (x, out) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)) {
            let center = reduce::sum::<L>(x) / width as f32;
            let variance = squares::<L>(x, center) / width as f32;
            let inverse = L::splat(1.0 / (variance + self.eps).sqrt());
            let center = L::splat(center);
            let (x, x_tail) = x.as_chunks::<LANES>();
            let (out, out_tail) = out.as_chunks_mut::<LANES>();
            for (((x, w), b), out) in x.iter().zip(w).zip(b).zip(out) {
                let x = L::load(x).sub(center).mul(inverse);
                x.fma(L::load(w), L::load(b)).store(out);
            }
            let x = L::load_part(x_tail, 0.0).sub(center).mul(inverse);
            let (w, b) = (L::load_part(w_tail, 0.0), L::load_part(b_tail, 0.0));
            x.fma(w, b).store_part(out_tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_near, bits, doubles, floats, isas};

    #[test]
    fn is_near_the_reference_with_equal_bits_for_every_isa_and_row_count() {
        for width in [1, 7, 8, 9, 16, 63, 257, 896] {
            let (x, w, b) = (floats(17 * width, 1), floats(width, 2), floats(width, 3));
            let mut expected = vec![0.0_f64; x.len()];
            let (wide, w_wide, b_wide) = (doubles(&x), doubles(&w), doubles(&b));
            kernels_reference::layer_norm(&wide, &w_wide, &b_wide, 1e-5, &mut expected);
            let mut first = vec![0.0; x.len()];
            layer_norm(Isa::Scalar, &x, &w, &b, 1e-5, &mut first);
            assert_near(&first, &expected, 4e-6, &format!("width {width}"));
            for isa in isas() {
                let mut found = vec![0.0; x.len()];
                layer_norm(isa, &x, &w, &b, 1e-5, &mut found);
                assert_eq!(bits(&found), bits(&first), "{isa:?} {width}");
                let row = 16 * width..17 * width;
                layer_norm(isa, &x[row.clone()], &w, &b, 1e-5, &mut found[..width]);
                assert_eq!(bits(&found[..width]), bits(&first[row]), "{isa:?} {width} alone");
            }
        }
    }
}
