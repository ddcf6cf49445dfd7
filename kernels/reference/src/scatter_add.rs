//! Adds rows at given places.

use crate::Real;

/// Adds `updates[i]` to `out[index[i]]`, in the order of `i`; `out` starts as what is added to.
///
/// | argument  | shape           |
/// |-----------|-----------------|
/// | `out`     | `[rows, width]` |
/// | `index`   | `[m]`           |
/// | `updates` | `[m, width]`    |
///
/// # Panics
///
/// If the lengths do not fit the shapes or an index is not below `rows`.
pub fn scatter_add<T: Real>(out: &mut [T], index: &[u32], updates: &[T], width: usize) {
    assert_eq!(updates.len(), index.len() * width, "scatter_add: updates are not [m, width]");
    for (i, &row) in index.iter().enumerate() {
        let start = row as usize * width;
        assert!(start + width <= out.len(), "scatter_add: row {row} is outside out");
        for c in 0..width {
            out[start + c] += updates[i * width + c];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_twice_where_an_index_repeats() {
        let mut out = [1.0_f32, 1.0, 1.0, 1.0];
        scatter_add(&mut out, &[1, 1], &[10.0, 20.0, 100.0, 200.0], 2);
        assert_eq!(out, [1.0, 1.0, 111.0, 221.0]);
    }
}
