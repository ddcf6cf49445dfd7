//! Rotary position embedding of interleaved layers: most layers turn, with the scaling of Llama 3.1 where the
//! model has one, and those without positions leave queries and keys as they are.
//!
//! Source: Meta, `modeling_llama4.py` of transformers 5.23.0; the scaling: Dubey et al., arXiv:2407.21783.

use plugin_api::prelude::*;

/// Traces a rotation, or nothing in layers that are marked with `no_rope`.
#[derive(Debug)]
pub struct Irope;

impl Capability for Irope {
    const NAME: &'static str = "irope";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Irope {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("rope irope/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        if at.config.flag_or("no_rope", false)? {
            return Ok(vec![x[0]]);
        }
        Ok(vec![fused::rope(g, x[0], x[1], &self.rotation(at.config)?)?])
    }
}

impl RotaryEmbedding for Irope {
    fn rotation(&self, config: &Config) -> Result<Rotation> {
        let rotation = Rotation::standard(config)?;
        let Some(table) = config.table("rope_scaling")? else { return Ok(rotation) };
        match table.one_of("rope_type", &["default", "llama3"])? {
            "llama3" => rotation.with_slow_pairs_divided(table),
            _ => Ok(rotation),
        }
    }
}

export_plugin!(Irope);

#[cfg(test)]
mod tests {
    use plugin_api::testing::{golden, rotary_embedding};

    use super::*;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/vectors.json"));

    fn scaling(factor: f64, low: f64, high: f64, original: i64) -> Config {
        Config::new()
            .with("rope_type", "llama3")
            .with("factor", factor)
            .with("low_freq_factor", low)
            .with("high_freq_factor", high)
            .with("original_max_position_embeddings", original)
    }

    #[test]
    fn passes_the_contract_suite() {
        rotary_embedding::suite::<Irope>(&Config::new());
        let scaled = Config::new().with("rope_scaling", scaling(8.0, 1.0, 4.0, 64));
        rotary_embedding::suite::<Irope>(&scaled);
    }

    #[test]
    fn scales_as_transformers_does() {
        let number = |field: &str| golden::numbers(GOLDEN, "llama3_8x", field)[0];
        let (low, high) = (number("low"), number("high"));
        let table = scaling(number("factor"), low, high, number("orig") as i64);
        let config = Config::new()
            .with("rope_theta", number("theta"))
            .with("head_dim", number("dim") as i64)
            .with("rope_scaling", table);
        let found = Irope.rotation(&config).unwrap().inv_freq;
        let expected = golden::numbers(GOLDEN, "llama3_8x", "inv_freq");
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let found = f64::from(*found);
            assert!((found - expected).abs() <= 4e-7 * expected, "{found}, not {expected}");
        }
    }

    /// As in Llama 4 Scout, whose factors are equal.
    #[test]
    fn without_a_way_between_pairs_are_slow_or_fast() {
        let config = Config::new().with("head_dim", 64).with("rope_theta", 500_000.0);
        let plain = Irope.rotation(&config).unwrap().inv_freq;
        let scaled = config.with("rope_scaling", scaling(16.0, 1.0, 1.0, 8192));
        let ratios: Vec<f32> = Irope.rotation(&scaled).unwrap().inv_freq;
        let ratios: Vec<f32> = ratios.iter().zip(&plain).map(|(a, b)| a / b).collect();
        assert!(ratios.iter().all(|ratio| [1.0, 0.0625].contains(ratio)), "{ratios:?}");
        assert!(ratios.contains(&1.0) && ratios.contains(&0.0625), "{ratios:?}");
    }

    #[test]
    fn layers_without_rotation_are_left_as_they_are() {
        let config = Config::new().with("head_dim", 8);
        let turned = rotary_embedding::trace::<Irope>(&config, 2, 8);
        assert!(!turned.nodes.is_empty());
        let plain = rotary_embedding::trace::<Irope>(&config.with("no_rope", true), 2, 8);
        assert!(plain.nodes.is_empty(), "{plain}");
    }
}
