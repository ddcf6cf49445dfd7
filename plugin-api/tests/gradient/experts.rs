//! Mixtures of experts: products with all experts are those with the chosen, and have a gradient; the losses of routers are
//! those of transformers.

use plugin_api::kinds::moe_router::{balance_loss, load, steer, z_loss};
use plugin_api::plan::rewrite::with_all_experts;
use plugin_api::testing::golden;

use super::*;

const EXPERTS: u64 = 5;
const CHOICES: u64 = 2;

/// A part with experts `[5, 7, 3]` and `[5, 3, 7]`, routed by its input.
fn mixture() -> Plan {
    plan(|b| {
        let x = b.input("x", rows(3))?;
        let routing = b.input("router", Spec::f32([EXPERTS.into(), 3.into()]))?;
        let up = b.input("up", Spec::f32([EXPERTS.into(), 7.into(), 3.into()]))?;
        let down = b.input("down", Spec::f32([EXPERTS.into(), 3.into(), 7.into()]))?;
        let logits = b.matmul(x, routing)?;
        let top = b.op(ops::TOP_K, &[logits], Attrs::new().int("k", CHOICES as i64))?;
        let counts = b.unary(ops::SOFTMAX, top[0])?;
        let counts = b.reshape(counts, &[-1, CHOICES as i64, 1])?;
        let inner = b.matmul_experts(x, up, top[1])?;
        let inner = b.unary(ops::SILU, inner)?;
        let results = b.matmul_experts(inner, down, top[1])?;
        b.mul(results, counts)
    })
}

fn run(plan: &Plan, feed: &Feed) -> Vec<f64> {
    let results = feed.run::<f64>(plan, FusedAs::Expansion).unwrap();
    results.into_iter().next().unwrap().into_reals().unwrap()
}

#[test]
fn products_with_all_experts_are_those_with_the_chosen() {
    let chosen = mixture();
    let all = with_all_experts(&chosen, None).unwrap();
    let kinds = |plan: &Plan| plan.to_string().contains("matmul_experts");
    assert!(kinds(&chosen) && !kinds(&all));
    for tokens in ODD {
        let feed = feed(&chosen, tokens);
        let (expected, found) = (run(&chosen, &feed), run(&all, &feed));
        assert_eq!(expected.len(), found.len());
        for (expected, found) in expected.iter().zip(&found) {
            assert!((expected - found).abs() < 1e-12, "{found}, not {expected}");
        }
    }
    check(&all, &feed(&all, 7));
    let error = gradient(&chosen, Val(0), &["up"]).unwrap_err();
    assert!(error.to_string().contains("expected one float"), "{error}");
}

#[test]
fn experts_take_so_many_of_a_sequence_and_the_first_first() {
    // Sequences of 8 and 3 tokens; the router is the identity, so that logits say who is chosen.
    let tokens = 11;
    let sequences: Vec<u32> = (0..tokens).map(|token| u32::from(token >= 8)).collect();
    let place: Vec<f32> = (0..8).chain(0..3).map(|place| place as f32 + 1.0).collect();
    let length: Vec<f32> = (0..tokens).map(|token| if token < 8 { 8.0 } else { 3.0 }).collect();
    let whole = mixture();
    for factor in [0.5, 1.0, 1.25, 4.0] {
        let capped = with_all_experts(&whole, Some(factor)).unwrap();
        let mut feed = feed(&whole, tokens).indices("sequence_index", &sequences);
        feed = feed.reals("place", &place).reals("length", &length);
        let (all, found) = (run(&whole, &feed), run(&capped, &feed));
        let [x, routing] = ["x", "router"].map(|name| feed.values_of(name).unwrap());
        let mut taken = [[0_usize; EXPERTS as usize]; 2];
        let mut dropped = 0;
        for token in 0..tokens {
            let logit =
                |e: usize| -> f64 { (0..3).map(|i| x[token * 3 + i] * routing[e * 3 + i]).sum() };
            let mut order: Vec<usize> = (0..EXPERTS as usize).collect();
            order.sort_by(|a, b| logit(*b).total_cmp(&logit(*a)));
            let (sequence, len) = (usize::from(token >= 8), if token < 8 { 8.0 } else { 3.0 });
            let most = (factor * len * CHOICES as f64 / EXPERTS as f64).ceil() as usize;
            for (choice, expert) in order.into_iter().take(CHOICES as usize).enumerate() {
                taken[sequence][expert] += 1;
                let at = (token * CHOICES as usize + choice) * 3;
                let is_taken = taken[sequence][expert] <= most;
                dropped += usize::from(!is_taken);
                for i in at..at + 3 {
                    let expected = if is_taken { all[i] } else { 0.0 };
                    assert!(
                        (found[i] - expected).abs() < 1e-9,
                        "{factor}: token {token}, {choice}"
                    );
                }
            }
        }
        assert_eq!(dropped > 0, factor < 2.0, "{factor}: {dropped}");
    }
}

const LOSSES: &str = include_str!("router_losses.json");

#[test]
fn losses_of_routers_and_their_gradients_are_those_of_transformers() {
    let field = |name: &str| golden::numbers(LOSSES, "losses", name);
    let (logits, tokens) = (field("logits"), 9);
    let chosen: Vec<u32> = field("chosen").into_iter().map(|x| x as u32).collect();
    for (name, of) in [("balance", "of_balance"), ("z", "of_z")] {
        let plan = plan(|b| {
            let logits = b.input("logits", rows(EXPERTS))?;
            let shares = b.input("shares", rows(1))?;
            if name == "z" {
                return z_loss(b, logits, shares);
            }
            let chosen = b.input("chosen", Spec::u32([Dim::TOKENS, CHOICES.into()]))?;
            let load = load(b, logits, chosen)?;
            let probabilities = b.unary(ops::SOFTMAX, logits)?;
            balance_loss(b, probabilities, load, shares)
        });
        let plan = gradient(&plan, plan.outputs[0].val, &["logits"]).unwrap();
        let feed = Feed::new().size(Dim::TOKENS, tokens).doubles("logits", &logits);
        let feed = feed.doubles("shares", &vec![1.0 / tokens as f64; tokens]);
        let results = feed.indices("chosen", &chosen).run::<f64>(&plan, FusedAs::Expansion);
        let results: Vec<Vec<f64>> =
            results.unwrap().into_iter().map(|x| x.into_reals().unwrap()).collect();
        let expected = [field(name), field(of)];
        for (found, expected) in results.iter().flatten().zip(expected.iter().flatten()) {
            // Theirs are 32-bit sums.
            assert!((found - expected).abs() < 1e-6, "{name}: {found}, not {expected}");
        }
        assert_eq!(results.iter().map(Vec::len).collect::<Vec<_>>(), [1, logits.len()]);
    }
}

/// Two of 16 experts for each of 256 tokens, of which some are liked more: the simulation of the paper in small.
#[test]
fn biases_that_follow_the_load_make_it_even() {
    let mut random = Random::new(5);
    let liking: Vec<f32> = (0..16).map(|_| random.signed()).collect();
    let mut bias = [0.0_f32; 16];
    let violation = |load: &[f32]| load.iter().fold(0.0_f32, |most, x| most.max(*x)) / 32.0 - 1.0;
    let mut found = Vec::new();
    for _ in 0..1000 {
        let mut load = [0.0; 16];
        for _ in 0..256 {
            let score = |x: f32| 1.0 / (1.0 + (-x).exp());
            let scores: Vec<f32> =
                liking.iter().zip(&bias).map(|(l, b)| score(l + random.signed()) + b).collect();
            let mut order: Vec<usize> = (0..16).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            order.iter().take(2).for_each(|e| load[*e] += 1.0);
        }
        found.push(violation(&load));
        steer(&mut bias, &load, 1e-3);
    }
    let mean = |part: &[f32]| part.iter().sum::<f32>() / part.len() as f32;
    let (first, last) = (mean(&found[..20]), mean(&found[980..]));
    assert!(first > 1.5 && last < 0.45, "{first} before, {last} after");
    let mut even = [0.5, -0.25];
    steer(&mut even, &[3.0, 3.0], 0.1);
    assert_eq!(even, [0.5, -0.25], "what is even stays");
}
