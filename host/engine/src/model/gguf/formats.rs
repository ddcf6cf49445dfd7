//! The ggml tensor types: id, name, block length and bytes per block, for size checks.
//!
//! Knowing a type's size is not being able to compute with it: that is a quantizer's business.
//! Ids and sizes: `ggml.h` and `gguf` 0.19.0 `constants.py`.

/// One ggml tensor type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GgmlFormat {
    /// The id in the file.
    pub type_id: u32,
    /// The name that quantizers register under: `"Q4_K"`.
    pub name: &'static str,
    /// Values per block; a row is a whole number of blocks.
    pub block_len: u64,
    /// Bytes per block.
    pub block_bytes: u64,
}

impl GgmlFormat {
    /// Bytes of a tensor of `dims` (outermost first), or `None` if rows are not whole blocks or
    /// the size overflows.
    pub fn size_bytes(&self, dims: &[u64]) -> Option<u64> {
        let cols = dims.last().copied().unwrap_or(1);
        if !cols.is_multiple_of(self.block_len) {
            return None;
        }
        let values = dims.iter().try_fold(1_u64, |product, dim| product.checked_mul(*dim))?;
        (values / self.block_len).checked_mul(self.block_bytes)
    }
}

/// The type with this id, if it is known.
pub fn format(type_id: u32) -> Option<&'static GgmlFormat> {
    FORMATS.iter().find(|format| format.type_id == type_id)
}

/// The type of this name, if there is one.
pub(super) fn by_name(name: &str) -> Option<&'static GgmlFormat> {
    FORMATS.iter().find(|format| format.name == name)
}

/// The name of the type with this id: `12` is `"Q4_K"`.
pub fn format_name(type_id: u32) -> Option<&'static str> {
    format(type_id).map(|format| format.name)
}

const fn entry(type_id: u32, name: &'static str, block_len: u64, block_bytes: u64) -> GgmlFormat {
    GgmlFormat { type_id, name, block_len, block_bytes }
}

/// Retired ids (4, 5, 31 to 33, 36 to 38) are absent: their sizes are not defined any more.
const FORMATS: [GgmlFormat; 33] = [
    entry(0, "F32", 1, 4),
    entry(1, "F16", 1, 2),
    entry(2, "Q4_0", 32, 18),
    entry(3, "Q4_1", 32, 20),
    entry(6, "Q5_0", 32, 22),
    entry(7, "Q5_1", 32, 24),
    entry(8, "Q8_0", 32, 34),
    entry(9, "Q8_1", 32, 36),
    entry(10, "Q2_K", 256, 84),
    entry(11, "Q3_K", 256, 110),
    entry(12, "Q4_K", 256, 144),
    entry(13, "Q5_K", 256, 176),
    entry(14, "Q6_K", 256, 210),
    entry(15, "Q8_K", 256, 292),
    entry(16, "IQ2_XXS", 256, 66),
    entry(17, "IQ2_XS", 256, 74),
    entry(18, "IQ3_XXS", 256, 98),
    entry(19, "IQ1_S", 256, 50),
    entry(20, "IQ4_NL", 32, 18),
    entry(21, "IQ3_S", 256, 110),
    entry(22, "IQ2_S", 256, 82),
    entry(23, "IQ4_XS", 256, 136),
    entry(24, "I8", 1, 1),
    entry(25, "I16", 1, 2),
    entry(26, "I32", 1, 4),
    entry(27, "I64", 1, 8),
    entry(28, "F64", 1, 8),
    entry(29, "IQ1_M", 256, 56),
    entry(30, "BF16", 1, 2),
    entry(34, "TQ1_0", 256, 54),
    entry(35, "TQ2_0", 256, 66),
    entry(39, "MXFP4", 32, 17),
    entry(40, "NVFP4", 64, 36),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_blocks() {
        let cases: [(u32, &[u64], Option<u64>); 6] = [
            (0, &[3, 5], Some(60)),
            (3, &[2, 64], Some(80)),
            (12, &[1, 256], Some(144)),
            (12, &[256, 1], None),
            (0, &[], Some(4)),
            (0, &[u64::MAX, 2], None),
        ];
        for (type_id, dims, expected) in cases {
            assert_eq!(format(type_id).unwrap().size_bytes(dims), expected, "{type_id} {dims:?}");
        }
    }

    #[test]
    fn names_are_found_by_id() {
        assert_eq!(format_name(14), Some("Q6_K"));
        assert_eq!(format_name(5), None);
    }
}
