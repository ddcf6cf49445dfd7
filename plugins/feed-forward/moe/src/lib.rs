//! A mixture of gated experts: every token goes to a few, whose results are summed by weight.
//!
//! Source: Shazeer et al., "Outrageously Large Neural Networks", arXiv:1701.06538; shared experts: Dai et
//! al., "DeepSeekMoE", arXiv:2401.06066.

use plugin_api::prelude::*;

/// Traces the sum over what the router chose of `counts · down(silu(gate(x)) · up(x))`.
#[derive(Debug)]
pub struct Moe;

impl Capability for Moe {
    const NAME: &'static str = "moe";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Moe {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("moe/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        if !g.has_weight("experts.gate_proj.weight") {
            return Ok(vec![gated(g, x[0], "")?]);
        }
        let routed = routed(g, x[0])?;
        if !g.has_weight("shared_experts.gate_proj.weight") {
            return Ok(vec![routed]);
        }
        let shared = gated(g, x[0], "shared_experts.")?;
        Ok(vec![g.add(routed, shared)?])
    }
}

impl FeedForward for Moe {}

/// What the experts make of the tokens that chose them.
fn routed(g: &mut dyn OpSink, x: Val) -> Result<Val> {
    let [counts, chosen] = g.slot("moe-router", "", &[x])?[..] else {
        return Err(Error::shape("slot `moe-router`", "counts and experts", "something else"));
    };
    let choices = g.spec(counts).width()?;
    let (gate, up) = (experts(g, x, "gate_proj", chosen)?, experts(g, x, "up_proj", chosen)?);
    let inner = fused::swiglu(g, gate, up)?;
    let results = experts(g, inner, "down_proj", chosen)?;
    let width = g.spec(results).width()?;
    let counts = g.reshape(counts, &[-1, choices as i64, 1])?;
    let results = g.mul(results, counts)?;
    // In the order of their choice: no bit depends on how the experts were run.
    let mut sum = None;
    for choice in 0..choices {
        let one = g.slice(results, 1, choice, 1)?;
        let one = g.reshape(one, &[-1, width as i64])?;
        sum = Some(match sum {
            None => one,
            Some(sum) => g.add(sum, one)?,
        });
    }
    sum.ok_or_else(|| Error::shape("slot `moe-router`", "one choice or more", choices))
}

fn experts(g: &mut dyn OpSink, x: Val, name: &str, chosen: Val) -> Result<Val> {
    let weight = g.weight(&format!("experts.{name}.weight"))?;
    g.matmul_experts(x, weight, chosen)
}

/// A part that every token goes through.
fn gated(g: &mut dyn OpSink, x: Val, scope: &str) -> Result<Val> {
    let gate = g.linear(x, &format!("{scope}gate_proj"))?;
    let up = g.linear(x, &format!("{scope}up_proj"))?;
    let inner = fused::swiglu(g, gate, up)?;
    g.linear(inner, &format!("{scope}down_proj"))
}

export_plugin!(Moe);

#[cfg(test)]
mod tests {
    use plugin_api::testing::feed_forward;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        feed_forward::suite::<Moe>();
    }

    /// Experts of one number each: the router of a scene takes the best two of four.
    #[test]
    fn sums_what_the_chosen_experts_make() {
        let weights: [(&str, &[f32]); 4] = [
            ("router.weight", &[0.0, 3.0_f32.ln(), 0.5, 6.0_f32.ln()]),
            ("experts.gate_proj.weight", &[1.0; 4]),
            ("experts.up_proj.weight", &[1.0; 4]),
            ("experts.down_proj.weight", &[1000.0, 10.0, 1000.0, 1.0]),
        ];
        let plan = feed_forward::trace_experts::<Moe>(1, 1, 4);
        let y = feed_forward::run(&plan, &[1.0], &weights);
        let silu = 0.7310585786300049;
        let expected = silu * (1.0 / 3.0 * 10.0 + 2.0 / 3.0 * 1.0);
        assert!((y[0] - expected).abs() < 1e-6, "{y:?}, not {expected}");
    }

    #[test]
    fn shared_experts_are_for_every_token() {
        let mut weights: Vec<(&str, &[f32])> = vec![
            ("router.weight", &[0.0, 1.0]),
            ("experts.gate_proj.weight", &[1.0; 2]),
            ("experts.up_proj.weight", &[1.0; 2]),
            ("experts.down_proj.weight", &[3.0; 2]),
        ];
        let plan = feed_forward::trace_experts::<Moe>(1, 1, 2);
        let without = feed_forward::run(&plan, &[1.0], &weights);
        let shared =
            ["gate_proj", "up_proj", "down_proj"].map(|n| format!("shared_experts.{n}.weight"));
        weights.extend(shared.iter().map(|name| (name.as_str(), &[1.0_f32][..])));
        let plan = feed_forward::trace_experts_with::<Moe>(1, 1, 2, 1);
        let with = feed_forward::run(&plan, &[1.0], &weights);
        assert!((with[0] - without[0] * 4.0 / 3.0).abs() < 1e-6, "{with:?} {without:?}");
    }
}
