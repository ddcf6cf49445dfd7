//! Contract suite of routers.

use super::interpreter::{Feed, Numbers};
use super::random::Random;
use super::traced::{ODD_SIZES, Scene, check_instances, check_name, made, random_feed};
use super::{Make, called, gradient, make};
use crate::config::Config;
use crate::error::Result;
use crate::kinds::moe_router::MoeRouter;
use crate::kinds::{Capability, LayerRef, SemanticId, Traced};
use crate::plan::{Dim, OpSink, Plan, Spec, Val};
use crate::tensor::DType;

/// Runs the whole suite.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + MoeRouter + 'static>() {
    check_name::<T>();
    suite_of(&make::<dyn MoeRouter, T>);
}

/// The same for routers that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn MoeRouter>) {
    let router = check_instances(make);
    for (hidden, experts, choices) in [(8, 4, 2), (7, 8, 1), (16, 8, 3)] {
        let plan = trace_part(&*router, hidden, experts, choices);
        check_choices(&*router, &plan, experts);
        // Nothing is known of what a callback computes, its gradient least of all.
        if !called::has_calls(&plan) {
            gradient::check(&plan, &random_feed(&plan, 3, &mut Random::new(11)));
        }
    }
}

/// The plan over `x [tokens, hidden]` with the weight `router.weight`: counts and experts.
///
/// # Panics
///
/// If the router cannot be traced.
pub fn trace<T: Capability + MoeRouter>(hidden: u64, experts: u64, choices: u64) -> Plan {
    trace_part(&made::<T>(), hidden, experts, choices)
}

/// The same with other hyperparameters and further weights; `[hidden, experts]` are sizes.
///
/// # Panics
///
/// If the router cannot be traced.
pub fn trace_with<T: Capability + MoeRouter>(
    config: &Config,
    sizes: [u64; 2],
    weights: &[(&str, &[u64])],
) -> Plan {
    trace_scene(&made::<T>(), config, sizes, weights)
}

fn trace_part(part: &dyn Traced, hidden: u64, experts: u64, choices: u64) -> Plan {
    let config = Config::new()
        .with("hidden_size", hidden as i64)
        .with("num_experts_per_tok", choices as i64);
    trace_scene(part, &config, [hidden, experts], &[])
}

fn trace_scene(
    part: &dyn Traced,
    config: &Config,
    [hidden, experts]: [u64; 2],
    weights: &[(&str, &[u64])],
) -> Plan {
    let scene = Scene::new(config).weight("router.weight", &[experts, hidden]);
    let scene = weights.iter().fold(scene, |scene, (name, dims)| scene.weight(name, dims));
    let x = Spec::f32([Dim::TOKENS, hidden.into()]);
    let traced = || match scene.trace(part, &[("x", x.clone())]) {
        Ok(plan) => plan,
        Err(error) => panic!("{}: cannot be traced: {error}", part.semantic_id()),
    };
    let plan = traced();
    assert_eq!(plan.to_bytes(), traced().to_bytes(), "equal traces give equal plans");
    let specs: Vec<&Spec> = plan.outputs.iter().map(|port| plan.spec(port.val)).collect();
    let is_pair = matches!(specs[..], [counts, chosen]
        if counts.dtype == DType::F32 && chosen.dtype == DType::U32
            && counts.dims == chosen.dims && counts.dims[0] == Dim::TOKENS && counts.dims.len() == 2);
    assert!(is_pair, "f32 and u32 [tokens, choices] are what a router gives, not {specs:?}");
    plan
}

/// Every token chooses experts that exist, each once, and as it would alone.
fn check_choices(router: &dyn Traced, plan: &Plan, experts: u64) {
    let mut random = Random::new(5);
    for tokens in ODD_SIZES {
        let feed = random_feed(plan, tokens, &mut random);
        let (counts, chosen) = run_plan(router, plan, &feed);
        assert_eq!(counts.len(), chosen.len(), "{tokens} tokens: one count a choice");
        assert!(counts.iter().all(|x| x.is_finite() && *x >= 0.0), "{tokens} tokens: {counts:?}");
        let choices = chosen.len().checked_div(tokens).unwrap_or(1).max(1);
        for mine in chosen.chunks(choices) {
            let mut once = mine.to_vec();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), mine.len(), "an expert is chosen twice: {mine:?}");
            assert!(mine.iter().all(|&expert| u64::from(expert) < experts), "{mine:?}");
        }
        if tokens > 1 {
            let (alone, its) = run_plan(router, plan, &feed.rows(plan, 0, 1));
            assert_eq!(alone[..], counts[..choices], "a row does not depend on its mates");
            assert_eq!(its[..], chosen[..choices], "a row does not depend on its mates");
        }
    }
}

/// Runs a plan of [`trace`] on rows of `x`: counts and experts of each row.
///
/// # Panics
///
/// If the plan does not run, as one with calls.
pub fn run(plan: &Plan, x: &[f32], weights: &[(&str, &[f32])]) -> (Vec<f64>, Vec<u32>) {
    run_calling(&Nobody, plan, x, weights)
}

/// The same for a plan that calls `router`.
///
/// # Panics
///
/// If the plan does not run.
pub fn run_calling(
    router: &dyn Traced,
    plan: &Plan,
    x: &[f32],
    weights: &[(&str, &[f32])],
) -> (Vec<f64>, Vec<u32>) {
    let input = &plan.inputs[0];
    let width = plan.spec(input.val).width().expect("rows have a width") as usize;
    let feed = Feed::new().size(Dim::TOKENS, x.len() / width).reals(&input.name, x);
    let feed = weights.iter().fold(feed, |feed, (name, values)| feed.reals(name, values));
    run_plan(router, plan, &feed)
}

fn run_plan(router: &dyn Traced, plan: &Plan, feed: &Feed) -> (Vec<f64>, Vec<u32>) {
    let results = called::run(router, plan, feed);
    let results = results.unwrap_or_else(|error| panic!("the plan does not run: {error}\n{plan}"));
    match <[Numbers<f64>; 2]>::try_from(results) {
        Ok([Numbers::Reals(counts), Numbers::Indices(chosen)]) => (counts, chosen),
        _ => panic!("counts and experts are what a router gives\n{plan}"),
    }
}

/// A part that is never called.
struct Nobody;

impl Traced for Nobody {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("nobody/1")
    }

    fn trace(&self, _: &mut dyn OpSink, _: &[Val], _: &LayerRef<'_>) -> Result<Vec<Val>> {
        Ok(Vec::new())
    }
}
