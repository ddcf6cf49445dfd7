//! The largest elements of each row, with their places.

use crate::Real;

/// Writes the `k` largest of each row in falling order, and their indices; equal values in the
/// order of their indices. NaN ranks below everything.
///
/// | argument  | shape           | dtype         |
/// |-----------|-----------------|---------------|
/// | `x`       | `[rows, width]` | computed in   |
/// | `values`  | `[rows, k]`     | as `x`        |
/// | `indices` | `[rows, k]`     | `u32`, in row |
///
/// # Panics
///
/// If the lengths do not fit the shapes or `k > width`.
pub fn top_k<T: Real>(x: &[T], width: usize, k: usize, values: &mut [T], indices: &mut [u32]) {
    assert!(k <= width, "top_k: k = {k} is more than the width {width}");
    assert_eq!(values.len(), indices.len(), "top_k: values and indices differ in length");
    if k == 0 {
        return;
    }
    assert_eq!(values.len() * width, x.len() * k, "top_k: values are not [rows, k]");
    for (row, x) in x.chunks_exact(width).enumerate() {
        for rank in 0..k {
            let taken = &indices[row * k..][..rank];
            let best = best_but(x, taken);
            values[row * k + rank] = x[best];
            indices[row * k + rank] = best as u32;
        }
    }
}

/// The index of the greatest element that is not taken; the lowest index if several are equal.
fn best_but<T: Real>(x: &[T], taken: &[u32]) -> usize {
    let mut best: Option<usize> = None;
    for (i, value) in x.iter().enumerate() {
        if taken.contains(&(i as u32)) {
            continue;
        }
        let is_better = best.is_none_or(|b| *value > x[b] || (is_nan(x[b]) && !is_nan(*value)));
        if is_better {
            best = Some(i);
        }
    }
    best.expect("top_k: fewer elements are taken than the row has")
}

fn is_nan<T: Real>(x: T) -> bool {
    x.partial_cmp(&x).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_down_and_breaks_ties_by_index() {
        let nan = f64::NAN;
        #[rustfmt::skip]
        let cases: [(&str, [f64; 4], [u32; 3]); 4] = [
            ("distinct", [1.0, 4.0, 2.0, 3.0],      [1, 3, 2]),
            ("ties",     [2.0, 2.0, 2.0, 2.0],      [0, 1, 2]),
            ("nan last", [nan, 1.0, nan, 0.0],      [1, 3, 0]),
            ("masked",   [f64::NEG_INFINITY, nan, f64::NEG_INFINITY, 0.0], [3, 0, 2]),
        ];
        for (name, x, expected) in cases {
            let (mut values, mut indices) = ([0.0; 3], [0; 3]);
            top_k(&x, 4, 3, &mut values, &mut indices);
            assert_eq!(indices, expected, "{name}");
        }
    }

    #[test]
    fn keeps_rows_apart() {
        let (mut values, mut indices) = ([0.0_f32; 2], [0; 2]);
        top_k(&[1.0, 2.0, 4.0, 3.0], 2, 1, &mut values, &mut indices);
        assert_eq!((values, indices), ([2.0, 4.0], [1, 0]));
    }
}
