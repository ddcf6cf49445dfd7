//! Adds rows at given places.

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
pub fn scatter_add(out: &mut [f32], index: &[u32], updates: &[f32], width: usize) {
    assert_eq!(updates.len(), index.len() * width, "scatter_add: updates are not [m, width]");
    for (i, &row) in index.iter().enumerate() {
        let start = row as usize * width;
        assert!(start + width <= out.len(), "scatter_add: row {row} is outside out");
        for (out, update) in out[start..][..width].iter_mut().zip(&updates[i * width..]) {
            *out += update;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bits, floats};

    #[test]
    fn equals_the_reference() {
        for width in [0, 1, 7, 8, 9, 63, 257] {
            let mut found = floats(4 * width, 1);
            let (mut expected, updates) = (found.clone(), floats(5 * width, 2));
            let index = [3, 0, 3, 3, 1];
            scatter_add(&mut found, &index, &updates, width);
            kernels_reference::scatter_add(&mut expected, &index, &updates, width);
            assert_eq!(bits(&found), bits(&expected), "width {width}");
        }
    }
}
