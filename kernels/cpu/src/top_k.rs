//! The largest elements of each row, with their places.

use crate::{
    isa::{Isa, Kernel, dispatch},
    lanes::{LANES, Lanes},
};

/// Writes the `k` largest of each row in falling order, and their indices; equal values in the
/// order of their indices. NaN ranks below everything.
///
/// | argument  | shape           | dtype         |
/// |-----------|-----------------|---------------|
/// | `x`       | `[rows, width]` | `f32`         |
/// | `values`  | `[rows, k]`     | `f32`         |
/// | `indices` | `[rows, k]`     | `u32`, in row |
///
/// # Panics
///
/// If the lengths do not fit the shapes or `k > width`.
pub fn top_k(isa: Isa, x: &[f32], width: usize, k: usize, values: &mut [f32], indices: &mut [u32]) {
    assert!(k <= width, "top_k: k = {k} is more than the width {width}");
    assert_eq!(values.len(), indices.len(), "top_k: values and indices differ in length");
    if k == 0 {
        return;
    }
    assert_eq!(values.len() * width, x.len() * k, "top_k: values are not [rows, k]");
    let rows = values.chunks_exact_mut(k).zip(indices.chunks_exact_mut(k));
    for (x, (values, indices)) in x.chunks_exact(width).zip(rows) {
        dispatch(isa, TopK { x, values, indices });
    }
}

/// One row.
struct TopK<'a> {
    x: &'a [f32],
    values: &'a mut [f32],
    indices: &'a mut [u32],
}

impl Kernel for TopK<'_> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self) {
        let k = self.values.len();
        let mut count = 0;
        for (chunk, x) in self.x.chunks(LANES).enumerate() {
            // A whole chunk is passed over if nothing in it is above the least that is kept.
            if count == k
                && !self.values[k - 1].is_nan()
                && let Some(x) = x.first_chunk()
                && (L::load(x).max(L::splat(f32::NEG_INFINITY)).peak() <= self.values[k - 1])
            {
                continue;
            }
            for (i, &x) in x.iter().enumerate() {
                count = self.insert(x, (chunk * LANES + i) as u32, count);
            }
        }
    }
}

impl TopK<'_> {
    /// Puts `x` behind the kept elements that it is not above; returns how many are kept.
    #[inline(always)]
    fn insert(&mut self, x: f32, index: u32, count: usize) -> usize {
        let k = self.values.len();
        if count == k && !is_above(x, self.values[k - 1]) {
            return count;
        }
        let mut at = if count == k { k - 1 } else { count };
        while at > 0 && is_above(x, self.values[at - 1]) {
            self.values[at] = self.values[at - 1];
            self.indices[at] = self.indices[at - 1];
            at -= 1;
        }
        (self.values[at], self.indices[at]) = (x, index);
        (count + 1).min(k)
    }
}

#[inline(always)]
fn is_above(a: f32, b: f32) -> bool {
    a > b || (b.is_nan() && !a.is_nan())
}

#[cfg(test)]
mod tests {
    use kernels_reference as reference;

    use super::*;
    use crate::testing::{bits, floats, isas};

    #[test]
    fn equals_the_reference() {
        for width in [1, 7, 8, 9, 63, 257, 1000] {
            let rows = 3;
            let mut x = floats(rows * width, width as u64);
            // Ties, holes and masks.
            x.iter_mut().for_each(|x| *x = (*x * 8.0).round());
            x[0] = f32::NAN;
            x[width / 2] = f32::NEG_INFINITY;
            for k in [0, 1, 2, 5, width / 2, width] {
                let k = k.min(width);
                let (mut values, mut indices) = (vec![0.0; rows * k], vec![0; rows * k]);
                reference::top_k(&x, width, k, &mut values, &mut indices);
                for isa in isas() {
                    let (mut found, mut places) = (vec![0.0; rows * k], vec![0; rows * k]);
                    top_k(isa, &x, width, k, &mut found, &mut places);
                    assert_eq!(places, indices, "{isa:?} {width} {k}");
                    assert_eq!(bits(&found), bits(&values), "{isa:?} {width} {k}");
                }
            }
        }
    }
}
