//! Picks rows by index.

/// Writes `out[i] = x[index[i]]`.
///
/// | argument | shape           |
/// |----------|-----------------|
/// | `x`      | `[rows, width]` |
/// | `index`  | `[m]`           |
/// | `out`    | `[m, width]`    |
///
/// # Panics
///
/// If the lengths do not fit the shapes or an index is not below `rows`.
pub fn gather<T: Copy>(x: &[T], index: &[u32], width: usize, out: &mut [T]) {
    assert_eq!(out.len(), index.len() * width, "gather: out is not [m, width]");
    for (i, &row) in index.iter().enumerate() {
        let start = row as usize * width;
        assert!(start + width <= x.len(), "gather: row {row} is outside x");
        out[i * width..][..width].copy_from_slice(&x[start..][..width]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_rows_in_the_order_asked() {
        let mut out = [0; 6];
        gather(&[1, 2, 3, 4, 5, 6], &[2, 2, 0], 2, &mut out);
        assert_eq!(out, [5, 6, 5, 6, 1, 2]);
    }
}
