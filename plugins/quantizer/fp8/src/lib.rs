//! Floats of 8 bits, E4M3 or E5M2, with a scale for each block.
//!
//! Source: Micikevicius et al., "FP8 Formats for Deep Learning", arXiv:2209.05433; numbers and rounding checked against
//! `ml_dtypes` 0.6.0.

mod minifloat;

use minifloat::MiniFloat;
use plugin_api::prelude::*;

/// Reads and writes `FP8_E4M3_B128` and the like: a scale in `f32`, then a byte for each number.
#[derive(Debug)]
pub struct Fp8 {
    float: MiniFloat,
    name: &'static str,
    block: usize,
    rule: Rule,
    /// Scales are powers of two, by which nothing is rounded.
    is_log2: bool,
}

/// What the largest number of a block is taken to be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    /// What it is.
    Dynamic,
    /// This, whatever the block holds; what is larger becomes the largest float.
    Static(f32),
    /// No less than it is, and falling towards that from block to block of one call by this factor.
    Ema(f32),
}

const SCALE_BYTES: usize = 4;

impl Capability for Fp8 {
    const NAME: &'static str = "fp8";

    fn from_config(config: &Config) -> Result<Self> {
        let (float, name) = match config.one_of("format", &["e4m3", "e5m2"])? {
            "e5m2" => (MiniFloat::E5M2, "E5M2"),
            _ => (MiniFloat::E4M3, "E4M3"),
        };
        let rule = match config.one_of("scale", &["dynamic", "static", "ema"])? {
            "static" => Rule::Static(config.number("amax", 1e-6..=1e6)? as f32),
            "ema" => Rule::Ema(config.number_or("beta", 0.9, 0.0..=0.9999)? as f32),
            _ => Rule::Dynamic,
        };
        let block = config.count_or("block", 128, 16..=65536)? as usize;
        let is_log2 = config.flag_or("log2", false)?;
        Ok(Self { float, name, block, rule, is_log2 })
    }
}

impl Fp8 {
    /// What decoded numbers are multiplied with, so that the largest of a block becomes the largest float.
    fn scale(&self, amax: f32) -> f32 {
        let scale = amax / self.float.max();
        if !(scale.is_normal() && scale > 0.0) {
            return 1.0; // of nothing, or of what is not finite
        }
        if !self.is_log2 {
            return scale;
        }
        // Up to the next power of two: nothing becomes larger than the largest float.
        let (mantissa, exponent) = (scale.to_bits() & 0x7F_FFFF, scale.to_bits() & 0x7F80_0000);
        let up = if mantissa == 0 { exponent } else { exponent + 0x80_0000 };
        f32::from_bits(up.min(0x7F00_0000))
    }
}

impl Quantizer for Fp8 {
    fn format(&self) -> FormatDesc {
        let name = format!("FP8_{}_B{}", self.name, self.block);
        FormatDesc {
            semantic_id: SemanticId::new(format!("{name}/1")),
            name: name.into(),
            block_len: self.block,
            block_bytes: SCALE_BYTES + self.block,
        }
    }

    fn lowering(&self) -> Lowering {
        let table = (0..=u8::MAX).map(|code| self.float.decode(code)).collect();
        Lowering::Table { bits: 8, table, group: self.block }
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        self.format().check(blocks.len(), out.len())?;
        let table: Vec<f32> = (0..=u8::MAX).map(|code| self.float.decode(code)).collect();
        let blocks = blocks.chunks_exact(SCALE_BYTES + self.block);
        for (block, out) in blocks.zip(out.chunks_exact_mut(self.block)) {
            let (scale, codes) = block.split_at(SCALE_BYTES);
            let scale = f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]);
            for (out, code) in out.iter_mut().zip(codes) {
                *out = scale * table[usize::from(*code)];
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
        let mut smooth = 0.0_f32;
        let blocks = out.chunks_exact_mut(SCALE_BYTES + self.block);
        for (x, block) in rows.chunks_exact(self.block).zip(blocks) {
            let own = x.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
            let amax = match self.rule {
                Rule::Dynamic => own,
                Rule::Static(amax) => amax,
                Rule::Ema(beta) => {
                    // Of the magnitude, not of the scale: the mean of inverses would be too large.
                    smooth = own.max(beta * smooth + (1.0 - beta) * own);
                    smooth
                }
            };
            let scale = self.scale(amax);
            let (place, codes) = block.split_at_mut(SCALE_BYTES);
            place.copy_from_slice(&scale.to_le_bytes());
            for (code, x) in codes.iter_mut().zip(x) {
                *code = self.float.encode(x / scale);
            }
        }
        Ok(())
    }
}

export_plugin!(Fp8);

#[cfg(test)]
mod tests {
    use plugin_api::testing::{golden, quantizer};

    use super::*;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/quantizers.json"));

    fn with(pairs: &[(&str, Value)]) -> Fp8 {
        let mut config = Config::new();
        pairs.iter().for_each(|(key, value)| config.set(key, value.clone()));
        Fp8::from_config(&config).unwrap()
    }

    fn text(value: &str) -> Value {
        Value::Text(value.to_owned())
    }

    #[test]
    fn passes_the_contract_suite() {
        // Half a step of a mantissa of 3 bits, or of 2.
        quantizer::suite::<Fp8>(0.0313);
        for (format, steps) in [("e4m3", 0.0313), ("e5m2", 0.0626)] {
            let make = |_: &Config| {
                let fp8 =
                    with(&[("format", text(format)), ("log2", true.into()), ("block", 32.into())]);
                Ok(Box::new(fp8) as Box<dyn Quantizer>)
            };
            quantizer::suite_of(&make, steps);
        }
    }

    #[test]
    fn blocks_are_those_of_ml_dtypes() {
        for (entry, format, log2) in [
            ("fp8_e4m3", "e4m3", false),
            ("fp8_e5m2", "e5m2", false),
            ("fp8_e4m3_log2", "e4m3", true),
        ] {
            let fp8 =
                with(&[("format", text(format)), ("log2", log2.into()), ("block", 32.into())]);
            golden::check_quantizer(&fp8, GOLDEN, entry, true);
        }
    }

    const TORCHAO: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../tests/golden/torchao_blocks.json"
    ));

    #[test]
    fn scales_and_bytes_are_those_of_torchao() {
        for name in ["e4m3", "e5m2"] {
            let fp8 = with(&[("format", text(name)), ("block", Value::Int(32))]);
            let field = |field: &str| golden::numbers(TORCHAO, name, field);
            let x: Vec<f32> = field("x").into_iter().map(|x| x as f32).collect();
            let mut blocks = vec![0; fp8.format().size_bytes(x.len()).unwrap()];
            fp8.encode(&x, None, &mut blocks).unwrap();
            let (mut scales, mut codes) = (Vec::new(), Vec::new());
            for block in blocks.chunks_exact(SCALE_BYTES + 32) {
                let (scale, bytes) = block.split_at(SCALE_BYTES);
                scales.push(f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]));
                codes.extend(bytes.iter().map(|code| f64::from(*code)));
            }
            assert_eq!(codes, field("code"), "{name}");
            // They divide in F64, and round once more.
            for (scale, theirs) in scales.iter().zip(field("scale")) {
                let distance = (f64::from(*scale) - theirs).abs();
                assert!(distance <= 1.2e-7 * theirs, "{name}: {scale}, not {theirs}");
            }
            let mut found = vec![0.0; x.len()];
            fp8.decode(&blocks, &mut found).unwrap();
            for (found, expected) in found.iter().zip(field("deq")) {
                let distance = (f64::from(*found) - expected).abs();
                assert!(distance <= 2.4e-7 * expected.abs(), "{name}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn rules_choose_the_largest_number() {
        // Blocks of 16 whose largest numbers are these.
        let blocks = |peaks: &[f32]| -> Vec<f32> {
            peaks.iter().flat_map(|&peak| (0..16).map(move |i| peak * i as f32 / 15.0)).collect()
        };
        let scales = |more: &[(&str, Value)], x: &[f32]| -> Vec<f32> {
            let fp8 = with(&[&[("block", 16.into())], more].concat());
            let bytes = quantizer::encoded(&fp8, x);
            let scale = |block: &[u8]| f32::from_le_bytes(block[..4].try_into().unwrap()) * 448.0;
            bytes.chunks(20).map(scale).collect()
        };
        let near = |found: Vec<f32>, expected: &[f32]| {
            let pairs = found.iter().zip(expected);
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() <= 1e-5 * b), "{found:?}");
        };
        let x = blocks(&[4.0, 1.0, 8.0]);
        near(scales(&[], &x), &[4.0, 1.0, 8.0]);
        near(scales(&[("scale", text("static")), ("amax", 6.0.into())], &x), &[6.0, 6.0, 6.0]);
        near(scales(&[("scale", text("ema")), ("beta", 0.5.into())], &x), &[4.0, 2.5, 8.0]);
        // Powers of two, so that the scale of 4/448 becomes 1/64.
        near(scales(&[("log2", true.into())], &x), &[7.0, 1.75, 14.0]);
        // What is larger than what is expected becomes the largest.
        let fixed = with(&[("scale", text("static")), ("amax", 2.0.into()), ("block", 16.into())]);
        let back = quantizer::decoded(&fixed, &quantizer::encoded(&fixed, &blocks(&[64.0])));
        assert!((back[15] - 2.0).abs() < 1e-6, "{back:?}");
    }

    #[test]
    fn a_scale_that_is_fixed_needs_the_number() {
        let error = Fp8::from_config(&Config::new().with("scale", "static")).unwrap_err();
        assert!(error.to_string().contains("amax"), "{error}");
    }
}
