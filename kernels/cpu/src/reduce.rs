//! Reductions over the last axis, which becomes an axis of 1.

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
};

/// Writes `out[r] = sum of x[r, ..]`; 0 for an empty row.
///
/// Sixteen sums of every sixteenth element, then those together, pairwise.
///
/// | argument | shape           |
/// |----------|-----------------|
/// | `x`      | `[rows, width]` |
/// | `out`    | `[rows, 1]`     |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn reduce_sum(isa: Isa, x: &[f32], width: usize, out: &mut [f32]) {
    assert_eq!(x.len(), out.len() * width, "reduce_sum: x is not [rows, width]");
    dispatch(isa, Reduce::<false> { x, width, out });
}

/// Writes `out[r] = mean of x[r, ..]`; NaN for an empty row. Shapes as [`reduce_sum`].
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn reduce_mean(isa: Isa, x: &[f32], width: usize, out: &mut [f32]) {
    reduce_sum(isa, x, width, out);
    for out in out {
        *out /= width as f32;
    }
}

/// Writes `out[r] = max of x[r, ..]`, ignoring NaN; negative infinity for an empty row. Shapes as
/// [`reduce_sum`].
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn reduce_max(isa: Isa, x: &[f32], width: usize, out: &mut [f32]) {
    assert_eq!(x.len(), out.len() * width, "reduce_max: x is not [rows, width]");
    dispatch(isa, Reduce::<true> { x, width, out });
}

struct Reduce<'a, const MAX: bool> {
    x: &'a [f32],
    width: usize,
    out: &'a mut [f32],
}

impl<const MAX: bool> Kernel for Reduce<'_, MAX> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        for (row, out) in self.out.iter_mut().enumerate() {
            let x = &self.x[row * self.width..][..self.width];
            *out = if MAX { peak::<L>(x) } else { sum::<L>(x) };
        }
    }
}

#[inline(always)]
pub(crate) fn sum<L: Lanes>(x: &[f32]) -> f32 {
    let (x, tail) = x.as_chunks::<LANES>();
    let mut sums = L::splat(0.0);
    for x in x {
        sums = sums.add(L::load(x));
    }
    if !tail.is_empty() {
        sums = sums.add(L::load_part(tail, 0.0));
    }
    sums.sum()
}

#[inline(always)]
pub(crate) fn peak<L: Lanes>(x: &[f32]) -> f32 {
    let (x, tail) = x.as_chunks::<LANES>();
    let mut peaks = L::splat(f32::NEG_INFINITY);
    for x in x {
        // The second operand stays where the first is NaN.
        peaks = L::load(x).max(peaks);
    }
    if !tail.is_empty() {
        peaks = L::load_part(tail, f32::NEG_INFINITY).max(peaks);
    }
    peaks.peak()
}

#[cfg(test)]
mod tests {
    use kernels_reference as reference;

    use super::*;
    use crate::testing::{assert_near, bits, doubles, floats, isas};

    #[test]
    fn is_near_the_reference_with_equal_bits_on_every_isa() {
        for width in [0, 1, 7, 8, 9, 16, 63, 257] {
            let x = floats(5 * width, width as u64);
            let mut expected = [[0.0_f64; 5]; 3];
            reference::reduce_sum(&doubles(&x), width, &mut expected[0]);
            reference::reduce_mean(&doubles(&x), width, &mut expected[1]);
            reference::reduce_max(&doubles(&x), width, &mut expected[2]);
            let run = |isa| {
                let mut found = [[0.0; 5]; 3];
                reduce_sum(isa, &x, width, &mut found[0]);
                reduce_mean(isa, &x, width, &mut found[1]);
                reduce_max(isa, &x, width, &mut found[2]);
                found
            };
            let first = run(Isa::Scalar);
            for i in 0..3 {
                if width > 0 {
                    assert_near(&first[i], &expected[i], 1e-4, &format!("{i} {width}"));
                }
                isas().for_each(|isa| assert_eq!(bits(&run(isa)[i]), bits(&first[i]), "{isa:?}"));
            }
        }
    }

    #[test]
    fn max_ignores_nan_and_an_empty_row_gives_the_identity() {
        for isa in isas() {
            let mut out = [0.0];
            reduce_max(isa, &[1.0, f32::NAN, 0.5], 3, &mut out);
            assert_eq!(out, [1.0], "{isa:?}");
            reduce_max(isa, &[], 0, &mut out);
            assert_eq!(out, [f32::NEG_INFINITY], "{isa:?}");
        }
    }
}
