//! My plugin: adds the result of a sublayer to the stream around it.
//!
//! Source: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, section 3.2.

use plugin_api::prelude::*;

/// Traces `stream + branch`.
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
        Ok(vec![g.add(x[0], x[1])?])
    }
}

impl Residual for MyPlugin {}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests {
    use plugin_api::testing::residual;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        residual::suite::<MyPlugin>();
    }

    #[test]
    fn adds_the_branch() {
        let plan = residual::trace::<MyPlugin>(1);
        for (stream, branch, expected) in [(1.0, 2.0, 3.0), (-2.5, 2.5, 0.0)] {
            assert_eq!(residual::run(&plan, &[stream], &[branch]), [expected]);
        }
    }
}
