//! Fifty steps of SGD on a tiny decoder: the loss of each is PyTorch's, from the same weights and
//! batches. Made by `tests/golden/make/training.py`.

#![allow(clippy::unwrap_used, reason = "the plan of this test is its own")]

use std::collections::BTreeMap;

use plugin_api::Result;
use plugin_api::kinds::rotary_embedding::{Pairing, Rotation};
use plugin_api::plan::gradient::gradient_of;
use plugin_api::plan::{
    Attrs, Dim, OpSink, OpSinkExt, Plan, PlanBuilder, Spec, Val, fused, gradient, ops,
};
use plugin_api::testing::interpreter::{Feed, FusedAs};
use plugin_api::testing::random::Random;

const VOCAB: u64 = 128;
const HIDDEN: u64 = 16;
const INTERMEDIATE: u64 = 32;
const LAYERS: usize = 2;
const HEADS: u64 = 4;
const KV_HEADS: u64 = 2;
const HEAD_DIM: u64 = 4;
const SEQUENCES: usize = 4;
const LENGTH: usize = 17;
const RATE: f64 = 0.5;
const EPS: f64 = 1e-5;
/// Of a loss in nats; both compute in `f64`.
const TOLERANCE: f64 = 1e-9;

const TEXT: &[u8] = include_bytes!("text.txt");
const LOSSES: &str = include_str!("losses.txt");

/// Parameters in the order of their random numbers.
fn shapes() -> Vec<(String, Vec<u64>)> {
    let mut shapes = vec![("embed_tokens".to_owned(), vec![VOCAB, HIDDEN])];
    for i in 0..LAYERS {
        for (name, dims) in [
            ("input_norm", vec![HIDDEN]),
            ("q", vec![HEADS * HEAD_DIM, HIDDEN]),
            ("k", vec![KV_HEADS * HEAD_DIM, HIDDEN]),
            ("v", vec![KV_HEADS * HEAD_DIM, HIDDEN]),
            ("o", vec![HIDDEN, HEADS * HEAD_DIM]),
            ("post_norm", vec![HIDDEN]),
            ("gate", vec![INTERMEDIATE, HIDDEN]),
            ("up", vec![INTERMEDIATE, HIDDEN]),
            ("down", vec![HIDDEN, INTERMEDIATE]),
        ] {
            shapes.push((format!("{i}.{name}"), dims));
        }
    }
    shapes.push(("norm".to_owned(), vec![HIDDEN]));
    shapes.push(("lm_head".to_owned(), vec![VOCAB, HIDDEN]));
    shapes
}

/// The mean loss of the tokens with a weight.
fn decoder() -> Result<Plan> {
    let mut b = PlanBuilder::new();
    let mut params = BTreeMap::new();
    for (name, dims) in shapes() {
        let dims: Vec<Dim> = dims.into_iter().map(Dim::Fixed).collect();
        let val = b.input(&name, Spec::f32(dims))?;
        params.insert(name, val);
    }
    let tokens = Spec::u32([Dim::TOKENS]);
    let [ids, positions, sequence_index, targets] =
        ["ids", "positions", "sequence_index", "targets"].map(|name| b.input(name, tokens.clone()));
    let (positions, sequence_index) = (positions?, sequence_index?);
    let mut x = b.embed(params["embed_tokens"], ids?)?;
    for i in 0..LAYERS {
        let p = |name: &str| params[&format!("{i}.{name}")];
        let n = fused::rms_norm(&mut b, x, p("input_norm"), EPS, 0.0)?;
        let q = heads(&mut b, n, p("q"), HEADS, Some(positions))?;
        let k = heads(&mut b, n, p("k"), KV_HEADS, Some(positions))?;
        let v = heads(&mut b, n, p("v"), KV_HEADS, None)?;
        let attrs = Attrs::new().float("scale", (HEAD_DIM as f64).powf(-0.5)).int("causal", 1);
        let mixed = b.one(ops::ATTEND_WITHIN, &[q, k, v, sequence_index], attrs)?;
        let mixed = b.reshape(mixed, &[-1, (HEADS * HEAD_DIM) as i64])?;
        let mixed = b.matmul(mixed, p("o"))?;
        x = b.add(x, mixed)?;
        let n = fused::rms_norm(&mut b, x, p("post_norm"), EPS, 0.0)?;
        let (gate, up) = (b.matmul(n, p("gate"))?, b.matmul(n, p("up"))?);
        let gated = fused::swiglu(&mut b, gate, up)?;
        let down = b.matmul(gated, p("down"))?;
        x = b.add(x, down)?;
    }
    let last = fused::rms_norm(&mut b, x, params["norm"], EPS, 0.0)?;
    let logits = b.matmul(last, params["lm_head"])?;
    let losses = fused::cross_entropy(&mut b, logits, targets?)?;
    let weights = b.input("weights", Spec::f32([Dim::TOKENS, 1.into()]))?;
    let weighed = b.mul(losses, weights)?;
    let (sum, count) = (b.unary(ops::REDUCE_ROWS, weighed)?, b.unary(ops::REDUCE_ROWS, weights)?);
    let loss = b.one(ops::DIV, &[sum, count], Attrs::new())?;
    b.output("loss", loss)?;
    Ok(b.finish())
}

fn heads(b: &mut PlanBuilder, x: Val, w: Val, heads: u64, positions: Option<Val>) -> Result<Val> {
    let x = b.matmul(x, w)?;
    let x = b.reshape(x, &[-1, heads as i64, HEAD_DIM as i64])?;
    let Some(positions) = positions else { return Ok(x) };
    let inv_freq = vec![1.0, 1.0 / 128.0];
    let rotation = Rotation { inv_freq, pairing: Pairing::HalfSplit, attention_factor: 1.0 };
    fused::rope(b, x, positions, &rotation)
}

fn initial() -> BTreeMap<String, Vec<f64>> {
    let mut random = Random::new(1);
    let values = |(name, dims): (String, Vec<u64>)| {
        let center = if name.ends_with("norm") { 1.0 } else { 0.0 };
        let len = dims.iter().product::<u64>();
        let values = (0..len).map(|_| center + 0.25 * f64::from(random.signed())).collect();
        (name, values)
    };
    shapes().into_iter().map(values).collect()
}

/// Sequences of the text, side by side, each with the byte after each as its target.
fn batch(random: &mut Random) -> Feed {
    let starts: Vec<usize> = (0..SEQUENCES).map(|_| random.below(TEXT.len() - LENGTH)).collect();
    let bytes = |offset: usize| -> Vec<u32> {
        let bytes = starts.iter().flat_map(|start| &TEXT[start + offset..][..LENGTH]);
        bytes.map(|&byte| u32::from(byte)).collect()
    };
    let tokens = SEQUENCES * LENGTH;
    let positions: Vec<u32> = (0..tokens).map(|t| (t % LENGTH) as u32).collect();
    let index: Vec<u32> = (0..tokens).map(|t| (t / LENGTH) as u32).collect();
    let weights: Vec<f32> = positions.iter().map(|&p| if p == 0 { 0.0 } else { 1.0 }).collect();
    Feed::new()
        .size(Dim::TOKENS, tokens)
        .indices("ids", &bytes(0))
        .indices("targets", &bytes(1))
        .indices("positions", &positions)
        .indices("sequence_index", &index)
        .reals("weights", &weights)
}

#[test]
fn the_losses_of_fifty_steps_are_those_of_pytorch() {
    let plan = decoder().unwrap();
    let names: Vec<String> = shapes().into_iter().map(|(name, _)| name).collect();
    let wrt: Vec<&str> = names.iter().map(String::as_str).collect();
    let plan = gradient(&plan, plan.outputs[0].val, &wrt).unwrap();
    let (mut params, mut random) = (initial(), Random::new(2));
    let expected: Vec<f64> = LOSSES.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(expected.len(), 50);
    for (step, expected) in expected.into_iter().enumerate() {
        let feed = batch(&mut random);
        let feed = params.iter().fold(feed, |feed, (name, values)| feed.doubles(name, values));
        let outputs = feed.run::<f64>(&plan, FusedAs::Expansion).unwrap();
        let mut outputs = plan.outputs.iter().zip(outputs);
        let loss = outputs.next().unwrap().1.into_reals().unwrap()[0];
        assert!((loss - expected).abs() < TOLERANCE, "step {step}: {loss}, PyTorch: {expected}");
        for ((port, grads), name) in outputs.zip(&names) {
            assert_eq!(port.name, gradient_of(name));
            let values = params.get_mut(name).unwrap();
            for (value, grad) in values.iter_mut().zip(grads.into_reals().unwrap()) {
                *value -= RATE * grad;
            }
        }
    }
}
