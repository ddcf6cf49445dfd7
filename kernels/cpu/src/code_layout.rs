//! How the codes of a panel lie: sixteen rows, a segment of 32 or 16 elements at a time.
//!
//! A quad is four consecutive elements of sixteen rows: 64 codes, four of row 0, four of row 1, ….
//! Codes of up to six bits keep their low nibbles two and two: 64 bytes hold one quad in the low
//! nibbles and the next one in the high nibbles. After the nibbles of a segment come, for each
//! quad, the fifth bits of its codes as one 64-bit word and then the sixth bits as another.
//! Wider codes take a byte each.

use crate::{output_columns::PANEL_ROWS, quantize_rows::ACT_BLOCK};

/// Elements of a quad.
const QUAD: usize = 4;
/// Bytes of a quad with a byte for each code.
pub(crate) const QUAD_BYTES: usize = QUAD * PANEL_ROWS;
/// Bytes of one bit of each code of a quad.
pub(crate) const PLANE_BYTES: usize = QUAD_BYTES / 8;

/// Elements of a segment, of two halves of a block of activations or of one.
pub(crate) const fn segment_len(is_paired: bool) -> usize {
    if is_paired { ACT_BLOCK } else { ACT_BLOCK / 2 }
}

/// Where the bits of codes lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CodeLayout {
    bits: u8,
    /// Elements of a segment.
    segment: usize,
}

impl CodeLayout {
    /// The layout of codes of `bits` bits whose groups have `group` elements.
    pub(crate) const fn new(bits: u8, group: usize) -> Self {
        Self { bits, segment: segment_len(group.is_multiple_of(ACT_BLOCK)) }
    }

    /// Whether codes are nibbles and planes of bits, not bytes.
    const fn has_nibbles(self) -> bool {
        self.bits <= 6
    }

    /// Bits of a code above its nibble.
    const fn planes(self) -> usize {
        if self.has_nibbles() { self.bits.saturating_sub(4) as usize } else { 0 }
    }

    /// Bytes before the planes of a segment.
    pub(crate) const fn low_bytes(self) -> usize {
        let bytes = self.segment * PANEL_ROWS;
        if self.has_nibbles() { bytes / 2 } else { bytes }
    }

    /// Bytes of a segment of sixteen rows.
    pub(crate) const fn segment_bytes(self) -> usize {
        self.low_bytes() + self.segment / QUAD * self.planes() * PLANE_BYTES
    }

    /// Bytes of `k` elements of sixteen rows.
    pub(crate) const fn bytes(self, k: usize) -> usize {
        k / self.segment * self.segment_bytes()
    }

    /// Writes the codes of row `lane` into zeroed bytes.
    pub(crate) fn pack(self, codes: &[u8], lane: usize, out: &mut [u8]) {
        let segments = out.chunks_exact_mut(self.segment_bytes());
        for (codes, out) in codes.chunks_exact(self.segment).zip(segments) {
            let (low, planes) = out.split_at_mut(self.low_bytes());
            let lows = low.as_chunks_mut::<QUAD_BYTES>().0.iter_mut();
            let quads = codes.as_chunks::<QUAD>().0;
            if !self.has_nibbles() {
                for (quad, low) in quads.iter().zip(lows) {
                    low[lane * QUAD..][..QUAD].copy_from_slice(quad);
                }
                continue;
            }
            for ([even, odd], low) in quads.as_chunks::<2>().0.iter().zip(lows) {
                let [even, odd] = [even, odd].map(|quad| u32::from_le_bytes(*quad) & 0x0F0F_0F0F);
                low[lane * QUAD..][..QUAD].copy_from_slice(&(even | odd << 4).to_le_bytes());
            }
            let words = planes.as_chunks_mut::<PLANE_BYTES>().0;
            for (quad, words) in quads.iter().zip(words.chunks_exact_mut(self.planes().max(1))) {
                let codes = u32::from_le_bytes(*quad);
                for (plane, word) in words.iter_mut().enumerate() {
                    // The factor brings the four bits together in the highest byte.
                    let bits = (codes >> (4 + plane) & 0x0101_0101).wrapping_mul(0x0102_0408) >> 24;
                    word[lane / 2] |= (bits as u8) << (lane % 2 * 4);
                }
            }
        }
    }

    /// Calls `take` with each element of row `lane` in turn and its code.
    #[inline(always)]
    pub(crate) fn unpack(self, codes: &[u8], lane: usize, mut take: impl FnMut(usize, u8)) {
        let mut at = 0;
        for segment in codes.chunks_exact(self.segment_bytes()) {
            let (low, planes) = segment.split_at(self.low_bytes());
            for i in 0..self.segment {
                let (quad, in_quad) = (i / QUAD, lane * QUAD + i % QUAD);
                let code = if self.has_nibbles() {
                    let mut code = low[quad / 2 * QUAD_BYTES + in_quad] >> (quad % 2 * 4) & 0xF;
                    for plane in 0..self.planes() {
                        let word = (quad * self.planes() + plane) * PLANE_BYTES;
                        code |= (planes[word + in_quad / 8] >> (in_quad % 8) & 1) << (4 + plane);
                    }
                    code
                } else {
                    low[quad * QUAD_BYTES + in_quad]
                };
                take(at, code);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::codes;

    #[test]
    fn every_code_comes_back_from_its_place() {
        for bits in 1..=8 {
            for group in [16, 32, 48, 64] {
                let (layout, k) = (CodeLayout::new(bits, group), 3 * group);
                let rows = codes(PANEL_ROWS * k, bits, u64::from(bits));
                let mut packed = vec![0; layout.bytes(k)];
                for (lane, row) in rows.chunks_exact(k).enumerate() {
                    layout.pack(row, lane, &mut packed);
                }
                for (lane, row) in rows.chunks_exact(k).enumerate() {
                    let mut found = Vec::new();
                    layout.unpack(&packed, lane, |at, code| {
                        assert_eq!(at, found.len());
                        found.push(code);
                    });
                    assert_eq!(found, row, "{bits} bits, group {group}, lane {lane}");
                }
                let bytes = match bits {
                    1..=4 => 4,
                    5 | 6 => usize::from(bits),
                    _ => 8,
                } * PANEL_ROWS
                    * k
                    / 8;
                assert_eq!(packed.len(), bytes, "{bits} bits");
            }
        }
    }
}
