//! Looks up one row of a table per token.

use crate::{cast::widen, isa::Isa, lanes::Element};

/// Writes `out[t] = table[ids[t]]`.
///
/// | argument | shape             | dtype                |
/// |----------|-------------------|----------------------|
/// | `table`  | `[vocab, width]`  | `f32`, `f16`, `bf16` |
/// | `ids`    | `[tokens]`        | `u32`                |
/// | `out`    | `[tokens, width]` | `f32`                |
///
/// # Panics
///
/// If the lengths do not fit the shapes or an id is not below `vocab`.
pub fn embed<S: Element>(isa: Isa, table: &[S], ids: &[u32], width: usize, out: &mut [f32]) {
    assert_eq!(out.len(), ids.len() * width, "embed: out is not [tokens, width]");
    for (token, &id) in ids.iter().enumerate() {
        let start = id as usize * width;
        assert!(start + width <= table.len(), "embed: id {id} is outside the table");
        widen(isa, &table[start..][..width], &mut out[token * width..][..width]);
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::testing::{bits, floats, isas};

    #[test]
    fn equals_the_reference() {
        for width in [0, 1, 7, 8, 9, 63, 257] {
            let table = floats(5 * width, 3);
            let halves: Vec<f16> = table.iter().map(|x| f16::from_f32(*x)).collect();
            let brains: Vec<bf16> = table.iter().map(|x| bf16::from_f32(*x)).collect();
            let ids = [4, 0, 4];
            for isa in isas() {
                let (mut found, mut expected) = (vec![0.0; 3 * width], vec![0.0_f32; 3 * width]);
                embed(isa, &table, &ids, width, &mut found);
                kernels_reference::embed(&table, &ids, width, &mut expected);
                assert_eq!(bits(&found), bits(&expected), "{isa:?} {width}");
                embed(isa, &halves, &ids, width, &mut found);
                kernels_reference::embed(&halves, &ids, width, &mut expected);
                assert_eq!(bits(&found), bits(&expected), "{isa:?} {width} f16");
                embed(isa, &brains, &ids, width, &mut found);
                kernels_reference::embed(&brains, &ids, width, &mut expected);
                assert_eq!(bits(&found), bits(&expected), "{isa:?} {width} bf16");
            }
        }
    }
}
