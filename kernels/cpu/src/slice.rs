//! Cuts a range out of an axis.

use std::ops::Range;

/// Copies `range` of the middle axis of `[outer, axis, inner]`.
///
/// | argument | shape                         |
/// |----------|-------------------------------|
/// | `x`      | `[outer, axis, inner]`        |
/// | `out`    | `[outer, range.len(), inner]` |
///
/// # Panics
///
/// If the lengths do not fit the shapes or `range` leaves the axis.
pub fn slice<T: Copy>(
    x: &[T],
    [outer, axis, inner]: [usize; 3],
    range: Range<usize>,
    out: &mut [T],
) {
    assert_eq!(x.len(), outer * axis * inner, "slice: x is not [outer, axis, inner]");
    assert!(range.start <= range.end && range.end <= axis, "slice: the range leaves the axis");
    assert_eq!(out.len(), outer * range.len() * inner, "slice: out is not [outer, range, inner]");
    let len = range.len() * inner;
    for row in 0..outer {
        let start = (row * axis + range.start) * inner;
        out[row * len..][..len].copy_from_slice(&x[start..][..len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_the_middle_axis() {
        let x = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        let mut out = [0; 4];
        slice(&x, [2, 3, 2], 1..2, &mut out);
        assert_eq!(out, [2, 3, 8, 9]);
        slice(&x, [1, 6, 2], 4..6, &mut out);
        assert_eq!(out, [8, 9, 10, 11]);
        slice(&x, [2, 3, 2], 3..3, &mut out[..0]);
    }
}
