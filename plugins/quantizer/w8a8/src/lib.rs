//! Symmetric codes of 8 bits with a scale for each block or row: the weights' side of products of whole numbers.
//!
//! Source: Xiao et al., "SmoothQuant", arXiv:2211.10438, section 3.

use plugin_api::prelude::*;

/// Reads and writes `INT8_B128` and the like: a scale in `f32`, then a signed byte for each number.
#[derive(Debug)]
pub struct W8A8 {
    block: usize,
}

const SCALE_BYTES: usize = 4;
const CODE_MAX: f32 = 127.0;
/// What is added to a code to make it unsigned.
const ZERO_POINT: u8 = 128;

impl Capability for W8A8 {
    const NAME: &'static str = "w8a8";

    fn from_config(config: &Config) -> Result<Self> {
        let block = config.count_or("block", 128, 16..=65520)? as usize;
        if !block.is_multiple_of(16) {
            return Err(config.wrong("block", "a multiple of 16", config.get("block")));
        }
        Ok(Self { block })
    }
}

impl Quantizer for W8A8 {
    fn format(&self) -> FormatDesc {
        let name = format!("INT8_B{}", self.block);
        FormatDesc {
            semantic_id: SemanticId::new(format!("{name}/1")),
            name: name.into(),
            block_len: self.block,
            block_bytes: SCALE_BYTES + self.block,
        }
    }

    fn lowering(&self) -> Lowering {
        let (bits, group, zero_point, scales) = (8, self.block, ZERO_POINT, Scales::F32);
        Lowering::Affine { bits, group, zero_point, has_min: false, scales }
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        self.format().check(blocks.len(), out.len())?;
        let blocks = blocks.chunks_exact(SCALE_BYTES + self.block);
        for (block, out) in blocks.zip(out.chunks_exact_mut(self.block)) {
            let (scale, codes) = read(block);
            for (out, code) in out.iter_mut().zip(codes) {
                *out = scale * f32::from(*code as i8);
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
        let blocks = out.chunks_exact_mut(SCALE_BYTES + self.block);
        for (x, block) in rows.chunks_exact(self.block).zip(blocks) {
            let scale = x.iter().fold(0.0_f32, |peak, x| peak.max(x.abs())) / CODE_MAX;
            let by = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            let (place, codes) = block.split_at_mut(SCALE_BYTES);
            place.copy_from_slice(&scale.to_le_bytes());
            for (code, x) in codes.iter_mut().zip(x) {
                *code = (x * by).round_ties_even().clamp(-CODE_MAX, CODE_MAX) as i8 as u8;
            }
        }
        Ok(())
    }

    fn unpack(&self, blocks: &[u8], out: &mut AffineMut<'_>) -> Result<()> {
        out.check(&self.format(), &self.lowering(), blocks.len())?;
        let blocks = blocks.chunks_exact(SCALE_BYTES + self.block);
        let groups = out.codes.chunks_exact_mut(self.block).zip(&mut *out.scales);
        for (block, (codes, scale)) in blocks.zip(groups) {
            let (found, signed) = read(block);
            *scale = found;
            codes.iter_mut().zip(signed).for_each(|(code, signed)| *code = signed ^ ZERO_POINT);
        }
        Ok(())
    }

    fn pack(&self, parts: &Affine<'_>, out: &mut [u8]) -> Result<()> {
        parts.check(&self.format(), &self.lowering(), out.len())?;
        let blocks = out.chunks_exact_mut(SCALE_BYTES + self.block);
        let groups = parts.codes.chunks_exact(self.block).zip(parts.scales);
        for (block, (codes, scale)) in blocks.zip(groups) {
            let (place, signed) = block.split_at_mut(SCALE_BYTES);
            place.copy_from_slice(&scale.to_le_bytes());
            signed.iter_mut().zip(codes).for_each(|(signed, code)| *signed = code ^ ZERO_POINT);
        }
        Ok(())
    }
}

/// The scale and the signed codes of a block.
fn read(block: &[u8]) -> (f32, &[u8]) {
    let (scale, codes) = block.split_at(SCALE_BYTES);
    (f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]), codes)
}

export_plugin!(W8A8);

#[cfg(test)]
mod tests {
    use plugin_api::testing::{golden, quantizer};

    use super::*;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/quantizers.json"));

    fn with(block: i64) -> W8A8 {
        W8A8::from_config(&Config::new().with("block", block)).unwrap()
    }

    #[test]
    fn passes_the_contract_suite() {
        quantizer::suite::<W8A8>(0.002);
        let make = |_: &Config| Ok(Box::new(with(48)) as Box<dyn Quantizer>);
        quantizer::suite_of(&make, 0.002);
    }

    #[test]
    fn codes_scales_and_numbers_are_those_of_numpy() {
        for block in [64, 256] {
            golden::check_quantizer(&with(block), GOLDEN, &format!("int8_b{block}"), true);
        }
    }

    /// Whole numbers, scaled at the end, come to what numpy says of `W8A8`: `i32` sums of codes.
    #[test]
    fn products_of_whole_numbers_are_those_of_numpy() {
        let numbers = |field: &str| -> Vec<f32> {
            golden::numbers(GOLDEN, "w8a8_product", field).into_iter().map(|x| x as f32).collect()
        };
        let (x, w, expected) = (numbers("x"), numbers("w"), numbers("y"));
        let (cols, quantizer) = (256, with(256));
        let lay_open = |rows: &[f32]| {
            let bytes = quantizer::encoded(&quantizer, rows);
            let (mut codes, mut scales) = (vec![0; rows.len()], vec![0.0; rows.len() / cols]);
            let mut out = AffineMut { codes: &mut codes, scales: &mut scales, mins: &mut [] };
            quantizer.unpack(&bytes, &mut out).unwrap();
            (codes, scales)
        };
        let ((a, a_scales), (b, b_scales)) = (lay_open(&x), lay_open(&w));
        let mut found = Vec::new();
        for (row, scale) in a.chunks(cols).zip(&a_scales) {
            for (column, other) in b.chunks(cols).zip(&b_scales) {
                let whole = |code: &u8| i32::from(*code) - i32::from(ZERO_POINT);
                let sum: i32 = row.iter().zip(column).map(|(a, b)| whole(a) * whole(b)).sum();
                found.push(sum as f32 * scale * other);
            }
        }
        assert_eq!(found.len(), expected.len());
        assert!(
            found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs()),
            "{found:?}"
        );
    }
}
