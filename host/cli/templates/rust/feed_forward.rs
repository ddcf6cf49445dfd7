//! My plugin: a feed-forward part whose gate is curved by SiLU.
//!
//! Source: Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202.

use plugin_api::prelude::*;

/// Traces `down(silu(gate(x)) · up(x))`.
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

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let (gate, up) = (g.linear(x[0], "gate_proj")?, g.linear(x[0], "up_proj")?);
        let gated = fused::swiglu(g, gate, up)?;
        Ok(vec![g.linear(gated, "down_proj")?])
    }
}

impl FeedForward for MyPlugin {}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        plugin_api::testing::feed_forward::suite::<MyPlugin>();
    }
}
