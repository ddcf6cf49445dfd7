//! Plain rotary position embedding: pair `i` turns by `theta^(−2i/d)` radians per token.
//!
//! Source: Su et al., "RoFormer", arXiv:2104.09864, section 3.4.2.

use plugin_api::prelude::*;

/// Traces the rotation of [`Rotation::standard`].
#[derive(Debug)]
pub struct Standard;

impl Capability for Standard {
    const NAME: &'static str = "standard";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Standard {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("rope standard/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        Ok(vec![fused::rope(g, x[0], x[1], &self.rotation(at.config)?)?])
    }
}

impl RotaryEmbedding for Standard {
    fn rotation(&self, config: &Config) -> Result<Rotation> {
        Rotation::standard(config)
    }
}

export_plugin!(Standard);

#[cfg(test)]
mod tests {
    use plugin_api::testing::rotary_embedding;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        rotary_embedding::suite::<Standard>(&Config::new());
    }

    #[test]
    fn turns_slower_from_pair_to_pair() {
        #[rustfmt::skip]
        let cases: [(f64, i64, f64, &[f32]); 4] = [
            // theta     head_dim  part  radians per token
            (10_000.0,   4,        1.0,  &[1.0, 0.01]),
            (100.0,      8,        1.0,  &[1.0, 0.316_227_77, 0.1, 0.031_622_78]),
            (10_000.0,   8,        0.5,  &[1.0, 0.01]),
            (1.0,        2,        1.0,  &[1.0]),
        ];
        for (theta, head_dim, part, expected) in cases {
            let config = Config::new()
                .with("rope_theta", theta)
                .with("head_dim", head_dim)
                .with("partial_rotary_factor", part);
            let rotation = Standard.rotation(&config).unwrap();
            assert_eq!(rotation.inv_freq.len(), expected.len(), "{config:?}");
            for (found, expected) in rotation.inv_freq.iter().zip(expected) {
                assert!((found - expected).abs() <= 2e-7 * expected, "{found}, not {expected}");
            }
        }
    }
}
