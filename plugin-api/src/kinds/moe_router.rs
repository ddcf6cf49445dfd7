//! Routers of a mixture of experts: which experts a token goes to, and how much each counts; and what keeps their load even.

use super::{Traced, kind};
use crate::error::Result;
use crate::plan::{Attrs, OpSink, OpSinkExt, Val, ops};

/// Traces `[x [tokens, hidden_size]]` into two values: how much each choice counts, `f32 [tokens,
/// choices]`, and which expert it is, `u32 [tokens, choices]`. No token chooses an expert twice.
///
/// Its weights are called `router.weight` `[experts, hidden_size]`, and `router.bias`. What is added for the choice
/// alone is called [`CORRECTION_BIAS`].
pub trait MoeRouter: Traced {}

kind!(MoeRouter, "moe-router", EngineStep, traced: true);

/// The weight `[experts]` that is added for the choice and for nothing else: training steers it by load, not by a gradient.
pub const CORRECTION_BIAS: &str = "router.e_score_correction_bias";

/// How many tokens chose each expert, `[experts]`: `chosen u32 [tokens, choices]` among as many as `logits [tokens, experts]`
/// have. No gradient passes through.
///
/// # Errors
///
/// Whatever the sink returns; likewise the others here.
pub fn load(g: &mut dyn OpSink, logits: Val, chosen: Val) -> Result<Val> {
    let nothing = g.full_like(logits, 0.0)?;
    let picked = g.one(ops::TAKE_ALONG, &[nothing, chosen], Attrs::new())?;
    let ones = g.full_like(picked, 1.0)?;
    let choices = g.one(ops::SCATTER_ALONG, &[nothing, chosen, ones], Attrs::new())?;
    g.unary(ops::REDUCE_ROWS, choices)
}

/// The balance loss `[1]`: `E · Σ f_e P_e`, with `f_e` the share of expert `e` in the load `[experts]`, and `P_e` the mean of
/// its probability over tokens. Even load gives 1, and one expert for all gives `E`, however many a token chooses.
///
/// `probabilities [tokens, experts]` sum to 1 over each row; tokens count as `shares [tokens, 1]` says. Only probabilities have a
/// gradient.
///
/// Source: Fedus et al., "Switch Transformers", arXiv:2101.03961, equations 4 to 6, with `f` over all choices of a token, so
/// that it sums to 1 for any number of them.
pub fn balance_loss(g: &mut dyn OpSink, probabilities: Val, load: Val, shares: Val) -> Result<Val> {
    let experts = g.spec(probabilities).width()?;
    let total = g.sum(load)?;
    // Where nothing counts, nothing is shared.
    let least = g.full_like(total, LEAST)?;
    let total = g.one(ops::MAX, &[total, least], Attrs::new())?;
    let parts = g.one(ops::DIV, &[load, total], Attrs::new())?;
    let weighed = g.mul(probabilities, shares)?;
    let means = g.unary(ops::REDUCE_ROWS, weighed)?;
    let products = g.mul(means, parts)?;
    let sum = g.sum(products)?;
    g.scale(sum, experts as f64)
}

/// The router z-loss `[1]`: the mean of `(ln Σ e^z)²` over tokens, which count as `shares [tokens, 1]` says; `logits z [tokens,
/// experts]`.
///
/// Source: Zoph et al., "ST-MoE", arXiv:2202.08906, equation 5.
pub fn z_loss(g: &mut dyn OpSink, logits: Val, shares: Val) -> Result<Val> {
    let greatest = g.unary(ops::REDUCE_MAX, logits)?;
    let below = g.sub(logits, greatest)?;
    let weights = g.unary(ops::EXP, below)?;
    let total = g.sum(weights)?;
    let log = g.unary(ops::LOG, total)?;
    let log = g.add(log, greatest)?;
    let square = g.mul(log, log)?;
    let weighed = g.mul(square, shares)?;
    g.unary(ops::REDUCE_ROWS, weighed)
}

/// Moves the bias of each expert by `rate`: up where its load is below the mean, down where it is above.
///
/// Source: Wang et al., "Auxiliary-Loss-Free Load Balancing", arXiv:2408.15664, algorithm 1.
pub fn steer(bias: &mut [f32], load: &[f32], rate: f32) {
    let mean = load.iter().map(|&n| f64::from(n)).sum::<f64>() / load.len().max(1) as f64;
    for (bias, &load) in bias.iter_mut().zip(load) {
        let missing = mean - f64::from(load);
        if missing != 0.0 {
            *bias += rate * missing.signum() as f32;
        }
    }
}

/// Far below the share of any token.
const LEAST: f64 = 1e-6;
