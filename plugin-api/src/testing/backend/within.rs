//! `attend_within` and its gradient: ragged sequences side by side, that must not matter to each other.

use super::super::interpreter::{Feed, FusedAs, Numbers};
use super::super::random::Random;
use super::super::tolerance::{of_op, peak};
use super::rig::{Compiled, bucket};
use super::symbol;
use crate::kinds::backend::Backend;
use crate::plan::{Attrs, Dim, OpId, OpSink, Plan, PlanBuilder, Spec, ops};

/// Query heads, heads of keys and values, channels of a head.
type Shape = (u64, u64, u64);

/// What is computed over the sequences: an op, and whether it looks back only.
type Form = (OpId, bool);

/// Tokens of each sequence; the first goes beyond one split of the softmax.
const LENGTHS: [usize; 5] = [300, 1, 20, 9, 63];

pub(super) fn check(backend: &dyn Backend) {
    for op in [ops::ATTEND_WITHIN, ops::ATTEND_WITHIN_GRAD] {
        for is_causal in [false, true] {
            for shape in [(4, 2, 16), (2, 2, 16), (3, 1, 7), (12, 12, 32)] {
                check_shape(backend, (op, is_causal), shape);
            }
        }
    }
}

fn check_shape(backend: &dyn Backend, form: Form, shape: Shape) {
    let plan = plan_of(form, shape);
    let what = format!("{}, causal {}, of {shape:?}", form.0, form.1);
    let limits = bucket(&[(symbol(Dim::TOKENS), LENGTHS.iter().sum())]);
    let compiled = match Compiled::new(backend, &plan, &[], &limits, None) {
        Ok(compiled) => compiled,
        Err(error) => return super::check_refusal(backend, &plan, &error),
    };
    let run = |sequences: &[usize]| {
        let outputs = compiled.run(&feed_of(&plan, shape, sequences));
        outputs.unwrap_or_else(|e| panic!("{what}: {e}"))
    };
    let all = [0, 1, 2, 3, 4];
    let outputs = run(&all);
    if super::skips(backend, &plan) {
        return;
    }
    let expected = feed_of(&plan, shape, &all).run::<f64>(&plan, FusedAs::Expansion);
    let expected = expected.unwrap_or_else(|e| panic!("{what}, interpreted: {e}"));
    assert_eq!(outputs.len(), expected.len(), "{what}: a result for each");
    for (found, expected) in outputs.iter().zip(expected) {
        let Ok(expected) = expected.into_reals() else { panic!("{what}: floats are expected") };
        let wide: Vec<f64> = reals(found.clone()).into_iter().map(f64::from).collect();
        of_op(form.0).assert(&what, &wide, &expected, peak(&expected).max(0.1));
    }
    let first = |outputs: Vec<Numbers<f32>>| outputs.into_iter().next().map(reals);
    let together = first(outputs).unwrap_or_default();

    let width = (shape.0 * shape.2) as usize;
    for order in [&[0][..], &[1], &[2], &[3], &[4], &[4, 3, 2, 1, 0], &[2, 0], &[]] {
        let found = first(run(order)).unwrap_or_default();
        let mut rest = &found[..];
        for &sequence in order {
            let start: usize = LENGTHS[..sequence].iter().sum();
            let row = start * width..(start + LENGTHS[sequence]) * width;
            let (mine, others) = rest.split_at(row.len());
            let is_same = mine.iter().zip(&together[row]).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(is_same, "{what}: sequence {sequence} has other bits among {order:?}");
            rest = others;
        }
    }
}

fn plan_of((op, is_causal): Form, (heads, kv_heads, head_dim): Shape) -> Plan {
    let build = || -> crate::Result<Plan> {
        let mut b = PlanBuilder::new();
        let tensor = |heads: u64| Spec::f32([Dim::TOKENS, heads.into(), head_dim.into()]);
        let q = b.input("q", tensor(heads))?;
        let k = b.input("k", tensor(kv_heads))?;
        let v = b.input("v", tensor(kv_heads))?;
        let sequence_index = b.input("sequence_index", Spec::u32([Dim::TOKENS]))?;
        let attrs = Attrs::new().float("scale", (head_dim as f64).powf(-0.5));
        let attrs = if is_causal { attrs.int("causal", 1) } else { attrs };
        let mut inputs = vec![q, k, v, sequence_index];
        if op == ops::ATTEND_WITHIN_GRAD {
            inputs.push(b.input("grad", tensor(heads))?);
        }
        for (i, y) in b.op(op, &inputs, attrs)?.into_iter().enumerate() {
            b.output(&i.to_string(), y)?;
        }
        Ok(b.finish())
    };
    build().unwrap_or_else(|e| panic!("the suite's own plan: {e}"))
}

/// These sequences, one after the other. What a sequence is called is of no meaning.
fn feed_of(plan: &Plan, (heads, kv_heads, head_dim): Shape, sequences: &[usize]) -> Feed {
    let (mut q, mut k, mut v, mut index) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut grad = Vec::new();
    for (place, &sequence) in sequences.iter().enumerate() {
        let mut random = Random::new(sequence as u64);
        for _ in 0..LENGTHS[sequence] {
            let mut numbers = |heads: u64, out: &mut Vec<f32>| {
                out.extend((0..heads * head_dim).map(|_| random.signed() * 2.0));
            };
            numbers(heads, &mut q);
            numbers(kv_heads, &mut k);
            numbers(kv_heads, &mut v);
            numbers(heads, &mut grad);
            index.push(if place.is_multiple_of(2) { 7 } else { u32::MAX });
        }
    }
    let feed = Feed::new()
        .size(Dim::TOKENS, index.len())
        .reals("q", &q)
        .reals("k", &k)
        .reals("v", &v)
        .indices("sequence_index", &index);
    if plan.input_index("grad").is_some() { feed.reals("grad", &grad) } else { feed }
}

fn reals(numbers: Numbers<f32>) -> Vec<f32> {
    numbers.into_reals().expect("floats")
}
