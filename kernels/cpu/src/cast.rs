//! Changes the dtype.

use crate::{
    element::load_part,
    isa::{Isa, Kernel, dispatch},
    lanes::{Element, LANES, Lanes},
};

/// Writes `out[i] = x[i]`, exactly.
///
/// # Panics
///
/// If the lengths differ.
pub fn widen<S: Element>(isa: Isa, x: &[S], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "widen: x and out differ in length");
    dispatch(isa, Widen { x, out });
}

/// Writes `out[i] = x[i]`, rounded to nearest, ties to even.
///
/// # Panics
///
/// If the lengths differ.
pub fn narrow<S: Element>(isa: Isa, x: &[f32], out: &mut [S]) {
    assert_eq!(x.len(), out.len(), "narrow: x and out differ in length");
    dispatch(isa, Narrow { x, out });
}

/// Writes `out[i] = convert(x[i])`: the pairs of dtypes that [`widen`] and [`narrow`] do not have,
/// with the conversion of the types themselves, such as `f64::from`.
///
/// # Panics
///
/// If the lengths differ.
pub fn cast<A: Copy, B>(x: &[A], convert: impl Fn(A) -> B, out: &mut [B]) {
    assert_eq!(x.len(), out.len(), "cast: x and out differ in length");
    for (x, out) in x.iter().zip(out) {
        *out = convert(*x);
    }
}

struct Widen<'a, S> {
    x: &'a [S],
    out: &'a mut [f32],
}

impl<S: Element> Kernel for Widen<'_, S> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let (x, x_tail) = self.x.as_chunks::<LANES>();
        let (out, out_tail) = self.out.as_chunks_mut::<LANES>();
        for (x, out) in x.iter().zip(out) {
            S::load::<L>(x).store(out);
        }
        load_part::<S, L>(x_tail).store_part(out_tail);
    }
}

struct Narrow<'a, S> {
    x: &'a [f32],
    out: &'a mut [S],
}

impl<S: Element> Kernel for Narrow<'_, S> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let (x, x_tail) = self.x.as_chunks::<LANES>();
        let (out, out_tail) = self.out.as_chunks_mut::<LANES>();
        for (x, out) in x.iter().zip(out) {
            S::store(L::load(x), out);
        }
        let mut lanes = [S::ZERO; LANES];
        S::store(L::load_part(x_tail, 0.0), &mut lanes);
        out_tail.copy_from_slice(&lanes[..out_tail.len()]);
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use kernels_reference as reference;

    use super::*;
    use crate::testing::{bits, floats, isas};

    fn check<S: Element + reference::Stored + PartialEq + std::fmt::Debug>() {
        for len in [0, 1, 7, 8, 9, 63, 257] {
            let mut x = floats(len, 9);
            if len > 6 {
                x[..5].copy_from_slice(&[65_520.0, 1e-7, -1e-5, f32::INFINITY, 1.0 + 1.0 / 2048.0]);
            }
            let mut expected = vec![S::ZERO; len];
            reference::cast(&x, &mut expected);
            for isa in isas() {
                let mut found = vec![S::ZERO; len];
                narrow(isa, &x, &mut found);
                assert_eq!(found, expected, "{isa:?} {len}");
                let (mut back, mut expected_back) = (vec![0.0; len], vec![0.0_f32; len]);
                widen(isa, &found, &mut back);
                reference::cast(&expected, &mut expected_back);
                assert_eq!(bits(&back), bits(&expected_back), "{isa:?} {len}");
            }
        }
    }

    #[test]
    fn equals_the_reference() {
        check::<f32>();
        check::<f16>();
        check::<bf16>();
        let mut out = [0.0; 2];
        cast(&[1.5_f32, -2.0], f64::from, &mut out);
        assert_eq!(out, [1.5, -2.0]);
    }
}
