//! Blocks of 32 codes of 8 bits with one scale.
//!
//! Source: `ggml-quants.c` of llama.cpp; layout checked against `gguf` 0.19.0.

use kernels_reference::blocks::{f16_at, f16_bytes, inverse, signed_peak};
use plugin_api::prelude::*;

/// Reads and writes `Q8_0`: a scale, then 32 signed bytes.
#[derive(Debug)]
pub struct Q8Zero;

const BLOCK_LEN: usize = 32;
const BLOCK_BYTES: usize = 34;

impl Capability for Q8Zero {
    const NAME: &'static str = "q8-0";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Quantizer for Q8Zero {
    fn format(&self) -> FormatDesc {
        FormatDesc {
            name: "Q8_0".into(),
            block_len: BLOCK_LEN,
            block_bytes: BLOCK_BYTES,
            semantic_id: SemanticId::new("Q8_0/1"),
        }
    }

    fn lowering(&self) -> Lowering {
        Lowering::Affine {
            bits: 8,
            group: 32,
            zero_point: 128,
            has_min: false,
            scales: Scales::F16,
        }
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        self.format().check(blocks.len(), out.len())?;
        let blocks = blocks.as_chunks::<BLOCK_BYTES>().0;
        for (block, out) in blocks.iter().zip(out.as_chunks_mut::<BLOCK_LEN>().0) {
            let (scale, codes) = (f16_at(block, 0), codes_of(block));
            for (out, code) in out.iter_mut().zip(codes) {
                *out = scale * (f32::from(code) - 128.0);
            }
        }
        Ok(())
    }

    fn encode(
        &self,
        rows: &[f32],
        _calibration: Option<&Calibration<'_>>,
        out: &mut [u8],
    ) -> Result<()> {
        self.format().check(out.len(), rows.len())?;
        let blocks = out.as_chunks_mut::<BLOCK_BYTES>().0;
        for (x, block) in rows.as_chunks::<BLOCK_LEN>().0.iter().zip(blocks) {
            let scale = signed_peak(x).abs() / 127.0;
            let by = inverse(scale);
            block[..2].copy_from_slice(&f16_bytes(scale));
            for (x, byte) in x.iter().zip(&mut block[2..]) {
                *byte = ((x * by).round() as i8).to_le_bytes()[0];
            }
        }
        Ok(())
    }

    fn unpack(&self, blocks: &[u8], out: &mut AffineMut<'_>) -> Result<()> {
        out.check(&self.format(), &self.lowering(), blocks.len())?;
        let blocks = blocks.as_chunks::<BLOCK_BYTES>().0;
        let codes = out.codes.as_chunks_mut::<BLOCK_LEN>().0;
        for ((block, codes), scale) in blocks.iter().zip(codes).zip(&mut *out.scales) {
            (*scale, *codes) = (f16_at(block, 0), codes_of(block));
        }
        Ok(())
    }

    fn pack(&self, parts: &Affine<'_>, out: &mut [u8]) -> Result<()> {
        parts.check(&self.format(), &self.lowering(), out.len())?;
        let blocks = out.as_chunks_mut::<BLOCK_BYTES>().0.iter_mut();
        let groups = parts.codes.as_chunks::<BLOCK_LEN>().0.iter().zip(parts.scales);
        for (block, (codes, scale)) in blocks.zip(groups) {
            block[..2].copy_from_slice(&f16_bytes(*scale));
            for (byte, code) in block[2..].iter_mut().zip(codes) {
                *byte = code ^ 0x80;
            }
        }
        Ok(())
    }
}

/// The codes of a block, as unsigned numbers around 128.
fn codes_of(block: &[u8; BLOCK_BYTES]) -> [u8; BLOCK_LEN] {
    std::array::from_fn(|i| block[2 + i] ^ 0x80)
}

export_plugin!(Q8Zero);

#[cfg(test)]
mod tests {
    use plugin_api::testing::{golden, quantizer};

    use super::*;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/vectors.json"));

    #[test]
    fn passes_the_contract_suite() {
        quantizer::suite::<Q8Zero>(0.0021);
    }

    #[test]
    fn reads_and_writes_what_gguf_does() {
        golden::check_quantizer(&Q8Zero, GOLDEN, "gguf_Q8_0", true);
    }

    #[test]
    fn reads_a_block_written_by_hand() {
        let mut block = [0; BLOCK_BYTES];
        block[..2].copy_from_slice(&[0x00, 0x40]);
        (block[2], block[3], block[33]) = (127, 0x80, 0xFF);
        let x = quantizer::decoded(&Q8Zero, &block);
        for (i, expected) in [(0, 254.0), (1, -256.0), (2, 0.0), (31, -2.0)] {
            assert_eq!(x[i], expected, "element {i}");
        }
    }
}
