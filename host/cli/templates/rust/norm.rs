//! My plugin: root mean square norm; brings each row to length one, then scales it.
//!
//! Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", arXiv:1910.07467.

use plugin_api::prelude::*;

/// Traces `x · rsqrt(mean(x²) + eps) · (weight + offset)`.
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
        let eps = at.config.number_or("rms_norm_eps", 1e-6, 0.0..=1.0)?;
        let offset = at.config.number_or("norm_weight_offset", 0.0, -1.0..=1.0)?;
        let weight = g.weight("weight")?;
        Ok(vec![fused::rms_norm(g, x[0], weight, eps, offset)?])
    }
}

impl Norm for MyPlugin {}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests {
    use plugin_api::testing::norm;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        norm::suite::<MyPlugin>();
    }

    #[test]
    fn scales_rows_to_unit_mean_square() {
        // mean(x²) of (3, 4) is 12.5; weights 1 and 2.
        let plan = norm::trace::<MyPlugin>(2, &Config::new());
        let y = norm::run(&plan, &[3.0, 4.0], &[("weight", &[1.0, 2.0])]);
        let length = 12.5_f64.sqrt();
        let expected = [3.0 / length, 8.0 / length];
        assert!(y.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{y:?}");
    }
}
