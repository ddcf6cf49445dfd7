//! Masks what is too unlikely.

use crate::Real;

/// Sets every element of `row` that is below `threshold` to negative infinity; equal ones stay.
pub fn keep_above<T: Real>(row: &mut [T], threshold: T) {
    for x in row {
        if *x < threshold {
            *x = T::NEG_INFINITY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_strictly_below() {
        let mut row = [1.0_f32, 2.0, 3.0];
        keep_above(&mut row, 2.0);
        assert_eq!(row, [f32::NEG_INFINITY, 2.0, 3.0]);
    }
}
