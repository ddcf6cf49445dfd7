//! Products with chosen experts as products with all of them, most of which count nothing: what has a gradient.

use std::collections::BTreeMap;

use super::{Copy, copy_node};
use crate::error::{Error, Result};
use crate::plan::ops::{self, Attr, Attrs};
use crate::plan::sink::{OpSink, OpSinkExt};
use crate::plan::{Dim, Node, NodeKind, Plan, PlanBuilder, Spec, Val};

/// The plan with every `matmul_experts` as a product with all experts, of which each choice keeps its own: ops that every
/// backend trains, for as much work as all experts are.
///
/// With a `capacity_factor`, an expert takes at most `⌈factor · choices · length / experts⌉` choices of a sequence, the earlier
/// tokens first, as if each sequence were a group; what it does not take comes out as zeros. `place` and `length` are then
/// inputs `f32 [tokens, 1]`: which token of its sequence each is, from 1, and how many its sequence has.
///
/// # Errors
///
/// [`Error::ShapeMismatch`] for experts that are no stack of matrices.
///
/// # Source
///
/// Capacity: Fedus et al., "Switch Transformers", arXiv:2101.03961, section 2.2; groups: Lepikhin et al., "GShard",
/// arXiv:2006.16668, section 2.2.
pub fn with_all_experts(plan: &Plan, capacity_factor: Option<f64>) -> Result<Plan> {
    let mut copy = Copy::new(plan);
    copy.inputs(|_| true)?;
    copy.weights(|_| true)?;
    copy.states()?;
    let mut kept = BTreeMap::new();
    for node in &plan.nodes {
        if let NodeKind::Prim(ops::MATMUL_EXPERTS, _) = node.kind {
            all_experts(&mut copy, node, capacity_factor, &mut kept)?;
        } else {
            copy_node(&mut copy.g, plan, node, &mut copy.to)?;
        }
    }
    copy.finish()
}

/// `kept` has `[tokens, choices, experts]` for each value that says who was chosen: 1 for the expert of each choice.
fn all_experts(
    copy: &mut Copy<'_>,
    node: &Node,
    capacity_factor: Option<f64>,
    kept: &mut BTreeMap<Val, Val>,
) -> Result<()> {
    let (&[x, w, chosen], &[result]) = (&node.inputs[..], &node.outputs[..]) else {
        return Err(Error::shape(ops::MATMUL_EXPERTS, "3 inputs", node.inputs.len()));
    };
    let [x, w, chosen] = [copy.of(x)?, copy.of(w)?, copy.of(chosen)?];
    let g = &mut copy.g;
    let sizes: Vec<Option<u64>> = g.spec(w).dims.iter().map(|dim| dim.fixed()).collect();
    let &[Some(experts), Some(n), Some(k)] = &sizes[..] else {
        return Err(Error::shape(ops::MATMUL_EXPERTS, "experts [experts, n, k]", g.spec(w)));
    };
    let choices = g.spec(chosen).width()?;
    let [e, n, c] = [experts, n, choices].map(|size| size as i64);
    let stacked = g.reshape(w, &[e * n, k as i64])?;
    let mut all = g.matmul(x, stacked)?;
    if g.spec(x).dims.len() == 2 {
        all = g.reshape(all, &[-1, 1, e * n])?;
        all = g.concat(&vec![all; choices as usize], 1)?;
    }
    let mine = match kept.get(&chosen) {
        Some(mine) => *mine,
        None => {
            let like = g.slice(all, 2, 0, experts)?;
            let mine = one_hot(g, like, chosen)?;
            let mine = match capacity_factor {
                Some(factor) => taken(g, mine, factor)?,
                None => mine,
            };
            kept.insert(chosen, mine);
            mine
        }
    };
    let mine = g.reshape(mine, &[-1, c * e, 1])?;
    let all = g.reshape(all, &[-1, c * e, n])?;
    let own = g.mul(all, mine)?;
    let own = g.reshape(own, &[-1, c, e, n])?;
    let sum = summed(g, own, [0, 1, 3, 2])?;
    copy.to[result.index()] = Some(g.reshape(sum, &[-1, c, n])?);
    Ok(())
}

/// 1 at the expert of each choice, `[tokens, choices, experts]` as `like`.
fn one_hot(g: &mut PlanBuilder, like: Val, chosen: Val) -> Result<Val> {
    let choices = g.spec(chosen).width()?;
    let chosen = g.reshape(chosen, &[-1, choices as i64, 1])?;
    let nothing = g.full_like(like, 0.0)?;
    let one = g.slice(nothing, 2, 0, 1)?;
    let one = g.full_like(one, 1.0)?;
    g.one(ops::SCATTER_ALONG, &[nothing, chosen, one], Attrs::new())
}

/// What is left of `mine [tokens, choices, experts]` where experts take so many.
fn taken(g: &mut PlanBuilder, mine: Val, factor: f64) -> Result<Val> {
    let &[tokens, Dim::Fixed(choices), Dim::Fixed(experts)] = &g.spec(mine).dims[..] else {
        return Err(Error::shape("choices", "[tokens, choices, experts]", g.spec(mine)));
    };
    let column = Spec::f32([tokens, Dim::Fixed(1)]);
    let (place, length) = (g.input("place", column.clone())?, g.input("length", column)?);
    let sequence_index = g.input("sequence_index", Spec::u32([tokens]))?;
    // Attention that likes all alike is the mean over the tokens so far: times their number it counts them.
    let each = summed(g, mine, [0, 2, 1])?;
    let each = g.reshape(each, &[-1, 1, experts as i64])?;
    let alike = g.full_like(each, 0.0)?;
    let attrs = Attrs::new().float("scale", 1.0).int("causal", 1);
    let means = g.one(ops::ATTEND_WITHIN, &[alike, alike, each, sequence_index], attrs)?;
    let means = g.reshape(means, &[-1, experts as i64])?;
    let rank = g.mul(means, place)?;
    let room = g.scale(length, factor * choices as f64 / experts as f64)?;
    // A rank is taken up to the next whole number: less than one above, by more than sums are off.
    let above = g.sub(rank, room)?;
    let below = g.unary(ops::NEG, above)?;
    let below = g.offset(below, 1.0 - 1e-3)?;
    let is_taken = g.unary(ops::IS_POSITIVE, below)?;
    let is_taken = g.reshape(is_taken, &[-1, 1, experts as i64])?;
    let is_taken = g.concat(&vec![is_taken; choices as usize], 1)?;
    g.mul(mine, is_taken)
}

/// The sum over the axis that `axes` puts last, with an extent of 1.
fn summed<const N: usize>(g: &mut PlanBuilder, x: Val, axes: [i64; N]) -> Result<Val> {
    let axes = Attrs::new().with("axes", Attr::Ints(axes.to_vec()));
    let moved = g.one(ops::TRANSPOSE, &[x], axes)?;
    g.sum(moved)
}
