//! Root mean square norm: brings each row to length one, then scales by a learned weight.
//!
//! Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", arXiv:1910.07467.

use plugin_api::prelude::*;

/// Traces `x · rsqrt(mean(x²) + eps) · (weight + offset)`.
#[derive(Debug)]
pub struct RmsNorm;

impl Capability for RmsNorm {
    const NAME: &'static str = "rms-norm";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for RmsNorm {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("rms-norm/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let eps = at.config.number_or("rms_norm_eps", 1e-6, 0.0..=1.0)?;
        let offset = at.config.number_or("norm_weight_offset", 0.0, -1.0..=1.0)?;
        let weight = g.weight("weight")?;
        Ok(vec![fused::rms_norm(g, x[0], weight, eps, offset)?])
    }
}

impl Norm for RmsNorm {}

export_plugin!(RmsNorm);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        plugin_api::testing::norm::suite::<RmsNorm>();
    }

    #[test]
    fn scales_rows_to_unit_mean_square() {
        // mean(x²) of (3, 4) is 12.5; weights 1 and 2.
        let plan = plugin_api::testing::norm::trace::<RmsNorm>(2, &Config::new());
        let y = plugin_api::testing::norm::run(&plan, &[3.0, 4.0], &[("weight", &[1.0, 2.0])]);
        let length = 12.5_f64.sqrt();
        let expected = [3.0 / length, 8.0 / length];
        assert!(y.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{y:?}");
    }
}
