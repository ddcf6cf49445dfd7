//! Blocks of 32 codes of 4 bits with one scale.
//!
//! Source: `ggml-quants.c` of llama.cpp; layout checked against `gguf` 0.19.0.

use kernels_reference::blocks::{
    f16_at, f16_bytes, inverse, join_nibbles, signed_peak, split_nibbles,
};
use plugin_api::prelude::*;

/// Reads and writes `Q4_0`: a scale, then 16 bytes of two codes each.
#[derive(Debug)]
pub struct Q4Zero;

const BLOCK_LEN: usize = 32;
const BLOCK_BYTES: usize = 18;

impl Capability for Q4Zero {
    const NAME: &'static str = "q4-0";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Quantizer for Q4Zero {
    fn format(&self) -> FormatDesc {
        FormatDesc {
            name: "Q4_0".into(),
            block_len: BLOCK_LEN,
            block_bytes: BLOCK_BYTES,
            semantic_id: SemanticId::new("Q4_0/1"),
        }
    }

    fn lowering(&self) -> Lowering {
        Lowering::Affine { bits: 4, group: 32, zero_point: 8, has_min: false, scales: Scales::F16 }
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        self.format().check(blocks.len(), out.len())?;
        let blocks = blocks.as_chunks::<BLOCK_BYTES>().0;
        for (block, out) in blocks.iter().zip(out.as_chunks_mut::<BLOCK_LEN>().0) {
            let (scale, codes) = (f16_at(block, 0), codes_of(block));
            for (out, code) in out.iter_mut().zip(codes) {
                *out = scale * (f32::from(code) - 8.0);
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
            // The element of the largest magnitude takes the code 0, whatever its sign.
            let scale = signed_peak(x) / -8.0;
            let by = inverse(scale);
            let codes = x.map(|x| ((x * by + 8.5) as u8).min(15));
            write(block, scale, &codes);
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
            write(block, *scale, codes);
        }
        Ok(())
    }
}

/// Writes a block from its scale and its codes.
fn write(block: &mut [u8; BLOCK_BYTES], scale: f32, codes: &[u8; BLOCK_LEN]) {
    block[..2].copy_from_slice(&f16_bytes(scale));
    join_nibbles(codes, &mut block[2..]);
}

/// The codes of a block: low nibbles first, then the high ones.
fn codes_of(block: &[u8; BLOCK_BYTES]) -> [u8; BLOCK_LEN] {
    let mut codes = [0; BLOCK_LEN];
    split_nibbles(&block[2..], &mut codes);
    codes
}

export_plugin!(Q4Zero);

#[cfg(test)]
mod tests {
    use plugin_api::testing::{golden, quantizer};

    use super::*;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/vectors.json"));

    #[test]
    fn passes_the_contract_suite() {
        quantizer::suite::<Q4Zero>(0.0626);
    }

    #[test]
    fn reads_and_writes_what_gguf_does() {
        golden::check_quantizer(&Q4Zero, GOLDEN, "gguf_Q4_0", true);
    }

    #[test]
    fn reads_a_block_written_by_hand() {
        let mut block = [0; BLOCK_BYTES];
        block[..2].copy_from_slice(&[0x00, 0x40]);
        (block[2], block[17]) = (0x1F, 0x80);
        let x = quantizer::decoded(&Q4Zero, &block);
        for (i, expected) in [(0, 14.0), (16, -14.0), (1, -16.0), (15, -16.0), (31, 0.0)] {
            assert_eq!(x[i], expected, "element {i}");
        }
    }
}
