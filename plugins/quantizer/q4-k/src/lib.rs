//! Blocks of 256 codes of 4 bits, in 8 groups with scale and minimum.
//!
//! Source: `ggml-quants.c` of llama.cpp; layout checked against `gguf` 0.19.0.

use kernels_reference::blocks::{
    K_GROUP, K_HEADER_BYTES, join_nibbles, k_scales, quantize_k, split_nibbles,
};
use plugin_api::prelude::*;

/// Reads and writes `Q4_K`: a header with the scales, then 128 bytes of two codes each.
#[derive(Debug)]
pub struct Q4K;

const BLOCK_LEN: usize = 256;
const BLOCK_BYTES: usize = 144;

impl Capability for Q4K {
    const NAME: &'static str = "q4-k";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Quantizer for Q4K {
    fn format(&self) -> FormatDesc {
        FormatDesc {
            name: "Q4_K".into(),
            block_len: BLOCK_LEN,
            block_bytes: BLOCK_BYTES,
            semantic_id: SemanticId::new("Q4_K/1"),
        }
    }

    fn lowering(&self) -> Lowering {
        let scales = Scales::Product { groups: BLOCK_LEN / K_GROUP };
        Lowering::Affine { bits: 4, group: 32, zero_point: 0, has_min: true, scales }
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        self.format().check(blocks.len(), out.len())?;
        let blocks = blocks.as_chunks::<BLOCK_BYTES>().0;
        for (block, out) in blocks.iter().zip(out.as_chunks_mut::<BLOCK_LEN>().0) {
            let (scales, codes) = (k_scales(block), codes_of(block));
            let groups = out.chunks_exact_mut(K_GROUP).zip(codes.chunks_exact(K_GROUP));
            for ((out, codes), (scale, min)) in groups.zip(scales) {
                for (out, &code) in out.iter_mut().zip(codes) {
                    *out = scale * f32::from(code) + min;
                }
            }
        }
        Ok(())
    }

    fn encode(
        &self,
        rows: &[f32],
        calibration: Option<&Calibration<'_>>,
        out: &mut [u8],
    ) -> Result<()> {
        self.format().check(out.len(), rows.len())?;
        if let Some(calibration) = calibration {
            calibration.importance(0, BLOCK_LEN)?;
        }
        let blocks = out.as_chunks_mut::<BLOCK_BYTES>().0;
        for (i, (x, block)) in rows.as_chunks::<BLOCK_LEN>().0.iter().zip(blocks).enumerate() {
            let importance = match calibration {
                Some(calibration) => calibration.importance(i * BLOCK_LEN, BLOCK_LEN)?,
                None => &[],
            };
            let mut codes = [0; BLOCK_LEN];
            let (header, packed) = block.split_at_mut(K_HEADER_BYTES);
            quantize_k(x, importance, 15, header, &mut codes);
            let pairs = codes.chunks_exact(2 * K_GROUP).zip(packed.chunks_exact_mut(K_GROUP));
            pairs.for_each(|(codes, bytes)| join_nibbles(codes, bytes));
        }
        Ok(())
    }

    fn unpack(&self, blocks: &[u8], out: &mut AffineMut<'_>) -> Result<()> {
        out.check(&self.format(), &self.lowering(), blocks.len())?;
        let blocks = blocks.as_chunks::<BLOCK_BYTES>().0;
        let codes = out.codes.as_chunks_mut::<BLOCK_LEN>().0;
        for (i, (block, codes)) in blocks.iter().zip(codes).enumerate() {
            *codes = codes_of(block);
            for (j, (scale, min)) in k_scales(block).into_iter().enumerate() {
                (out.scales[8 * i + j], out.mins[8 * i + j]) = (scale, min);
            }
        }
        Ok(())
    }
}

/// The codes of a block: 32 bytes hold two groups, the first in the low nibbles.
fn codes_of(block: &[u8; BLOCK_BYTES]) -> [u8; BLOCK_LEN] {
    let mut codes = [0; BLOCK_LEN];
    let packed = block[K_HEADER_BYTES..].chunks_exact(K_GROUP);
    let pairs = packed.zip(codes.chunks_exact_mut(2 * K_GROUP));
    pairs.for_each(|(bytes, codes)| split_nibbles(bytes, codes));
    codes
}

export_plugin!(Q4K);

#[cfg(test)]
mod tests {
    use plugin_api::testing::{golden, quantizer};

    use super::*;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/vectors.json"));

    #[test]
    fn passes_the_contract_suite() {
        quantizer::suite::<Q4K>(0.06);
    }

    #[test]
    fn reads_what_gguf_reads() {
        golden::check_quantizer(&Q4K, GOLDEN, "gguf_Q4_K", false);
    }

    #[test]
    fn reads_a_block_written_by_hand() {
        let mut block = [0; BLOCK_BYTES];
        block[..4].copy_from_slice(&[0x00, 0x40, 0x00, 0x3C]);
        (block[4], block[8]) = (3, 5); // group 0: scale 3, minimum 5
        (block[12], block[16]) = (0x21, 0x7F); // group 4: scale 1, minimum 2
        block[80] = 0x04; // the first byte of groups 4 and 5
        let x = quantizer::decoded(&Q4K, &block);
        for (i, expected) in [(0, 85.0), (1, -5.0), (32, 0.0), (128, 6.0), (129, -2.0), (160, 0.0)]
        {
            assert_eq!(x[i], expected, "element {i}");
        }
    }
    #[test]
    fn the_search_beats_the_plain_range() {
        // Blocks whose sub-blocks take 8-bit scales for granted: plain range, nothing else rounded.
        let mut random = plugin_api::testing::random::Random::new(9);
        let x: Vec<f32> =
            (0..64 * BLOCK_LEN).map(|_| (0..4).map(|_| random.signed()).sum::<f32>()).collect();
        let mut plain = 0.0;
        for x in x.chunks_exact(K_GROUP) {
            let least = x.iter().fold(0.0_f32, |least, x| least.min(*x));
            let most = x.iter().fold(least, |most, x| most.max(*x));
            let scale = (most - least) / 15.0;
            let back = x.iter().map(|x| ((x - least) / scale).round() * scale + least);
            plain += x.iter().zip(back).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
        }
        plain /= x.len() as f64;
        let found = quantizer::mean_square_error(&Q4K, &x);
        assert!(found < 0.95 * plain, "{found} against {plain}");
    }
}
