//! Half precision.
//!
//! Source: IEEE 754-2019, binary16.

use kernels_reference::blocks::{f16_at, f16_bytes};
use plugin_api::prelude::*;

/// Reads and writes `F16`.
#[derive(Debug)]
pub struct F16;

const BYTES: usize = 2;

impl Capability for F16 {
    const NAME: &'static str = "f16";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Quantizer for F16 {
    fn format(&self) -> FormatDesc {
        let semantic_id = SemanticId::new("F16/1");
        FormatDesc { name: "F16".into(), block_len: 1, block_bytes: BYTES, semantic_id }
    }

    fn lowering(&self) -> Lowering {
        Lowering::MiniFloat { exponent: 5, mantissa: 10 }
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        self.format().check(blocks.len(), out.len())?;
        for (bytes, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out) {
            *out = f16_at(bytes, 0);
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
            *bytes = f16_bytes(*x);
        }
        Ok(())
    }
}

export_plugin!(F16);

#[cfg(test)]
mod tests {
    use plugin_api::testing::quantizer::{self, decoded, encoded};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        quantizer::suite::<F16>(3e-4);
    }

    #[test]
    fn rounds_to_the_nearest_number_that_it_has() {
        #[rustfmt::skip]
        let cases: [(f32, [u8; BYTES], f32); 6] = [
            // number, bytes, number that comes back
            (1.0, [0, 60], 1.0),
            (-2.5, [0, 193], -2.5),
            (0.1, [102, 46], 0.099_975_586),
            (65_519.0, [255, 123], 65_504.0),
            (65_520.0, [0, 124], f32::INFINITY),
            (1e-8, [0, 0], 0.0),
        ];
        for (x, bytes, back) in cases {
            assert_eq!(encoded(&F16, &[x]), bytes, "{x}");
            assert_eq!(decoded(&F16, &bytes)[0].to_bits(), back.to_bits(), "{x}");
        }
    }
}
