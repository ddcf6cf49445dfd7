//! Rotary position embedding of YaRN: fast pairs stay, slow ones are interpolated, those between
//! are blended, and attention is sharpened by a factor on cosine and sine.
//!
//! Source: Peng et al., "YaRN", arXiv:2309.00071; the formula as in `modeling_rope_utils.py` of
//! transformers 5.23.0, `_compute_yarn_parameters`.

use std::f64::consts::TAU;

use plugin_api::prelude::*;

/// Traces a rotation whose pairs are interpolated as far as they turn slowly.
#[derive(Debug)]
pub struct Yarn;

impl Capability for Yarn {
    const NAME: &'static str = "yarn";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Yarn {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("rope yarn/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        Ok(vec![fused::rope(g, x[0], x[1], &self.rotation(at.config)?)?])
    }
}

impl RotaryEmbedding for Yarn {
    fn rotation(&self, config: &Config) -> Result<Rotation> {
        let mut rotation = Rotation::standard(config)?;
        let Some(scaling) = Rotation::scaling(config)? else { return Ok(rotation) };
        let factor = scaling.number("factor", 1.0..=1e6)?;
        let (low, high) = blended(config, scaling, 2 * rotation.inv_freq.len())?;
        for (i, inv_freq) in rotation.inv_freq.iter_mut().enumerate() {
            let slow = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            let plain = f64::from(*inv_freq);
            *inv_freq = (plain * (1.0 - slow) + plain / factor * slow) as f32;
        }
        rotation.attention_factor = attention_factor(scaling, factor)? as f32;
        Ok(rotation)
    }
}

/// The pairs between which frequencies are blended: those that turn `beta_fast` and `beta_slow`
/// times in the original context.
fn blended(config: &Config, scaling: &Config, rotary_dim: usize) -> Result<(f64, f64)> {
    let theta = config.number_or("rope_theta", 10_000.0, 1.0..=1e12)?;
    if theta <= 1.0 {
        return Err(config.wrong("rope_theta", "a number above 1", config.get("rope_theta")));
    }
    let original = if scaling.has("original_max_position_embeddings") {
        scaling.count("original_max_position_embeddings", 1..=1 << 32)?
    } else {
        config.count("max_position_embeddings", 1..=1 << 32)?
    };
    let pair_of = |turns: f64| {
        rotary_dim as f64 * (original as f64 / (turns * TAU)).ln() / (2.0 * theta.ln())
    };
    let mut low = pair_of(scaling.number_or("beta_fast", 32.0, 1e-6..=1e6)?);
    let mut high = pair_of(scaling.number_or("beta_slow", 1.0, 1e-6..=1e6)?);
    if scaling.flag_or("truncate", true)? {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, high) = (low.max(0.0), high.min(rotary_dim as f64 - 1.0));
    // Where nothing lies between, a step.
    Ok((low, if high > low { high } else { low + 0.001 }))
}

/// The factor on cosine and sine: scores grow by its square.
fn attention_factor(scaling: &Config, factor: f64) -> Result<f64> {
    if scaling.has("attention_factor") {
        return scaling.number("attention_factor", 1e-6..=1e6);
    }
    let sharpened = |scale: f64| 0.1 * scale * factor.ln() + 1.0;
    let mscale = scaling.number_or("mscale", 0.0, 0.0..=1e3)?;
    let all = scaling.number_or("mscale_all_dim", 0.0, 0.0..=1e3)?;
    Ok(if mscale > 0.0 && all > 0.0 { sharpened(mscale) / sharpened(all) } else { sharpened(1.0) })
}

export_plugin!(Yarn);

#[cfg(test)]
mod tests {
    use plugin_api::testing::{golden, rotary_embedding};

    use super::*;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/vectors.json"));

    fn scaled(factor: f64, original: i64) -> Config {
        let table =
            Config::new().with("factor", factor).with("original_max_position_embeddings", original);
        Config::new().with("rope_scaling", table)
    }

    #[test]
    fn passes_the_contract_suite() {
        rotary_embedding::suite::<Yarn>(&scaled(4.0, 64));
    }

    #[test]
    fn gives_the_frequencies_of_transformers() {
        #[rustfmt::skip]
        let cases = [
            // entry                     truncate
            ("yarn_Qwen2.5-YaRN4",       true),
            ("yarn_DeepSeek-V3(dim64)",  true),
            ("yarn_gpt-oss",             false),
            ("yarn_Llama2-YaRN16",       true),
        ];
        for (entry, truncate) in cases {
            let number = |field: &str| golden::numbers(GOLDEN, entry, field)[0];
            let table = Config::new()
                .with("factor", number("factor"))
                .with("original_max_position_embeddings", number("orig") as i64)
                .with("truncate", truncate);
            let config = Config::new()
                .with("rope_theta", number("theta"))
                .with("head_dim", number("dim") as i64)
                .with("rope_scaling", table.clone());
            let (low, high) = blended(&config, &table, number("dim") as usize).unwrap();
            assert!((low - number("low")).abs() < 1e-4, "{entry}: {low}");
            assert!((high - number("high")).abs() < 1e-4, "{entry}: {high}");
            let found = Yarn.rotation(&config).unwrap();
            let factor = f64::from(found.attention_factor);
            assert!((factor - number("attention_factor")).abs() < 1e-6, "{entry}: {factor}");
            let expected = golden::numbers(GOLDEN, entry, "inv_freq");
            assert_eq!(found.inv_freq.len(), expected.len());
            for (found, expected) in found.inv_freq.iter().zip(expected) {
                let distance = (f64::from(*found) - expected).abs();
                assert!(distance <= 4e-7 * expected, "{entry}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn takes_the_attention_factor_from_the_model() {
        #[rustfmt::skip]
        let cases = [
            // mscale  all    given  expected, with factor 40
            (0.0,      0.0,   0.0,   1.368_888),
            (1.0,      1.0,   0.0,   1.0),
            (1.0,      0.707, 0.0,   1.085_726),
            (1.0,      0.0,   0.0,   1.368_888),
            (0.0,      0.0,   1.5,   1.5),
        ];
        for (mscale, all, given, expected) in cases {
            let mut table = Config::new().with("factor", 40.0);
            table.set("mscale", mscale);
            table.set("mscale_all_dim", all);
            if given > 0.0 {
                table.set("attention_factor", given);
            }
            let found = attention_factor(&table, 40.0).unwrap();
            assert!((found - expected).abs() < 1e-5, "{mscale} {all} {given}: {found}");
        }
    }

    #[test]
    fn a_base_without_slow_pairs_is_an_error() {
        let config = scaled(4.0, 64).with("head_dim", 4).with("rope_theta", 1.0);
        let error = Yarn.rotation(&config).unwrap_err();
        assert!(error.to_string().contains("rope_theta"), "{error}");
    }
}
