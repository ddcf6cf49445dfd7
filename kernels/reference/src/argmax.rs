//! The place of the largest element.

use crate::Real;

/// The index of the greatest element of `row`; the lowest if several are equal, NaN ignored.
///
/// 0 if nothing is above negative infinity.
///
/// # Panics
///
/// If `row` is empty.
pub fn argmax<T: Real>(row: &[T]) -> usize {
    assert!(!row.is_empty(), "argmax: the row is empty");
    let (mut best, mut peak) = (0, T::NEG_INFINITY);
    for (i, &x) in row.iter().enumerate() {
        if x > peak {
            (best, peak) = (i, x);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_peak() {
        const CUT: f32 = f32::NEG_INFINITY;
        #[rustfmt::skip]
        let cases = [
            ("inside",   [1.0, 3.0, 2.0],           1),
            ("ties",     [1.0, 3.0, 3.0],           1),
            ("nan",      [f32::NAN, 1.0, 2.0],      2),
            ("all cut",  [CUT, CUT, CUT],           0),
        ];
        for (name, row, expected) in cases {
            assert_eq!(argmax(&row), expected, "{name}");
        }
    }
}
