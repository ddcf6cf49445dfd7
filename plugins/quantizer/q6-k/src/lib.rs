//! Blocks of 256 codes of 6 bits, in 16 groups with a scale.
//!
//! Source: `ggml-quants.c` of llama.cpp; layout checked against `gguf` 0.19.0.

use kernels_reference::blocks::{
    f16_at, f16_bytes, inverse, nearest, search_symmetric, signed_peak,
};
use plugin_api::prelude::*;

/// Reads and writes `Q6_K`: nibbles, upper bits, 16 signed scales, then the scale of the block.
#[derive(Debug)]
pub struct Q6K;

const BLOCK_LEN: usize = 256;
const BLOCK_BYTES: usize = 210;

impl Capability for Q6K {
    const NAME: &'static str = "q6-k";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Quantizer for Q6K {
    fn format(&self) -> FormatDesc {
        FormatDesc {
            name: "Q6_K".into(),
            block_len: BLOCK_LEN,
            block_bytes: BLOCK_BYTES,
            semantic_id: SemanticId::new("Q6_K/1"),
        }
    }

    fn lowering(&self) -> Lowering {
        let scales = Scales::Product { groups: GROUPS };
        Lowering::Affine { bits: 6, group: 16, zero_point: 32, has_min: false, scales }
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        self.format().check(blocks.len(), out.len())?;
        let blocks = blocks.as_chunks::<BLOCK_BYTES>().0;
        for (block, out) in blocks.iter().zip(out.as_chunks_mut::<BLOCK_LEN>().0) {
            let (scales, codes) = (scales_of(block), codes_of(block));
            let groups = out.chunks_exact_mut(GROUP).zip(codes.chunks_exact(GROUP));
            for ((out, codes), scale) in groups.zip(scales) {
                for (out, &code) in out.iter_mut().zip(codes) {
                    *out = scale * (f32::from(code) - 32.0);
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
                None => &[1.0; BLOCK_LEN],
            };
            write_scales(x, importance, block);
            write_codes(x, block);
        }
        Ok(())
    }

    fn unpack(&self, blocks: &[u8], out: &mut AffineMut<'_>) -> Result<()> {
        out.check(&self.format(), &self.lowering(), blocks.len())?;
        let blocks = blocks.as_chunks::<BLOCK_BYTES>().0;
        let codes = out.codes.as_chunks_mut::<BLOCK_LEN>().0;
        for (i, (block, codes)) in blocks.iter().zip(codes).enumerate() {
            *codes = codes_of(block);
            out.scales[i * GROUPS..][..GROUPS].copy_from_slice(&scales_of(block));
        }
        Ok(())
    }
}

const GROUP: usize = 16;
const GROUPS: usize = BLOCK_LEN / GROUP;
/// Bytes 0–127 are the low nibbles, 128–191 the upper bits, 192–207 the scales.
const UPPER: usize = 128;
const SCALES: usize = 192;
const D: usize = 208;

/// The scale of each group.
fn scales_of(block: &[u8; BLOCK_BYTES]) -> [f32; GROUPS] {
    let d = f16_at(block, D);
    std::array::from_fn(|j| d * f32::from(i8::from_le_bytes([block[SCALES + j]])))
}

/// The codes of a block, as unsigned numbers around 32.
fn codes_of(block: &[u8; BLOCK_BYTES]) -> [u8; BLOCK_LEN] {
    let mut codes = [0; BLOCK_LEN];
    for (half, codes) in codes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let (nibbles, upper) = (&block[64 * half..][..64], &block[UPPER + 32 * half..][..32]);
        for l in 0..32 {
            let (a, b, bits) = (nibbles[l], nibbles[32 + l], upper[l]);
            codes[l] = a & 15 | (bits & 3) << 4;
            codes[32 + l] = b & 15 | (bits >> 2 & 3) << 4;
            codes[64 + l] = a >> 4 | (bits >> 4 & 3) << 4;
            codes[96 + l] = b >> 4 | bits >> 6 << 4;
        }
    }
    codes
}

fn write_codes(x: &[f32; BLOCK_LEN], block: &mut [u8; BLOCK_BYTES]) {
    let scales = scales_of(block).map(inverse);
    let codes: [u8; BLOCK_LEN] =
        std::array::from_fn(|i| nearest(x[i] * scales[i / GROUP] + 32.0, 63));
    for (half, codes) in codes.as_chunks::<128>().0.iter().enumerate() {
        for l in 0..32 {
            let [a, b, c, d] = [codes[l], codes[32 + l], codes[64 + l], codes[96 + l]];
            block[64 * half + l] = a & 15 | c << 4;
            block[64 * half + 32 + l] = b & 15 | d << 4;
            block[UPPER + 32 * half + l] = a >> 4 | b >> 4 << 2 | c >> 4 << 4 | d >> 4 << 6;
        }
    }
}

fn write_scales(x: &[f32; BLOCK_LEN], importance: &[f32], block: &mut [u8; BLOCK_BYTES]) {
    let mut scales = [0.0; GROUPS];
    for (j, (scale, x)) in scales.iter_mut().zip(x.chunks_exact(GROUP)).enumerate() {
        let importance = &importance[j * GROUP..][..GROUP];
        let weights: [f32; GROUP] = std::array::from_fn(|i| importance[i] * x[i] * x[i]);
        *scale = search_symmetric(x, &weights, 32);
    }
    let d = signed_peak(&scales) / -128.0;
    let by = inverse(d);
    block[D..].copy_from_slice(&f16_bytes(d));
    for (byte, scale) in block[SCALES..D].iter_mut().zip(scales) {
        *byte = ((scale * by).round_ties_even().min(127.0) as i8).to_le_bytes()[0];
    }
}

export_plugin!(Q6K);

#[cfg(test)]
mod tests {
    use plugin_api::testing::{golden, quantizer};

    use super::*;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/vectors.json"));

    #[test]
    fn passes_the_contract_suite() {
        quantizer::suite::<Q6K>(0.02);
    }

    #[test]
    fn reads_what_gguf_reads() {
        golden::check_quantizer(&Q6K, GOLDEN, "gguf_Q6_K", false);
    }

    #[test]
    fn reads_a_block_written_by_hand() {
        let mut block = [0; BLOCK_BYTES];
        block[208..].copy_from_slice(&[0x00, 0x40]); // d = 2
        (block[192], block[193], block[200]) = (3, 0xFF, 2); // groups 0, 1, 8
        (block[0], block[64 + 5]) = (0x0F, 0x01); // low nibbles of codes 0 and 133
        (block[128], block[160 + 5]) = (0x03, 0x02); // their upper bits
        let x = quantizer::decoded(&Q6K, &block);
        for (i, expected) in
            [(0, 186.0), (1, -192.0), (16, 64.0), (32, 0.0), (133, 4.0), (128, -128.0)]
        {
            assert_eq!(x[i], expected, "element {i}");
        }
    }

    #[test]
    fn the_search_beats_the_plain_peak() {
        let mut random = plugin_api::testing::random::Random::new(9);
        let x: Vec<f32> =
            (0..64 * BLOCK_LEN).map(|_| (0..4).map(|_| random.signed()).sum::<f32>()).collect();
        let mut plain = 0.0;
        for x in x.chunks_exact(GROUP) {
            let scale = signed_peak(x) / -32.0;
            let back = x.iter().map(|x| (x / scale).round().clamp(-32.0, 31.0) * scale);
            plain += x.iter().zip(back).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
        }
        plain /= x.len() as f64;
        let found = quantizer::mean_square_error(&Q6K, &x);
        assert!(found < 1.0 * plain, "{found} against {plain}");
    }
}
