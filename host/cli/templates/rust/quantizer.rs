//! My plugin: blocks of 32 signed bytes that share one scale in `f32`.
//!
//! Source: Dettmers et al., "8-bit Optimizers via Block-wise Quantization", arXiv:2110.02861,
//! section 2.1, with linear codes.

use plugin_api::prelude::*;

/// Reads and writes `MY_PLUGIN`: a scale, then 32 codes.
#[derive(Debug)]
pub struct MyPlugin;

const BLOCK_LEN: usize = 32;
const BLOCK_BYTES: usize = 4 + BLOCK_LEN;

impl Capability for MyPlugin {
    const NAME: &'static str = "my-plugin";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Quantizer for MyPlugin {
    fn format(&self) -> FormatDesc {
        FormatDesc {
            name: "MY_PLUGIN".into(), // as model files spell it
            block_len: BLOCK_LEN,
            block_bytes: BLOCK_BYTES,
            semantic_id: SemanticId::new("MY_PLUGIN/1"),
        }
    }

    fn lowering(&self) -> Lowering {
        let (zero_point, scales) = (128, Scales::F32);
        Lowering::Affine { bits: 8, group: BLOCK_LEN, zero_point, has_min: false, scales }
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        self.format().check(blocks.len(), out.len())?;
        let blocks = blocks.as_chunks::<BLOCK_BYTES>().0;
        for (block, out) in blocks.iter().zip(out.as_chunks_mut::<BLOCK_LEN>().0) {
            for (out, code) in out.iter_mut().zip(codes_of(block)) {
                *out = scale_of(block) * (f32::from(code) - 128.0);
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
            let peak = x.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
            let scale = if peak.is_finite() { peak / 127.0 } else { 0.0 };
            block[..4].copy_from_slice(&scale.to_le_bytes());
            for (x, byte) in x.iter().zip(&mut block[4..]) {
                // A cast saturates, and turns what is no number into 0.
                let code = if scale > 0.0 { (x / scale).round() as i8 } else { 0 };
                *byte = code as u8;
            }
        }
        Ok(())
    }

    fn unpack(&self, blocks: &[u8], out: &mut AffineMut<'_>) -> Result<()> {
        out.check(&self.format(), &self.lowering(), blocks.len())?;
        let blocks = blocks.as_chunks::<BLOCK_BYTES>().0;
        let codes = out.codes.as_chunks_mut::<BLOCK_LEN>().0;
        for ((block, codes), scale) in blocks.iter().zip(codes).zip(&mut *out.scales) {
            (*scale, *codes) = (scale_of(block), codes_of(block));
        }
        Ok(())
    }
}

fn scale_of(block: &[u8; BLOCK_BYTES]) -> f32 {
    f32::from_le_bytes([block[0], block[1], block[2], block[3]])
}

/// The codes of a block, as unsigned numbers around 128.
fn codes_of(block: &[u8; BLOCK_BYTES]) -> [u8; BLOCK_LEN] {
    std::array::from_fn(|i| block[4 + i] ^ 0x80)
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::quantizer;

    #[test]
    fn passes_the_contract_suite() {
        // An element comes back within half a step of 1/127 of its block's peak.
        quantizer::suite::<MyPlugin>(0.0021);
    }

    #[test]
    fn keeps_the_peak_of_a_block() {
        let mut x = [0.0; BLOCK_LEN];
        (x[0], x[31]) = (-2.0, 1.0);
        let back = quantizer::decoded(&MyPlugin, &quantizer::encoded(&MyPlugin, &x));
        assert_eq!(back[0], -2.0);
        assert!((back[31] - 1.0).abs() < 0.01, "{}", back[31]);
    }
}
