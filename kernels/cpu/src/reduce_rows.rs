//! The sum over rows: what a row that was added to all of them gets.

use std::ops::Range;

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
};

/// Writes `out[c] = sum over r of x[r, columns.start + c]`, in the order of `r`; 0 without rows.
///
/// | argument | shape             |
/// |----------|-------------------|
/// | `x`      | `[rows, width]`   |
/// | `out`    | `[columns.len()]` |
///
/// # Panics
///
/// If the lengths do not fit the shapes.
pub fn reduce_rows(isa: Isa, x: &[f32], width: usize, columns: Range<usize>, out: &mut [f32]) {
    assert!(columns.end <= width, "reduce_rows: columns are outside of the rows");
    assert_eq!(out.len(), columns.len(), "reduce_rows: out is not [columns]");
    assert!(x.len().is_multiple_of(width.max(1)), "reduce_rows: x is not [rows, width]");
    dispatch(isa, ReduceRows { x, width, first: columns.start, out });
}

struct ReduceRows<'a> {
    x: &'a [f32],
    width: usize,
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for ReduceRows<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { x, width, first, out } = self;
        for (i, out) in out.chunks_mut(LANES).enumerate() {
            let start = first + i * LANES;
            let mut sums = L::splat(0.0);
            for row in x.chunks_exact(width) {
                let part = &row[start..][..out.len()];
                sums = sums.add(match part.first_chunk() {
                    Some(part) => L::load(part),
                    None => L::load_part(part, 0.0),
                });
            }
            sums.store_part(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bits, floats, isas};

    #[test]
    fn sums_columns_in_order_with_equal_bits_for_every_isa_and_split() {
        for (rows, width) in [(0, 3), (1, 1), (7, 16), (63, 17), (257, 40)] {
            let x = floats(rows * width, 3);
            let column = |c: usize| x.iter().skip(c).step_by(width).fold(0.0, |sum, x| sum + x);
            let expected: Vec<f32> = (0..width).map(column).collect();
            for isa in isas() {
                let mut found = vec![f32::NAN; width];
                let (left, right) = found.split_at_mut(width / 2);
                reduce_rows(isa, &x, width, 0..width / 2, left);
                reduce_rows(isa, &x, width, width / 2..width, right);
                assert_eq!(bits(&found), bits(&expected), "{isa:?} {rows} {width}");
            }
        }
    }
}
