//! GeGLU: a feed-forward part whose gate is curved by GELU.
//!
//! Source: Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202.

use plugin_api::prelude::*;

/// Traces `down(gelu(gate(x)) · up(x))`.
#[derive(Debug)]
pub struct GeGlu;

impl Capability for GeGlu {
    const NAME: &'static str = "geglu";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for GeGlu {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("geglu/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let (gate, up) = (g.linear(x[0], "gate_proj")?, g.linear(x[0], "up_proj")?);
        let gated = fused::geglu(g, gate, up)?;
        Ok(vec![g.linear(gated, "down_proj")?])
    }
}

impl FeedForward for GeGlu {}

export_plugin!(GeGlu);

#[cfg(test)]
mod tests {
    use plugin_api::testing::feed_forward;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        feed_forward::suite::<GeGlu>();
    }

    #[test]
    fn curves_the_gate_and_multiplies() {
        #[rustfmt::skip]
        let cases = [
            // x     gate  up    down  y
            (1.0, 1.0, 1.0, 1.0, 0.8411919906082768),
            (2.0, 0.5, 3.0, -1.0, -5.047151943649661),
            (-1.0, 1.0, 1.0, 2.0, 0.3176160187834465),
            (0.0, 1.0, 1.0, 1.0, 0.0),
        ];
        let plan = feed_forward::trace::<GeGlu>(1, 1, false);
        for (x, gate, up, down, expected) in cases {
            let weights: [(&str, &[f32]); 3] = [
                ("gate_proj.weight", &[gate]),
                ("up_proj.weight", &[up]),
                ("down_proj.weight", &[down]),
            ];
            let y = feed_forward::run(&plan, &[x], &weights);
            assert!((y[0] - expected).abs() < 1e-9, "{x}: {}, expected {expected}", y[0]);
        }
    }
}
