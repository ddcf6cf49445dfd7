//! Single precision, stored as it is.
//!
//! Source: IEEE 754-2019, binary32.

use plugin_api::prelude::*;

/// Reads and writes `F32`.
#[derive(Debug)]
pub struct F32;

const BYTES: usize = 4;

impl Capability for F32 {
    const NAME: &'static str = "f32";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Quantizer for F32 {
    fn format(&self) -> FormatDesc {
        let semantic_id = SemanticId::new("F32/1");
        FormatDesc { name: "F32".into(), block_len: 1, block_bytes: BYTES, semantic_id }
    }

    fn lowering(&self) -> Lowering {
        Lowering::MiniFloat { exponent: 8, mantissa: 23 }
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        self.format().check(blocks.len(), out.len())?;
        for (bytes, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out) {
            *out = f32::from_le_bytes(*bytes);
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
            *bytes = x.to_le_bytes();
        }
        Ok(())
    }
}

export_plugin!(F32);

#[cfg(test)]
mod tests {
    use plugin_api::testing::quantizer::{self, decoded, encoded};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        quantizer::suite::<F32>(0.0);
    }

    #[test]
    fn rounds_to_the_nearest_number_that_it_has() {
        #[rustfmt::skip]
        let cases: [(f32, [u8; BYTES], f32); 4] = [
            // number, bytes, number that comes back
            (1.0, [0, 0, 128, 63], 1.0),
            (-2.5, [0, 0, 32, 192], -2.5),
            (0.1, [205, 204, 204, 61], 0.1),
            (-0.0, [0, 0, 0, 128], -0.0),
        ];
        for (x, bytes, back) in cases {
            assert_eq!(encoded(&F32, &[x]), bytes, "{x}");
            assert_eq!(decoded(&F32, &bytes)[0].to_bits(), back.to_bits(), "{x}");
        }
    }
}
