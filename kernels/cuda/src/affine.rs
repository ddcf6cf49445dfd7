//! How rows of affine weights lie on the device: as `affine.cuh` reads them.

/// The shape of a row: its codes (two in a byte, the first in the low half, if they have at most 4
/// bits), then a scale for each group, then a minimum for each, if there are minima.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct AffineShape {
    cols: u64,
    row_bytes: u64,
    code_bits: u32,
    group: u32,
    zero_point: u32,
    has_min: u32,
}

impl AffineShape {
    /// Rows of `cols` codes of `bits` bits, `group` of which share a scale. Nothing unless `bits`
    /// is 1 to 8, `group` a multiple of 16, rows are whole groups and their bytes can be counted.
    pub fn new(
        bits: u32,
        group: usize,
        zero_point: u8,
        has_min: bool,
        cols: usize,
    ) -> Option<Self> {
        let is_known = (1..=8).contains(&bits) && group > 0 && group.is_multiple_of(16);
        if !is_known || cols == 0 || !cols.is_multiple_of(group) {
            return None;
        }
        let code_bits = if bits <= 4 { 4 } else { 8 };
        let code_bytes = cols / 8 * code_bits as usize;
        let params = (cols / group).checked_mul(if has_min { 2 } else { 1 })?;
        let row_bytes = params.checked_mul(size_of::<f32>())?.checked_add(code_bytes)?;
        Some(Self {
            cols: cols as u64,
            row_bytes: row_bytes as u64,
            code_bits,
            group: u32::try_from(group).ok()?,
            zero_point: u32::from(zero_point),
            has_min: u32::from(has_min),
        })
    }

    /// Elements of a row.
    pub fn cols(&self) -> usize {
        self.cols as usize
    }

    /// Bytes of a row, a multiple of 4.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes as usize
    }

    /// Bits that a code takes: 4 or 8.
    pub fn code_bits(&self) -> u32 {
        self.code_bits
    }

    fn groups(&self) -> usize {
        self.cols() / self.group as usize
    }
}

/// Codes, scales and minima of some rows.
#[derive(Debug, Clone, Copy)]
pub struct AffineRows<'a> {
    /// `[rows, cols]`.
    pub codes: &'a [u8],
    /// `[rows, cols / group]`.
    pub scales: &'a [f32],
    /// As `scales`, or empty.
    pub mins: &'a [f32],
}

/// Writes rows as they lie on the device, `[rows, row_bytes]`.
///
/// # Panics
///
/// If the lengths do not fit the shape, or a code does not fit its bits.
pub fn pack_affine(shape: &AffineShape, from: AffineRows<'_>, out: &mut [u8]) {
    let (cols, groups) = (shape.cols(), shape.groups());
    let rows = out.len() / shape.row_bytes();
    let mins = if shape.has_min == 0 { 0 } else { groups };
    assert_eq!(out.len(), rows * shape.row_bytes(), "pack_affine: out is not whole rows");
    assert_eq!(from.codes.len(), rows * cols, "pack_affine: codes are not [rows, cols]");
    assert_eq!(from.scales.len(), rows * groups, "pack_affine: scales are not [rows, groups]");
    assert_eq!(from.mins.len(), rows * mins, "pack_affine: minima are not [rows, groups]");
    for (row, out) in out.chunks_exact_mut(shape.row_bytes()).enumerate() {
        let codes = &from.codes[row * cols..][..cols];
        let (code_bytes, params) = out.split_at_mut(cols / 8 * shape.code_bits as usize);
        if shape.code_bits == 4 {
            for (out, pair) in code_bytes.iter_mut().zip(codes.as_chunks::<2>().0) {
                assert!(pair[0] < 16 && pair[1] < 16, "pack_affine: a code beyond its bits");
                *out = pair[0] | pair[1] << 4;
            }
        } else {
            code_bytes.copy_from_slice(codes);
        }
        let (scales, mins) =
            (&from.scales[row * groups..][..groups], &from.mins[row * mins..][..mins]);
        for (out, x) in params.as_chunks_mut::<4>().0.iter_mut().zip(scales.iter().chain(mins)) {
            *out = x.to_ne_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lays_rows_one_after_the_other() {
        let shape = AffineShape::new(4, 16, 0, true, 16).unwrap();
        assert_eq!(shape.row_bytes(), 8 + 4 + 4);
        let codes: Vec<u8> = (0..16).chain((0..16).rev()).collect();
        let rows = AffineRows { codes: &codes, scales: &[1.0, 2.0], mins: &[0.0, -1.0] };
        let mut out = [0; 32];
        pack_affine(&shape, rows, &mut out);
        assert_eq!(out[..8], [0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe]);
        assert_eq!(out[16..18], [0xef, 0xcd]);
        assert_eq!(out[24..28], 2.0_f32.to_ne_bytes());
        assert_eq!(out[28..], (-1.0_f32).to_ne_bytes());
    }

    #[test]
    fn gives_codes_of_more_than_4_bits_a_byte() {
        let shape = AffineShape::new(6, 16, 32, false, 32).unwrap();
        assert_eq!((shape.row_bytes(), shape.code_bits()), (32 + 2 * 4, 8));
    }

    #[test]
    fn knows_which_shapes_it_cannot_read() {
        #[rustfmt::skip]
        let cases = [(0, 16, 16), (9, 16, 16), (4, 0, 16), (4, 8, 16), (4, 32, 16), (4, 16, 0)];
        for (bits, group, cols) in cases {
            assert_eq!(AffineShape::new(bits, group, 0, true, cols), None, "{bits} {group} {cols}");
        }
    }
}
