//! Picks elements of each row by index, and adds to them: each the gradient of the other.

/// Writes `out[r, j] = x[r, index[r, j]]`.
///
/// | argument       | shape           |
/// |----------------|-----------------|
/// | `x`            | `[rows, width]` |
/// | `index`, `out` | `[rows, k]`     |
///
/// # Panics
///
/// If the lengths do not fit the shapes or an index is not below `width`.
pub fn take_along(x: &[f32], index: &[u32], [width, k]: [usize; 2], out: &mut [f32]) {
    check(x.len(), index.len(), out.len(), [width, k]);
    for (i, (&column, out)) in index.iter().zip(out).enumerate() {
        assert!((column as usize) < width, "take_along: index {column} is not below {width}");
        *out = x[i / k * width + column as usize];
    }
}

/// Adds `updates[r, j]` to `out[r, index[r, j]]`, in the order of `j`. Shapes as [`take_along`], with
/// `out` for `x`.
///
/// # Panics
///
/// If the lengths do not fit the shapes or an index is not below `width`.
pub fn scatter_along(out: &mut [f32], index: &[u32], updates: &[f32], [width, k]: [usize; 2]) {
    check(out.len(), index.len(), updates.len(), [width, k]);
    for (i, (&column, &update)) in index.iter().zip(updates).enumerate() {
        assert!((column as usize) < width, "scatter_along: index {column} is not below {width}");
        out[i / k * width + column as usize] += update;
    }
}

fn check(x: usize, index: usize, picked: usize, [width, k]: [usize; 2]) {
    assert_eq!(index, picked, "along: as many indices as elements");
    assert_eq!(x * k, index * width, "along: x is not [rows, width]");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_and_adds_within_each_row() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut out = [0.0; 4];
        take_along(&x, &[2, 0, 1, 1], [3, 2], &mut out);
        assert_eq!(out, [3.0, 1.0, 5.0, 5.0]);
        let mut sums = [0.0; 6];
        scatter_along(&mut sums, &[2, 0, 1, 1], &[1.0, 10.0, 100.0, 1000.0], [3, 2]);
        assert_eq!(sums, [10.0, 0.0, 1.0, 0.0, 1100.0, 0.0]);
        take_along(&x, &[], [3, 0], &mut []);
    }
}
