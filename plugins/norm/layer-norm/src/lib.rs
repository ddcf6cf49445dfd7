//! Layer norm: brings each row to mean zero and variance one, then scales and shifts it.
//!
//! Source: Ba, Kiros and Hinton, "Layer Normalization", arXiv:1607.06450.

use plugin_api::prelude::*;

/// Traces `(x − mean) · rsqrt(variance + eps) · weight + bias`.
#[derive(Debug)]
pub struct LayerNorm;

impl Capability for LayerNorm {
    const NAME: &'static str = "layer-norm";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for LayerNorm {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("layer-norm/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let eps = at.config.number_or("layer_norm_eps", 1e-5, 0.0..=1.0)?;
        let weight = g.weight("weight")?;
        let bias = if g.has_weight("bias") {
            g.weight("bias")?
        } else {
            let width = g.spec(weight).width()?;
            g.constant(&vec![0.0; width as usize])?
        };
        Ok(vec![fused::layer_norm(g, x[0], weight, bias, eps)?])
    }
}

impl Norm for LayerNorm {}

export_plugin!(LayerNorm);

#[cfg(test)]
mod tests {
    use plugin_api::testing::{norm, traced::Scene};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        norm::suite::<LayerNorm>();
    }

    #[test]
    fn scales_rows_to_unit_variance_around_the_bias() {
        // mean(1, 5) is 3, the standard deviation 2.
        #[rustfmt::skip]
        let cases = [
            // x            weight       bias          y
            ([1.0, 5.0],    [1.0, 1.0],  [0.0, 0.0],   [-1.0, 1.0]),
            ([1.0, 5.0],    [2.0, 3.0],  [0.5, -0.5],  [-1.5, 2.5]),
            ([7.0, 7.0],    [1.0, 1.0],  [0.25, 0.5],  [0.25, 0.5]),
        ];
        let plan = norm::trace::<LayerNorm>(2, &Config::new().with("layer_norm_eps", 1e-12));
        for (x, weight, bias, expected) in cases {
            let y = norm::run(&plan, &x, &[("weight", &weight), ("bias", &bias)]);
            assert!(y.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{x:?}: {y:?}");
        }
    }

    #[test]
    fn does_without_a_bias() {
        let config = Config::new().with("layer_norm_eps", 1e-12);
        let scene = Scene::new(&config).weight("weight", &[2]);
        let x = Spec::f32([Dim::TOKENS, 2.into()]);
        let plan = scene.trace(&LayerNorm, &[("x", x)]).unwrap();
        let y = norm::run(&plan, &[1.0, 5.0], &[("weight", &[1.0, 2.0])]);
        assert!((y[0] + 1.0).abs() < 1e-6 && (y[1] - 2.0).abs() < 1e-6, "{y:?}");
    }
}
