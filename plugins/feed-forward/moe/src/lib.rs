//! A mixture of gated experts: every token goes to a few, whose results are summed by weight.
//!
//! Source: Shazeer et al., "Outrageously Large Neural Networks", arXiv:1701.06538; shared experts: Dai et
//! al., "DeepSeekMoE", arXiv:2401.06066.

use plugin_api::prelude::*;

/// Traces the sum over what the router chose of `counts · down(silu(gate(x)) · up(x))`, or of what takes the
/// place of `silu` where `swiglu_limit` is set. With `scale_expert_inputs` it is `x` that counts are multiplied with.
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

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        if !g.has_weight("experts.gate_proj.weight") {
            return Ok(vec![gated(g, x[0], "")?]);
        }
        let routed = routed(g, x[0], at.config)?;
        if !g.has_weight("shared_experts.gate_proj.weight") {
            return Ok(vec![routed]);
        }
        let shared = gated(g, x[0], "shared_experts.")?;
        Ok(vec![g.add(routed, shared)?])
    }
}

impl FeedForward for Moe {}

/// What the experts make of the tokens that chose them.
fn routed(g: &mut dyn OpSink, x: Val, config: &Config) -> Result<Val> {
    let [counts, chosen] = g.slot("moe-router", "", &[x])?[..] else {
        return Err(Error::shape("slot `moe-router`", "counts and experts", "something else"));
    };
    let choices = g.spec(counts).width()?;
    let counts = g.reshape(counts, &[-1, choices as i64, 1])?;
    let weighs_inputs = config.flag_or("scale_expert_inputs", false)?;
    let x = if weighs_inputs { weighed(g, x, counts, choices)? } else { x };
    let has_biases = NAMES.iter().any(|name| g.has_weight(&format!("experts.{name}.bias")));
    let one = if has_biases { Some(g.full_like(counts, 1.0)?) } else { None };
    let experts = |g: &mut dyn OpSink, x: Val, name: &str| experts(g, x, name, chosen, one);
    let (gate, up) = (experts(g, x, "gate_proj")?, experts(g, x, "up_proj")?);
    let limit = config.number_or("swiglu_limit", 0.0, 0.0..=1e6)?;
    let inner = if limit == 0.0 {
        fused::swiglu(g, gate, up)?
    } else {
        let alpha = config.number_or("swiglu_alpha", 1.702, 0.0..=1e6)?;
        let bounds = (g.full_like(counts, -limit)?, g.full_like(counts, limit)?);
        limited(g, gate, up, bounds, alpha)?
    };
    let results = experts(g, inner, "down_proj")?;
    let width = g.spec(results).width()?;
    let results = if weighs_inputs { results } else { g.mul(results, counts)? };
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

/// `x` for each choice, times what the choice counts: `[tokens, choices, hidden_size]`.
fn weighed(g: &mut dyn OpSink, x: Val, counts: Val, choices: u64) -> Result<Val> {
    let width = g.spec(x).width()?;
    let x = g.reshape(x, &[-1, 1, width as i64])?;
    let x = if choices == 1 { x } else { g.concat(&vec![x; choices as usize], 1)? };
    g.mul(x, counts)
}

/// A product with the experts that were chosen, and their biases, which are matrices `[experts, n, 1]`: the
/// product of `one` with them picks those of each choice.
fn experts(g: &mut dyn OpSink, x: Val, name: &str, chosen: Val, one: Option<Val>) -> Result<Val> {
    let weight = g.weight(&format!("experts.{name}.weight"))?;
    let product = g.matmul_experts(x, weight, chosen)?;
    let bias = format!("experts.{name}.bias");
    let (Some(one), true) = (one, g.has_weight(&bias)) else { return Ok(product) };
    let bias = g.weight(&bias)?;
    let bias = g.matmul_experts(one, bias, chosen)?;
    g.add(product, bias)
}

/// `(up + 1) · gate · sigmoid(alpha · gate)`, with `gate` up to the bound and `up` between both.
///
/// Source: OpenAI, `gpt_oss/torch/model.py`, `swiglu`.
fn limited(
    g: &mut dyn OpSink,
    gate: Val,
    up: Val,
    (low, high): (Val, Val),
    alpha: f64,
) -> Result<Val> {
    let gate = g.one(ops::MIN, &[gate, high], Attrs::new())?;
    let up = g.one(ops::MIN, &[up, high], Attrs::new())?;
    let up = g.one(ops::MAX, &[up, low], Attrs::new())?;
    let share = g.scale(gate, alpha)?;
    let share = g.unary(ops::SIGMOID, share)?;
    let gate = g.mul(gate, share)?;
    let up = g.offset(up, 1.0)?;
    g.mul(up, gate)
}

/// A part that every token goes through.
fn gated(g: &mut dyn OpSink, x: Val, scope: &str) -> Result<Val> {
    let gate = g.linear(x, &format!("{scope}gate_proj"))?;
    let up = g.linear(x, &format!("{scope}up_proj"))?;
    let inner = fused::swiglu(g, gate, up)?;
    g.linear(inner, &format!("{scope}down_proj"))
}

/// The products of an expert.
const NAMES: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

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

    /// Two experts of one number each, which count alike.
    #[test]
    fn bounds_and_biases_are_those_of_the_chosen() {
        for x in [0.5_f32, -2.0, 20.0] {
            let weights: [(&str, &[f32]); 7] = [
                ("router.weight", &[0.0, 0.0]),
                ("experts.gate_proj.weight", &[1.0, 2.0]),
                ("experts.gate_proj.bias", &[0.0, 0.25]),
                ("experts.up_proj.weight", &[1.0, 3.0]),
                ("experts.up_proj.bias", &[0.0, -0.5]),
                ("experts.down_proj.weight", &[1.0, 5.0]),
                ("experts.down_proj.bias", &[0.125, 0.375]),
            ];
            let config = Config::new().with("swiglu_limit", 7.0);
            let plan = feed_forward::trace_biased_experts::<Moe>(&config, 1, 1, 2);
            let found = feed_forward::run(&plan, &[x], &weights)[0];
            let expert = |i: usize| {
                let of = |name: usize| f64::from(weights[name].1[i]);
                let gate = (f64::from(x) * of(1) + of(2)).min(7.0);
                let up = (f64::from(x) * of(3) + of(4)).clamp(-7.0, 7.0);
                (up + 1.0) * gate / (1.0 + (-1.702 * gate).exp()) * of(5) + of(6)
            };
            let expected = (expert(0) + expert(1)) / 2.0;
            assert!((found - expected).abs() < 1e-5, "{x}: {found}, not {expected}");
        }
    }

    #[test]
    fn what_goes_into_experts_can_be_weighed_instead() {
        let weights: [(&str, &[f32]); 4] = [
            ("router.weight", &[0.0, 3.0_f32.ln()]),
            ("experts.gate_proj.weight", &[1.0, 1.0]),
            ("experts.up_proj.weight", &[1.0, 1.0]),
            ("experts.down_proj.weight", &[1.0, 1.0]),
        ];
        let config = Config::new().with("scale_expert_inputs", true);
        let plan = feed_forward::trace_experts_of::<Moe>(&config, 1, 1, 2);
        let found = feed_forward::run(&plan, &[1.0], &weights)[0];
        let expert = |x: f64| x / (1.0 + (-x).exp()) * x;
        let expected = expert(0.75) + expert(0.25);
        assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
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
