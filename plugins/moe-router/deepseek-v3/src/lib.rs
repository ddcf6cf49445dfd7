//! DeepSeek-V3's router: sigmoids, the best of the best groups, balanced by a bias.
//!
//! Source: DeepSeek-AI, "DeepSeek-V3 Technical Report", arXiv:2412.19437, section 2.1.2; the bias: Wang
//! et al., "Auxiliary-Loss-Free Load Balancing", arXiv:2408.15664.

use plugin_api::kinds::moe_router::CORRECTION_BIAS as BIAS;
use plugin_api::prelude::*;

/// Traces a choice by biased scores, weighed by the scores themselves.
#[derive(Debug)]
pub struct DeepSeekV3;

impl Capability for DeepSeekV3 {
    const NAME: &'static str = "deepseek-v3";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for DeepSeekV3 {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("deepseek-v3/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let logits = g.linear(x[0], "router")?;
        let experts = g.spec(logits).width()?;
        let choices = at.config.count_or("num_experts_per_tok", 2.min(experts), 1..=experts)?;
        let scores = g.unary(ops::SIGMOID, logits)?;
        let biased = if g.has_weight(BIAS) {
            let bias = g.weight(BIAS)?;
            g.add(scores, bias)?
        } else {
            scores
        };
        let allowed = of_best_groups(g, biased, experts, at.config)?;
        let top = Attrs::new().int("k", choices as i64);
        let chosen = g.op(ops::TOP_K, &[allowed], top)?[1];
        let mut counts = g.one(ops::TAKE_ALONG, &[scores, chosen], Attrs::new())?;
        if choices > 1 && at.config.flag_or("norm_topk_prob", true)? {
            let sum = g.sum(counts)?;
            let sum = g.offset(sum, 1e-20)?;
            counts = g.one(ops::DIV, &[counts, sum], Attrs::new())?;
        }
        let scaling = at.config.number_or("routed_scaling_factor", 1.0, 0.0..=1e6)?;
        Ok(vec![if scaling == 1.0 { counts } else { g.scale(counts, scaling)? }, chosen])
    }
}

impl MoeRouter for DeepSeekV3 {}

/// The scores, with zero for experts outside the best groups.
fn of_best_groups(g: &mut dyn OpSink, scores: Val, experts: u64, config: &Config) -> Result<Val> {
    let groups = config.count_or("n_group", 1, 1..=experts)?;
    let kept = config.count_or("topk_group", groups, 1..=groups)?;
    if kept == groups {
        return Ok(scores);
    }
    if !experts.is_multiple_of(groups) {
        let found = format!("{experts} experts in {groups} groups");
        return Err(Error::shape("n_group", "groups of one size", found));
    }
    let size = experts / groups;
    let grouped = g.reshape(scores, &[-1, groups as i64, size as i64])?;
    let best = g.op(ops::TOP_K, &[grouped], Attrs::new().int("k", 2.min(size) as i64))?[0];
    let sums = g.sum(best)?;
    let sums = g.reshape(sums, &[-1, groups as i64])?;
    let kept = g.op(ops::TOP_K, &[sums], Attrs::new().int("k", kept as i64))?;
    let (none, all) = (g.full_like(sums, 0.0)?, g.full_like(kept[0], 1.0)?);
    let mask = g.one(ops::SCATTER_ALONG, &[none, kept[1], all], Attrs::new())?;
    let mask = g.reshape(mask, &[-1, groups as i64, 1])?;
    let masked = g.mul(grouped, mask)?;
    g.reshape(masked, &[-1, experts as i64])
}

export_plugin!(DeepSeekV3);

#[cfg(test)]
mod tests {
    use plugin_api::testing::{golden, moe_router};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        moe_router::suite::<DeepSeekV3>();
    }

    const BY_MLX: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/router.json"));
    const BY_FORMULA: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/vectors.json"));

    /// Eight tokens, 32 experts in eight groups: the logits are what the router reads, its weights being the
    /// identity. `names` are those of the fields with the experts, in order, and with what they count.
    fn check(json: &str, entry: &str, names: [&str; 2]) {
        let field = |name: &str| golden::numbers(json, entry, name);
        let floats = |name: &str| field(name).into_iter().map(|x| x as f32).collect::<Vec<f32>>();
        let config = Config::new()
            .with("num_experts_per_tok", 4)
            .with("n_group", 8)
            .with("topk_group", 3)
            .with("routed_scaling_factor", 2.5);
        let plan = moe_router::trace_with::<DeepSeekV3>(&config, [32, 32], &[(BIAS, &[32])]);
        let identity: Vec<f32> =
            (0..32 * 32).map(|i| if i / 32 == i % 32 { 1.0 } else { 0.0 }).collect();
        let weights: [(&str, &[f32]); 2] = [("router.weight", &identity), (BIAS, &floats("bias"))];
        let (counts, chosen) = moe_router::run(&plan, &floats("logits"), &weights);
        let mut pairs: Vec<(u32, f64)> = chosen.into_iter().zip(counts).collect();
        pairs.chunks_mut(4).for_each(|token| token.sort_by_key(|(expert, _)| *expert));
        let [chosen, counts] = names.map(field);
        assert_eq!((chosen.len(), counts.len()), (pairs.len(), pairs.len()));
        let expected = chosen.into_iter().zip(counts);
        for (i, ((expert, count), (theirs, weight))) in pairs.into_iter().zip(expected).enumerate()
        {
            assert_eq!(f64::from(expert), theirs, "token {}", i / 4);
            assert!((count - weight).abs() < 1e-6, "token {}: {count}, not {weight}", i / 4);
        }
    }

    #[test]
    fn routes_as_mlx_lm_does() {
        check(BY_MLX, "deepseek-v3", ["chosen", "counts"]);
    }

    #[test]
    fn routes_as_its_formula_says() {
        check(BY_FORMULA, "dsv3_router", ["idx_sorted", "w"]);
    }
}
