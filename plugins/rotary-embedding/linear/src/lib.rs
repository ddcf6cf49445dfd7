//! Rotary position embedding with positions interpolated: every pair turns `factor` times slower.
//!
//! Source: Chen et al., "Extending Context Window of Large Language Models via Positional
//! Interpolation", arXiv:2306.15595.

use plugin_api::prelude::*;

/// Traces the plain rotation at `position / factor`.
#[derive(Debug)]
pub struct Linear;

impl Capability for Linear {
    const NAME: &'static str = "linear";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Linear {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("rope linear/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        Ok(vec![fused::rope(g, x[0], x[1], &self.rotation(at.config)?)?])
    }
}

impl RotaryEmbedding for Linear {
    fn rotation(&self, config: &Config) -> Result<Rotation> {
        let mut rotation = Rotation::standard(config)?;
        let Some(scaling) = Rotation::scaling(config)? else { return Ok(rotation) };
        let factor = scaling.number("factor", 1.0..=1e6)?;
        for inv_freq in &mut rotation.inv_freq {
            *inv_freq = (f64::from(*inv_freq) / factor) as f32;
        }
        Ok(rotation)
    }
}

export_plugin!(Linear);

#[cfg(test)]
mod tests {
    use plugin_api::testing::rotary_embedding;

    use super::*;

    fn scaled(factor: f64) -> Config {
        Config::new().with("rope_scaling", Config::new().with("factor", factor))
    }

    #[test]
    fn passes_the_contract_suite() {
        rotary_embedding::suite::<Linear>(&scaled(4.0));
    }

    #[test]
    fn every_pair_turns_slower() {
        let config = scaled(4.0).with("head_dim", 4).with("rope_theta", 10_000.0);
        assert_eq!(Linear.rotation(&config).unwrap().inv_freq, [0.25, 0.002_5]);
    }

    #[test]
    fn a_layer_without_scaling_turns_as_it_did() {
        let config = Config::new().with("head_dim", 4).with("rope_scaling", Config::new());
        assert_eq!(Linear.rotation(&config).unwrap(), Rotation::standard(&config).unwrap());
    }

    #[test]
    fn says_what_is_wrong_with_a_factor() {
        let error = Linear.rotation(&scaled(0.5).with("head_dim", 4)).unwrap_err();
        assert!(error.to_string().contains("factor"), "{error}");
        let error = Linear.rotation(&Config::new().with("head_dim", 4)).unwrap_err();
        assert_eq!(error.to_string(), "rope_scaling: expected a table, found nothing");
    }
}
