//! The upper half of single precision.
//!
//! Source: Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", arXiv:1905.12322.

use kernels_reference::blocks::{bf16_at, bf16_bytes};
use plugin_api::prelude::*;

/// Reads and writes `BF16`.
#[derive(Debug)]
pub struct Bf16;

const BYTES: usize = 2;

impl Capability for Bf16 {
    const NAME: &'static str = "bf16";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Quantizer for Bf16 {
    fn format(&self) -> FormatDesc {
        let semantic_id = SemanticId::new("BF16/1");
        FormatDesc { name: "BF16".into(), block_len: 1, block_bytes: BYTES, semantic_id }
    }

    fn lowering(&self) -> Lowering {
        Lowering::MiniFloat { exponent: 8, mantissa: 7 }
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        self.format().check(blocks.len(), out.len())?;
        for (bytes, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out) {
            *out = bf16_at(bytes, 0);
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
        for (x, bytes) in rows.iter().zip(out.as_chunks_mut::<BYTES>().0) {
            *bytes = bf16_bytes(*x);
        }
        Ok(())
    }
}

export_plugin!(Bf16);

#[cfg(test)]
mod tests {
    use plugin_api::testing::quantizer::{self, decoded, encoded};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        quantizer::suite::<Bf16>(2e-3);
    }

    #[test]
    fn rounds_to_the_nearest_number_that_it_has() {
        #[rustfmt::skip]
        let cases: [(f32, [u8; BYTES], f32); 5] = [
            // number, bytes, number that comes back
            (1.0, [128, 63], 1.0),
            (-2.5, [32, 192], -2.5),
            (0.1, [205, 61], 0.100_097_656),
            (1.003_906_3, [128, 63], 1.0),
            (1.011_718_8, [130, 63], 1.015_625),
        ];
        for (x, bytes, back) in cases {
            assert_eq!(encoded(&Bf16, &[x]), bytes, "{x}");
            assert_eq!(decoded(&Bf16, &bytes)[0].to_bits(), back.to_bits(), "{x}");
        }
    }
}
