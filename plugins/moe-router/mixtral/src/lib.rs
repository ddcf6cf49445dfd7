//! Mixtral's router: softmax over the logits of the experts that were chosen.
//!
//! Source: Jiang et al., "Mixtral of Experts", arXiv:2401.04088, section 2.1. Qwen3-MoE's is the same
//! (arXiv:2505.09388); Qwen2-MoE's takes shares of all (arXiv:2407.10671).

use plugin_api::prelude::*;

/// Traces `top_k` of the logits and their softmax.
#[derive(Debug)]
pub struct Mixtral;

impl Capability for Mixtral {
    const NAME: &'static str = "mixtral";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Mixtral {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("mixtral/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let logits = g.linear(x[0], "router")?;
        let experts = g.spec(logits).width()?;
        let choices = at.config.count_or("num_experts_per_tok", 2.min(experts), 1..=experts)?;
        let top = Attrs::new().int("k", choices as i64);
        if at.config.flag_or("norm_topk_prob", true)? {
            let best = g.op(ops::TOP_K, &[logits], top)?;
            Ok(vec![g.unary(ops::SOFTMAX, best[0])?, best[1]])
        } else {
            let shares = g.unary(ops::SOFTMAX, logits)?;
            g.op(ops::TOP_K, &[shares], top)
        }
    }
}

impl MoeRouter for Mixtral {}

export_plugin!(Mixtral);

#[cfg(test)]
mod tests {
    use plugin_api::testing::moe_router;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        moe_router::suite::<Mixtral>();
    }

    /// One expert for each of three inputs, with logits ln 1, ln 2 and ln 6 of the first row.
    #[test]
    fn shares_go_to_the_best() {
        let weight = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let x = [0.0, 2.0_f32.ln(), 6.0_f32.ln()];
        let plan = moe_router::trace::<Mixtral>(3, 3, 2);
        let (counts, chosen) = moe_router::run(&plan, &x, &[("router.weight", &weight)]);
        assert_eq!(chosen, [2, 1]);
        assert!((counts[0] - 0.75).abs() < 1e-6 && (counts[1] - 0.25).abs() < 1e-6, "{counts:?}");
    }
}
