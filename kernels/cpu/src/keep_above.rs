//! Masks what is too unlikely.

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
};

/// Sets every element of `row` that is below `threshold` to negative infinity; equal ones stay.
pub fn keep_above(isa: Isa, row: &mut [f32], threshold: f32) {
    dispatch(isa, KeepAbove { row, threshold });
}

struct KeepAbove<'a> {
    row: &'a mut [f32],
    threshold: f32,
}

impl Kernel for KeepAbove<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let (threshold, cut) = (L::splat(self.threshold), L::splat(f32::NEG_INFINITY));
        let (row, tail) = self.row.as_chunks_mut::<LANES>();
        for x in row {
            let kept = L::load(x);
            kept.if_less(threshold, cut, kept).store(x);
        }
        let kept = L::load_part(tail, 0.0);
        kept.if_less(threshold, cut, kept).store_part(tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bits, floats, isas};

    #[test]
    fn equals_the_reference() {
        for len in [0, 1, 7, 8, 9, 63, 257] {
            let mut row = floats(len, 5);
            if len > 1 {
                (row[0], row[1]) = (0.25, f32::NAN);
            }
            let mut expected = row.clone();
            kernels_reference::keep_above(&mut expected, 0.25);
            for isa in isas() {
                let mut found = row.clone();
                keep_above(isa, &mut found, 0.25);
                assert_eq!(bits(&found), bits(&expected), "{isa:?} {len}");
            }
        }
    }
}
