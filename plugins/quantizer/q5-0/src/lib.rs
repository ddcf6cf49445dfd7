//! Blocks of 32 codes of 5 bits with one scale.
//!
//! Source: `ggml-quants.c` of llama.cpp; layout checked against `gguf` 0.19.0.

use kernels_reference::blocks::{
    add_fifth_bits, f16_at, f16_bytes, fifth_bits, inverse, join_nibbles, signed_peak,
    split_nibbles,
};
use plugin_api::prelude::*;

/// Reads and writes `Q5_0`: a scale, the fifth bits, then 16 bytes of two codes each.
#[derive(Debug)]
pub struct Q5Zero;

const BLOCK_LEN: usize = 32;
const BLOCK_BYTES: usize = 22;

impl Capability for Q5Zero {
    const NAME: &'static str = "q5-0";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Quantizer for Q5Zero {
    fn format(&self) -> FormatDesc {
        FormatDesc {
            name: "Q5_0".into(),
            block_len: BLOCK_LEN,
            block_bytes: BLOCK_BYTES,
            semantic_id: SemanticId::new("Q5_0/1"),
        }
    }

    fn lowering(&self) -> Lowering {
        Lowering::Affine { bits: 5, group: 32, zero_point: 16, has_min: false, scales: Scales::F16 }
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        self.format().check(blocks.len(), out.len())?;
        let blocks = blocks.as_chunks::<BLOCK_BYTES>().0;
        for (block, out) in blocks.iter().zip(out.as_chunks_mut::<BLOCK_LEN>().0) {
            let (scale, codes) = (f16_at(block, 0), codes_of(block));
            for (out, code) in out.iter_mut().zip(codes) {
                *out = scale * (f32::from(code) - 16.0);
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
            let scale = signed_peak(x) / -16.0;
            let by = inverse(scale);
            let codes = x.map(|x| ((x * by + 16.5) as u8).min(31));
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
    block[2..6].copy_from_slice(&fifth_bits(codes));
    join_nibbles(codes, &mut block[6..]);
}

/// The codes of a block: low nibbles first, then the high ones.
fn codes_of(block: &[u8; BLOCK_BYTES]) -> [u8; BLOCK_LEN] {
    let mut codes = [0; BLOCK_LEN];
    split_nibbles(&block[6..], &mut codes);
    add_fifth_bits([block[2], block[3], block[4], block[5]], &mut codes);
    codes
}

export_plugin!(Q5Zero);

#[cfg(test)]
mod tests {
    use plugin_api::testing::{golden, quantizer};

    use super::*;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/vectors.json"));

    #[test]
    fn passes_the_contract_suite() {
        quantizer::suite::<Q5Zero>(0.0314);
    }

    #[test]
    fn reads_and_writes_what_gguf_does() {
        golden::check_quantizer(&Q5Zero, GOLDEN, "gguf_Q5_0", true);
    }

    #[test]
    fn reads_a_block_written_by_hand() {
        let mut block = [0; BLOCK_BYTES];
        block[..2].copy_from_slice(&[0x00, 0x40]);
        (block[5], block[6], block[21]) = (0x80, 0x1F, 0x80); // bit 31 is set
        let x = quantizer::decoded(&Q5Zero, &block);
        for (i, expected) in [(0, -2.0), (16, -30.0), (1, -32.0), (31, 16.0)] {
            assert_eq!(x[i], expected, "element {i}");
        }
    }
}
