//! Causal lm: each token is to predict the one after it.
//!
//! Source: Bengio et al., "A Neural Probabilistic Language Model", JMLR 3, 2003.

use plugin_api::prelude::*;

/// Traces `Σ loss_weights · cross entropy`, in nats.
#[derive(Debug)]
pub struct CausalLm;

impl Capability for CausalLm {
    const NAME: &'static str = "causal-lm";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for CausalLm {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("causal-lm/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let &[logits] = x else {
            return Err(Error::shape("causal-lm", "logits", x.len()));
        };
        let Some(&rows) = g.spec(logits).dims.first() else {
            return Err(Error::shape("causal-lm", "[rows, vocab_size]", g.spec(logits)));
        };
        let targets = g.input("targets", Spec::u32([rows]))?;
        let weights = g.input("loss_weights", Spec::f32([rows, Dim::Fixed(1)]))?;
        let losses = fused::cross_entropy(g, logits, targets)?;
        let weighed = g.mul(losses, weights)?;
        Ok(vec![g.unary(ops::REDUCE_ROWS, weighed)?])
    }
}

impl Objective for CausalLm {}

export_plugin!(CausalLm);

#[cfg(test)]
mod tests {
    use plugin_api::testing::objective;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        objective::suite::<CausalLm>();
    }

    #[test]
    fn weighs_the_surprise_of_each_token() {
        // Nine equal logits: ln 9 nats, whatever the target; then one that has all the weight.
        let plan = objective::trace::<CausalLm>();
        let mut logits = vec![0.0; 18];
        logits[9 + 4] = 100.0;
        let loss = objective::run(&plan, &logits, &[3, 4], &[0.25, 0.75]);
        assert!((loss - 0.25 * 9.0_f64.ln()).abs() < 1e-12, "{loss}");
        let loss = objective::run(&plan, &logits, &[3, 5], &[0.25, 0.75]);
        assert!((loss - (0.25 * 9.0_f64.ln() + 75.0)).abs() < 1e-9, "{loss}");
    }
}
