//! The Switch Transformer's router: one expert for each token, weighed by its probability.
//!
//! Source: Fedus et al., "Switch Transformers", arXiv:2101.03961, section 2.1.

use plugin_api::prelude::*;

/// Traces the largest element of the softmax, not divided by itself: through it the router learns.
#[derive(Debug)]
pub struct Switch;

impl Capability for Switch {
    const NAME: &'static str = "switch";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Switch {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("switch/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let logits = g.linear(x[0], "router")?;
        let shares = g.unary(ops::SOFTMAX, logits)?;
        g.op(ops::TOP_K, &[shares], Attrs::new().int("k", 1))
    }
}

impl MoeRouter for Switch {}

export_plugin!(Switch);

#[cfg(test)]
mod tests {
    use plugin_api::testing::moe_router;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        moe_router::suite::<Switch>();
    }

    #[test]
    fn counts_are_probabilities_among_all() {
        let weight = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let x = [0.0, 2.0_f32.ln(), 7.0_f32.ln()];
        let plan = moe_router::trace::<Switch>(3, 3, 2);
        let (counts, chosen) = moe_router::run(&plan, &x, &[("router.weight", &weight)]);
        assert_eq!(chosen, [2]);
        assert!((counts[0] - 0.7).abs() < 1e-6, "{counts:?}");
    }
}
