//! Groups of codes of 4 bits with a scale, and a minimum unless they are symmetric: what AWQ and GPTQ are published with.
//!
//! Source: Frantar et al., arXiv:2210.17323, section 4; Lin et al., arXiv:2306.00978, section 2.

use kernels_reference::blocks::{f16_at, f16_bytes, inverse, join_nibbles, range, split_nibbles};
use plugin_api::prelude::*;

/// Reads and writes `INT4_G128`, and the like for other groups: scale, minimum, and a byte for two codes each.
#[derive(Debug)]
pub struct Int4Group {
    group: usize,
    is_symmetric: bool,
}

/// Subtracted from the codes of symmetric groups.
const ZERO_POINT: u8 = 8;
const CODE_MAX: f32 = 15.0;
/// Largest magnitude of a symmetric code: the one below is left out, as both sides are alike.
const REACH: f32 = 7.0;

impl Capability for Int4Group {
    const NAME: &'static str = "int4-group";

    fn from_config(config: &Config) -> Result<Self> {
        let group = config.count_or("group", 128, 16..=4096)? as usize;
        if !group.is_multiple_of(16) {
            return Err(config.wrong("group", "a multiple of 16", config.get("group")));
        }
        Ok(Self { group, is_symmetric: config.flag_or("symmetric", false)? })
    }
}

impl Int4Group {
    /// Bytes before the codes.
    fn head(&self) -> usize {
        if self.is_symmetric { 2 } else { 4 }
    }

    fn block_bytes(&self) -> usize {
        self.head() + self.group / 2
    }

    /// Scale and minimum of a group, and the code of each number: halves go to the even code.
    fn choose(&self, x: &[f32], codes: &mut [u8]) -> (f32, f32) {
        let (least, most) = range(x);
        let (scale, min) = match self.is_symmetric {
            true => (most.max(-least).max(0.0) / REACH, 0.0),
            // Nothing is always a number that can be had exactly, or nearly.
            false => ((most.max(0.0) - least.min(0.0)) / CODE_MAX, least.min(0.0)),
        };
        let by = inverse(scale);
        for (code, &x) in codes.iter_mut().zip(x) {
            *code = match self.is_symmetric {
                true => {
                    let code = (x * by).round_ties_even().clamp(-REACH, REACH);
                    (code + f32::from(ZERO_POINT)) as u8
                }
                false => ((x - min) * by).round_ties_even().clamp(0.0, CODE_MAX) as u8,
            };
        }
        (scale, min)
    }

    fn write(&self, block: &mut [u8], scale: f32, min: f32, codes: &[u8]) {
        block[..2].copy_from_slice(&f16_bytes(scale));
        if !self.is_symmetric {
            block[2..4].copy_from_slice(&f16_bytes(min));
        }
        join_nibbles(codes, &mut block[self.head()..]);
    }

    /// Scale and minimum; the codes go where they are asked for.
    fn read(&self, block: &[u8], codes: &mut [u8]) -> (f32, f32) {
        split_nibbles(&block[self.head()..], codes);
        (f16_at(block, 0), if self.is_symmetric { 0.0 } else { f16_at(block, 2) })
    }
}

impl Quantizer for Int4Group {
    fn format(&self) -> FormatDesc {
        let name = format!("INT4_G{}{}", self.group, if self.is_symmetric { "_SYM" } else { "" });
        FormatDesc {
            semantic_id: SemanticId::new(format!("{name}/1")),
            name: name.into(),
            block_len: self.group,
            block_bytes: self.block_bytes(),
        }
    }

    fn lowering(&self) -> Lowering {
        let (group, has_min, scales) = (self.group, !self.is_symmetric, Scales::F16);
        let zero_point = if self.is_symmetric { ZERO_POINT } else { 0 };
        Lowering::Affine { bits: 4, group, zero_point, has_min, scales }
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        self.format().check(blocks.len(), out.len())?;
        let mut codes = vec![0; self.group];
        let zero_point = if self.is_symmetric { f32::from(ZERO_POINT) } else { 0.0 };
        let blocks = blocks.chunks_exact(self.block_bytes());
        for (block, out) in blocks.zip(out.chunks_exact_mut(self.group)) {
            let (scale, min) = self.read(block, &mut codes);
            for (out, code) in out.iter_mut().zip(&codes) {
                *out = scale * (f32::from(*code) - zero_point);
                if !self.is_symmetric {
                    *out += min;
                }
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
        let mut codes = vec![0; self.group];
        let blocks = out.chunks_exact_mut(self.block_bytes());
        for (x, block) in rows.chunks_exact(self.group).zip(blocks) {
            let (scale, min) = self.choose(x, &mut codes);
            self.write(block, scale, min, &codes);
        }
        Ok(())
    }

    fn unpack(&self, blocks: &[u8], out: &mut AffineMut<'_>) -> Result<()> {
        out.check(&self.format(), &self.lowering(), blocks.len())?;
        let blocks = blocks.chunks_exact(self.block_bytes());
        let groups = blocks.zip(out.codes.chunks_exact_mut(self.group)).zip(&mut *out.scales);
        for (group, ((block, codes), scale)) in groups.enumerate() {
            let (found, min) = self.read(block, codes);
            *scale = found;
            if let Some(place) = out.mins.get_mut(group) {
                *place = min;
            }
        }
        Ok(())
    }

    fn pack(&self, parts: &Affine<'_>, out: &mut [u8]) -> Result<()> {
        parts.check(&self.format(), &self.lowering(), out.len())?;
        let blocks = out.chunks_exact_mut(self.block_bytes());
        let groups = parts.codes.chunks_exact(self.group).zip(parts.scales);
        for (group, (block, (codes, scale))) in blocks.zip(groups).enumerate() {
            let min = parts.mins.get(group).copied().unwrap_or(0.0);
            self.write(block, *scale, min, codes);
        }
        Ok(())
    }
}

export_plugin!(Int4Group);

#[cfg(test)]
mod tests {
    use plugin_api::testing::{golden, quantizer};

    use super::*;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/quantizers.json"));

    fn with(group: i64, symmetric: bool) -> Int4Group {
        let config = Config::new().with("group", group).with("symmetric", symmetric);
        Int4Group::from_config(&config).unwrap()
    }

    #[test]
    fn passes_the_contract_suite() {
        quantizer::suite::<Int4Group>(0.0361);
        for (group, symmetric) in [(32, true), (64, false), (128, true)] {
            let make = |_: &Config| Ok(Box::new(with(group, symmetric)) as Box<dyn Quantizer>);
            quantizer::suite_of(&make, 0.0361);
        }
    }

    #[test]
    fn codes_scales_and_numbers_are_those_of_numpy() {
        for (group, symmetric) in [(32, false), (32, true), (128, false), (128, true)] {
            let entry = format!("int4_g{group}{}", if symmetric { "_sym" } else { "" });
            golden::check_quantizer(&with(group, symmetric), GOLDEN, &entry, true);
        }
    }

    const TORCHAO: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../tests/golden/torchao_blocks.json"
    ));

    /// Scales and minima are halves here, and F32 there.
    #[test]
    fn codes_are_those_of_torchao_and_numbers_as_near_as_halves_are() {
        for (group, symmetric) in [(32, false), (32, true), (128, false), (128, true)] {
            let entry = format!("int4_g{group}{}", if symmetric { "_sym" } else { "" });
            let field = |name: &str| golden::numbers(TORCHAO, &entry, name);
            let floats =
                |name: &str| field(name).into_iter().map(|x| x as f32).collect::<Vec<f32>>();
            let (plugin, x, theirs) = (with(group, symmetric), floats("x"), floats("scale"));
            let mut blocks = vec![0; plugin.format().size_bytes(x.len()).unwrap()];
            plugin.encode(&x, None, &mut blocks).unwrap();
            let (mut codes, mut scales) = (vec![0; x.len()], vec![0.0; theirs.len()]);
            let mut mins = vec![0.0; if symmetric { 0 } else { theirs.len() }];
            let mut parts = AffineMut { codes: &mut codes, scales: &mut scales, mins: &mut mins };
            plugin.unpack(&blocks, &mut parts).unwrap();
            let codes: Vec<f64> = codes.iter().map(|code| f64::from(*code)).collect();
            assert_eq!(codes, field("code"), "{entry}");
            let mut found = vec![0.0; x.len()];
            plugin.decode(&blocks, &mut found).unwrap();
            for (i, (found, expected)) in found.iter().zip(floats("deq")).enumerate() {
                let (scale, theirs) = (scales[i / group as usize], theirs[i / group as usize]);
                assert!(
                    (scale - theirs).abs() <= theirs / 2048.0,
                    "{entry}: {scale}, not {theirs}"
                );
                // Half a step of a half of the minimum, and of as many scales as the code says.
                assert!(
                    (found - expected).abs() <= 30.0 * theirs / 2048.0,
                    "{entry}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn groups_that_no_backend_computes_are_refused() {
        for group in [8, 24, 8192] {
            let error = Int4Group::from_config(&Config::new().with("group", group)).unwrap_err();
            assert!(error.to_string().contains("group"), "{error}");
        }
    }
}
