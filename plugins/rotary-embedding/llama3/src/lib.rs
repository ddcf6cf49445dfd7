//! Rotary position embedding with the scaling of Llama 3.1: slow pairs turn slower still.
//!
//! Source: Dubey et al., "The Llama 3 Herd of Models", arXiv:2407.21783; the formula as in
//! `modeling_rope_utils.py` of transformers 5.23.0, `_compute_llama3_parameters`.

use plugin_api::prelude::*;

/// Traces a rotation whose wavelengths beyond the original context are stretched.
#[derive(Debug)]
pub struct Llama3;

impl Capability for Llama3 {
    const NAME: &'static str = "llama3";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Llama3 {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("rope llama3/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        Ok(vec![fused::rope(g, x[0], x[1], &self.rotation(at.config)?)?])
    }
}

impl RotaryEmbedding for Llama3 {
    fn rotation(&self, config: &Config) -> Result<Rotation> {
        let rotation = Rotation::standard(config)?;
        let Some(table) = Rotation::scaling(config)? else { return Ok(rotation) };
        rotation.with_slow_pairs_divided(table)
    }
}

export_plugin!(Llama3);

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use plugin_api::testing::{golden, rotary_embedding};

    use super::*;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/vectors.json"));

    fn scaling(factor: f64, low: f64, high: f64, original: i64) -> Config {
        Config::new()
            .with("factor", factor)
            .with("low_freq_factor", low)
            .with("high_freq_factor", high)
            .with("original_max_position_embeddings", original)
    }

    #[test]
    fn passes_the_contract_suite() {
        let config = Config::new().with("rope_scaling", scaling(8.0, 1.0, 4.0, 8192));
        rotary_embedding::suite::<Llama3>(&config);
    }

    #[test]
    fn gives_the_frequencies_of_transformers() {
        let number = |field: &str| golden::numbers(GOLDEN, "llama3_8x", field)[0];
        let (low, high) = (number("low"), number("high"));
        let table = scaling(number("factor"), low, high, number("orig") as i64);
        let config = Config::new()
            .with("rope_theta", number("theta"))
            .with("head_dim", number("dim") as i64)
            .with("rope_scaling", table);
        let found = Llama3.rotation(&config).unwrap().inv_freq;
        let expected = golden::numbers(GOLDEN, "llama3_8x", "inv_freq");
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let found = f64::from(*found);
            assert!((found - expected).abs() <= 4e-7 * expected, "{found}, not {expected}");
        }
    }

    #[test]
    fn stretches_long_wavelengths_only() {
        // The original context holds 10 turns at this frequency.
        let at = 10.0 * TAU / 1000.0;
        let plain =
            Rotation { inv_freq: vec![at], pairing: Pairing::HalfSplit, attention_factor: 1.0 };
        #[rustfmt::skip]
        let cases = [
            // name                    low   high  found / given, with factor 2
            ("short wavelength",       1.0,  9.0,  1.0),
            ("long wavelength",        11.0, 12.0, 0.5),
            ("half way between",       9.0,  11.0, 0.75),
            ("no way between",         10.5, 10.5, 0.5),
            ("no way between, fast",   9.5,  9.5,  1.0),
        ];
        for (name, low, high, expected) in cases {
            let table = scaling(2.0, low, high, 1000);
            let found = plain.clone().with_slow_pairs_divided(&table).unwrap().inv_freq[0] / at;
            assert!((found - expected).abs() < 1e-6, "{name}: {found}");
        }
    }

    #[test]
    fn says_which_key_is_missing() {
        let config = Config::new().with("head_dim", 4);
        let error = Llama3.rotation(&config).unwrap_err();
        assert_eq!(error.to_string(), "rope_scaling: expected a table, found nothing");
    }
}
