//! My plugin: a rotary embedding whose pair `i` turns by `theta^(−2i/d)` radians per token.
//!
//! Source: Su et al., "RoFormer", arXiv:2104.09864, section 3.4.2.

use plugin_api::prelude::*;

/// Traces the rotation of [`Rotation::standard`].
#[derive(Debug)]
pub struct MyPlugin;

impl Capability for MyPlugin {
    const NAME: &'static str = "my-plugin";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for MyPlugin {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("my-plugin/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        Ok(vec![fused::rope(g, x[0], x[1], &self.rotation(at.config)?)?])
    }
}

impl RotaryEmbedding for MyPlugin {
    fn rotation(&self, config: &Config) -> Result<Rotation> {
        Rotation::standard(config)
    }
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        plugin_api::testing::rotary_embedding::suite::<MyPlugin>(&Config::new());
    }
}
