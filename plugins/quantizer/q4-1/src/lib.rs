//! Blocks of 32 codes of 4 bits with a scale and a minimum.
//!
//! Source: `ggml-quants.c` of llama.cpp; layout checked against `gguf` 0.19.0.

use kernels_reference::blocks::{f16_at, f16_bytes, inverse, join_nibbles, range, split_nibbles};
use plugin_api::prelude::*;

/// Reads and writes `Q4_1`: a scale, a minimum, then 16 bytes of two codes each.
#[derive(Debug)]
pub struct Q4One;

const BLOCK_LEN: usize = 32;
const BLOCK_BYTES: usize = 20;

impl Capability for Q4One {
    const NAME: &'static str = "q4-1";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Quantizer for Q4One {
    fn format(&self) -> FormatDesc {
        FormatDesc {
            name: "Q4_1".into(),
            block_len: BLOCK_LEN,
            block_bytes: BLOCK_BYTES,
            semantic_id: SemanticId::new("Q4_1/1"),
        }
    }

    fn lowering(&self) -> Lowering {
        Lowering::Affine { bits: 4, group: 32, zero_point: 0, has_min: true, scales: Scales::F16 }
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        self.format().check(blocks.len(), out.len())?;
        let blocks = blocks.as_chunks::<BLOCK_BYTES>().0;
        for (block, out) in blocks.iter().zip(out.as_chunks_mut::<BLOCK_LEN>().0) {
            let (scale, min) = (f16_at(block, 0), f16_at(block, 2));
            for (out, code) in out.iter_mut().zip(codes_of(block)) {
                *out = scale * f32::from(code) + min;
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
            let (least, most) = range(x);
            let scale = (most - least) / 15.0;
            let by = inverse(scale);
            let codes = x.map(|x| (((x - least) * by + 0.5) as u8).min(15));
            write(block, [scale, least], &codes);
        }
        Ok(())
    }

    fn unpack(&self, blocks: &[u8], out: &mut AffineMut<'_>) -> Result<()> {
        out.check(&self.format(), &self.lowering(), blocks.len())?;
        let blocks = blocks.as_chunks::<BLOCK_BYTES>().0;
        let codes = out.codes.as_chunks_mut::<BLOCK_LEN>().0;
        let groups = out.scales.iter_mut().zip(&mut *out.mins);
        for ((block, codes), (scale, min)) in blocks.iter().zip(codes).zip(groups) {
            (*scale, *min, *codes) = (f16_at(block, 0), f16_at(block, 2), codes_of(block));
        }
        Ok(())
    }

    fn pack(&self, parts: &Affine<'_>, out: &mut [u8]) -> Result<()> {
        parts.check(&self.format(), &self.lowering(), out.len())?;
        let blocks = out.as_chunks_mut::<BLOCK_BYTES>().0.iter_mut();
        let codes = parts.codes.as_chunks::<BLOCK_LEN>().0.iter();
        for ((block, codes), (scale, min)) in
            blocks.zip(codes).zip(parts.scales.iter().zip(parts.mins))
        {
            write(block, [*scale, *min], codes);
        }
        Ok(())
    }
}

/// Writes a block from its scale and minimum, and its codes.
fn write(block: &mut [u8; BLOCK_BYTES], [scale, min]: [f32; 2], codes: &[u8; BLOCK_LEN]) {
    block[..2].copy_from_slice(&f16_bytes(scale));
    block[2..4].copy_from_slice(&f16_bytes(min));
    join_nibbles(codes, &mut block[4..]);
}

/// The codes of a block: low nibbles first, then the high ones.
fn codes_of(block: &[u8; BLOCK_BYTES]) -> [u8; BLOCK_LEN] {
    let mut codes = [0; BLOCK_LEN];
    split_nibbles(&block[4..], &mut codes);
    codes
}

export_plugin!(Q4One);

#[cfg(test)]
mod tests {
    use plugin_api::testing::{golden, quantizer};

    use super::*;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/vectors.json"));

    #[test]
    fn passes_the_contract_suite() {
        quantizer::suite::<Q4One>(0.0345);
    }

    #[test]
    fn reads_and_writes_what_gguf_does() {
        golden::check_quantizer(&Q4One, GOLDEN, "gguf_Q4_1", true);
    }

    #[test]
    fn reads_a_block_written_by_hand() {
        let mut block = [0; BLOCK_BYTES];
        block[..4].copy_from_slice(&[0x00, 0x40, 0x00, 0x3C]);
        (block[4], block[19]) = (0x1F, 0x80);
        let x = quantizer::decoded(&Q4One, &block);
        for (i, expected) in [(0, 31.0), (16, 3.0), (1, 1.0), (15, 1.0), (31, 17.0)] {
            assert_eq!(x[i], expected, "element {i}");
        }
    }
}
