//! Blocks of 32 floats of 4 bits (E2M1) with a power of two as scale (E8M0).
//!
//! Source: OCP Microscaling Formats (MX) Specification v1.0; layout checked against `gguf` 0.19.0.

use kernels_reference::blocks::{join_nibbles, split_nibbles};
use plugin_api::prelude::*;

/// Reads and writes `MXFP4`: a scale, then 16 bytes of two codes each.
#[derive(Debug)]
pub struct Mxfp4 {
    rule: Rule,
}

const BLOCK_LEN: usize = 32;
const BLOCK_BYTES: usize = 17;

/// The values of the codes in halves, so that all are whole.
const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
/// What is added to a value to make it an unsigned code.
const ZERO_POINT: u8 = 12;

/// How encoding finds the exponent of a scale from the largest magnitude of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// That of the magnitude, less 2: the largest float is 6, and 4 to 8 become 4 to 6.
    Floor,
    /// The same after rounding the magnitude to the mantissa of an element: 7 to 8 stay nearer.
    Even,
    /// The least for which the magnitude is at most 6: nothing is cut.
    Ceil,
}

impl Rule {
    /// The byte of the scale: its unit is `2^(byte − 128)`, half of the standard's scale.
    fn scale(self, x: &[f32; BLOCK_LEN]) -> u8 {
        const MANTISSA_BITS: u32 = 23;
        const EXPONENT_OF_MAX: u32 = 2;
        const MAX: f32 = 6.0;
        let peak = x.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
        let rounded = match self {
            Self::Floor => peak.to_bits(),
            Self::Even => peak.to_bits() + (1 << (MANTISSA_BITS - 2)),
            Self::Ceil => {
                let least = (peak / MAX).to_bits();
                let exponent = least >> MANTISSA_BITS;
                // The smallest scale of all is the power of two in the middle of subnormal numbers.
                let power = if exponent == 0 {
                    1 << (MANTISSA_BITS - 1)
                } else {
                    exponent << MANTISSA_BITS
                };
                return (exponent + u32::from(least > power)) as u8;
            }
        };
        (rounded >> MANTISSA_BITS).saturating_sub(EXPONENT_OF_MAX) as u8
    }
}

impl Capability for Mxfp4 {
    const NAME: &'static str = "mxfp4";

    fn from_config(config: &Config) -> Result<Self> {
        let rule = match config.one_of("scale", &["floor", "even", "rceil"])? {
            "even" => Rule::Even,
            "rceil" => Rule::Ceil,
            _ => Rule::Floor,
        };
        Ok(Self { rule })
    }
}

impl Quantizer for Mxfp4 {
    fn format(&self) -> FormatDesc {
        FormatDesc {
            name: "MXFP4".into(),
            block_len: BLOCK_LEN,
            block_bytes: BLOCK_BYTES,
            semantic_id: SemanticId::new("MXFP4/1"),
        }
    }

    fn lowering(&self) -> Lowering {
        let (bits, zero_point) = (5, ZERO_POINT);
        Lowering::Affine { bits, group: BLOCK_LEN, zero_point, has_min: false, scales: Scales::F32 }
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        self.format().check(blocks.len(), out.len())?;
        let blocks = blocks.as_chunks::<BLOCK_BYTES>().0;
        for (block, out) in blocks.iter().zip(out.as_chunks_mut::<BLOCK_LEN>().0) {
            let unit = unit(block[0]);
            *out = values_of(block).map(|value| unit * f32::from(value));
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
            block[0] = self.rule.scale(x);
            let unit = unit(block[0]);
            join_nibbles(&x.map(|x| nearest(x / unit)), &mut block[1..]);
        }
        Ok(())
    }

    fn unpack(&self, blocks: &[u8], out: &mut AffineMut<'_>) -> Result<()> {
        out.check(&self.format(), &self.lowering(), blocks.len())?;
        let blocks = blocks.as_chunks::<BLOCK_BYTES>().0;
        let codes = out.codes.as_chunks_mut::<BLOCK_LEN>().0;
        for ((block, codes), scale) in blocks.iter().zip(codes).zip(&mut *out.scales) {
            *scale = unit(block[0]);
            *codes = values_of(block).map(|value| value.wrapping_add_unsigned(ZERO_POINT) as u8);
        }
        Ok(())
    }
}

/// `2^(scale − 128)`, subnormal for the first two.
fn unit(scale: u8) -> f32 {
    match scale {
        0 | 1 => f32::from_bits(0x0020_0000 << scale),
        _ => f32::from_bits(u32::from(scale - 1) << 23),
    }
}

/// The values of a block in units: low nibbles first, then the high ones.
fn values_of(block: &[u8; BLOCK_BYTES]) -> [i8; BLOCK_LEN] {
    let mut codes = [0; BLOCK_LEN];
    split_nibbles(&block[1..], &mut codes);
    codes.map(|code| VALUES[usize::from(code)])
}

/// The code of the value nearest to `x` units, the lower code where two are as near. Zero has no
/// sign, and what is not a number is zero.
fn nearest(x: f32) -> u8 {
    const MIDDLES: [f32; 7] = [0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0];
    let code = MIDDLES.iter().filter(|&&middle| x.abs() > middle).count() as u8;
    if x < 0.0 && code > 0 { code | 8 } else { code }
}

export_plugin!(Mxfp4);

#[cfg(test)]
mod tests {
    use plugin_api::testing::{golden, quantizer};

    use super::*;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/vectors.json"));

    fn with(scale: &str) -> Mxfp4 {
        Mxfp4::from_config(&Config::new().with("scale", scale)).unwrap()
    }

    #[test]
    fn passes_the_contract_suite() {
        // 7.99 of a scale becomes 6: a quarter of the peak.
        quantizer::suite::<Mxfp4>(0.126);
    }

    #[test]
    fn reads_and_writes_what_gguf_does() {
        golden::check_quantizer(&with("floor"), GOLDEN, "gguf_mxfp4", true);
    }

    #[test]
    fn scales_and_codes_are_those_of_torchao() {
        for rule in ["floor", "even", "rceil"] {
            let entry = &format!("mxfp4_{rule}");
            let x = golden::numbers(GOLDEN, entry, "x");
            let x: Vec<f32> = x.into_iter().map(|x| x as f32).collect();
            let scales = golden::numbers(GOLDEN, entry, "scale_e8m0");
            let theirs = golden::numbers(GOLDEN, entry, "packed_lo_first");
            let bytes = quantizer::encoded(&with(rule), &x);
            let blocks = bytes.as_chunks::<BLOCK_BYTES>().0;
            assert_eq!(blocks.len(), scales.len());
            for (i, (block, scale)) in blocks.iter().zip(scales).enumerate() {
                assert_eq!(f64::from(block[0]), scale, "{entry}: scale {i}");
                for (j, value) in values_of(block).into_iter().enumerate() {
                    let pair = theirs[i * BLOCK_LEN / 2 + j / 2] as u8;
                    let expected =
                        VALUES[usize::from(if j % 2 == 0 { pair & 15 } else { pair >> 4 })];
                    let exact = x[i * BLOCK_LEN + j] / unit(block[0]);
                    let is_tie = [1.5, 3.5, 7.0].contains(&exact.abs());
                    assert!(value == expected || is_tie, "{entry}: {exact} became {value}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_cut_with_the_scale_above() {
        let block = |peak: f32| std::array::from_fn(|i| if i == 7 { -peak } else { 0.0 });
        #[rustfmt::skip]
        let cases = [
            // peak, scale of the standard
            (6.0,            127),
            (6.1,            128),
            (3.0,            126),
            (f32::MAX,       253),
            (0.0,              0),
            // 6 · 2^−127 and a little more, whose scales are subnormal.
            (6.0 * f32::from_bits(0x0040_0000), 0),
            (6.5 * f32::from_bits(0x0040_0000), 1),
        ];
        for (peak, scale) in cases {
            assert_eq!(Rule::Ceil.scale(&block(peak)), scale, "{peak}");
        }
    }

    #[test]
    fn reads_a_block_written_by_hand() {
        let mut block = [0; BLOCK_BYTES];
        (block[0], block[1], block[16]) = (129, 0x7F, 0x80);
        let x = quantizer::decoded(&with("floor"), &block);
        for (i, expected) in [(0, -24.0), (16, 24.0), (1, 0.0), (15, 0.0), (31, 0.0)] {
            assert_eq!(x[i], expected, "element {i}");
        }
    }

    #[test]
    fn the_smallest_and_largest_scales_are_powers_of_two() {
        for (scale, expected) in [(0, -128), (1, -127), (2, -126), (128, 0), (255, 127)] {
            assert_eq!(f64::from(unit(scale)), 2.0_f64.powi(expected), "{scale}");
        }
    }

    #[test]
    fn an_unknown_rule_is_an_error() {
        let error = Mxfp4::from_config(&Config::new().with("scale", "ceil")).unwrap_err();
        assert!(error.to_string().contains("scale"), "{error}");
    }
}
