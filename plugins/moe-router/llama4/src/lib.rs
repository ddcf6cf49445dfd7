//! Llama 4's router: the experts of the largest logits, each weighed by the sigmoid of its own.
//!
//! Source: Meta, `modeling_llama4.py` of transformers 5.23.0, `Llama4Router`.

use plugin_api::prelude::*;

/// Traces `top_k` of the logits and their sigmoids, which do not know of each other.
#[derive(Debug)]
pub struct Llama4;

impl Capability for Llama4 {
    const NAME: &'static str = "llama4";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Llama4 {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("llama4/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let logits = g.linear(x[0], "router")?;
        let experts = g.spec(logits).width()?;
        let choices = at.config.count_or("num_experts_per_tok", 1, 1..=experts)?;
        let best = g.op(ops::TOP_K, &[logits], Attrs::new().int("k", choices as i64))?;
        Ok(vec![g.unary(ops::SIGMOID, best[0])?, best[1]])
    }
}

impl MoeRouter for Llama4 {}

export_plugin!(Llama4);

#[cfg(test)]
mod tests {
    use plugin_api::testing::moe_router;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        moe_router::suite::<Llama4>();
    }

    #[test]
    fn counts_are_sigmoids_of_the_largest_logits() {
        let weight = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let x = [0.0, 3.0_f32.ln(), -1.0];
        let plan = moe_router::trace::<Llama4>(3, 3, 2);
        let (counts, chosen) = moe_router::run(&plan, &x, &[("router.weight", &weight)]);
        assert_eq!(chosen, [1, 0]);
        assert!((counts[0] - 0.75).abs() < 1e-6 && (counts[1] - 0.5).abs() < 1e-6, "{counts:?}");
    }
}
