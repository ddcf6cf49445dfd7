//! The largest element, and its place.

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::Lanes,
    reduce,
};

/// The greatest element of `row`, ignoring NaN; negative infinity if there is none.
pub fn max(isa: Isa, row: &[f32]) -> f32 {
    dispatch(isa, Max { row })
}

/// The index of the greatest element of `row`; the lowest if several are equal, NaN ignored.
///
/// 0 if nothing is above negative infinity.
///
/// # Panics
///
/// If `row` is empty.
pub fn argmax(isa: Isa, row: &[f32]) -> usize {
    assert!(!row.is_empty(), "argmax: the row is empty");
    let peak = max(isa, row);
    if peak == f32::NEG_INFINITY {
        return 0;
    }
    row.iter().position(|x| *x == peak).unwrap_or(0)
}

struct Max<'a> {
    row: &'a [f32],
}

impl Kernel for Max<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<L: Lanes>(self) -> f32 {
        reduce::peak::<L>(self.row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{floats, isas};

    #[test]
    fn finds_the_first_peak() {
        const CUT: f32 = f32::NEG_INFINITY;
        for isa in isas() {
            for len in [1, 7, 8, 9, 63, 257] {
                let mut row = floats(len, len as u64);
                assert_eq!(argmax(isa, &row), kernels_reference::argmax(&row), "{isa:?} {len}");
                (row[len / 2], row[len - 1]) = (9.0, 9.0);
                assert_eq!((argmax(isa, &row), max(isa, &row)), (len / 2, 9.0), "{isa:?} {len}");
                row.fill(CUT);
                assert_eq!(argmax(isa, &row), 0, "{isa:?} {len}");
            }
            assert_eq!(argmax(isa, &[f32::NAN, 1.0, 2.0]), 2, "{isa:?}");
            assert_eq!(max(isa, &[]), CUT, "{isa:?}");
        }
    }
}
