//! SwiGLU: a feed-forward part whose gate is curved by SiLU.
//!
//! Source: Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202.

use plugin_api::prelude::*;

/// Traces `down(silu(gate(x)) · up(x))`.
#[derive(Debug)]
pub struct SwiGlu;

impl Capability for SwiGlu {
    const NAME: &'static str = "swiglu";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for SwiGlu {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("swiglu/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let (gate, up) = (g.linear(x[0], "gate_proj")?, g.linear(x[0], "up_proj")?);
        let gated = fused::swiglu(g, gate, up)?;
        Ok(vec![g.linear(gated, "down_proj")?])
    }
}

impl FeedForward for SwiGlu {}

export_plugin!(SwiGlu);

#[cfg(test)]
mod tests {
    use plugin_api::testing::feed_forward;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        feed_forward::suite::<SwiGlu>();
    }

    #[test]
    fn curves_the_gate_and_multiplies() {
        #[rustfmt::skip]
        let cases = [
            // x     gate  up    down  y
            (1.0, 1.0, 1.0, 1.0, 0.7310585786300049),
            (2.0, 0.5, 3.0, -1.0, -4.38635147178003),
            (-1.0, 1.0, 1.0, 2.0, 0.5378828427399902),
            (0.0, 1.0, 1.0, 1.0, 0.0),
        ];
        let plan = feed_forward::trace::<SwiGlu>(1, 1, false);
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
