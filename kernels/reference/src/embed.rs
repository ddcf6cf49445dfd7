//! Looks up one row of a table per token.

use crate::{Real, Stored};

/// Writes `out[t] = table[ids[t]]`.
///
/// | argument | shape             | dtype       |
/// |----------|-------------------|-------------|
/// | `table`  | `[vocab, width]`  | any stored  |
/// | `ids`    | `[tokens]`        | `u32`       |
/// | `out`    | `[tokens, width]` | computed in |
///
/// # Panics
///
/// If the lengths do not fit the shapes or an id is not below `vocab`.
pub fn embed<S: Stored, T: Real>(table: &[S], ids: &[u32], width: usize, out: &mut [T]) {
    assert_eq!(out.len(), ids.len() * width, "embed: out is not [tokens, width]");
    for (token, &id) in ids.iter().enumerate() {
        let start = id as usize * width;
        assert!(start + width <= table.len(), "embed: id {id} is outside the table");
        for c in 0..width {
            out[token * width + c] = T::from_f64(table[start + c].to_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn copies_the_named_rows() {
        let table = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(f16::from_f32);
        let mut out = [0.0_f32; 6];
        embed(&table, &[2, 0, 2], 2, &mut out);
        assert_eq!(out, [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
        embed(&table, &[], 2, &mut out[..0]);
    }

    #[test]
    #[should_panic(expected = "id 3 is outside")]
    fn refuses_an_id_outside_the_table() {
        embed(&[0.0_f32; 6], &[3], 2, &mut [0.0_f32; 2]);
    }
}
