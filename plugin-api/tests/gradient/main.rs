//! Every rule of the gradient against central differences in `f64`, on odd shapes; that the check
//! notices any node that is a little off; and what is refused.

#![allow(clippy::unwrap_used, reason = "the plans of these tests are their own")]

mod cases;
mod experts;
mod refused;

use plugin_api::plan::{
    Attrs, Dim, NodeKind, OpId, OpSink, OpSinkExt, Plan, PlanBuilder, Spec, Val, fused, gradient,
    ops,
};
use plugin_api::testing::gradient::{Scene, check};
use plugin_api::testing::interpreter::{Feed, FusedAs, Numbers};
use plugin_api::testing::random::Random;
use plugin_api::{DType, Result};
use proptest::prelude::*;

use cases::cases;

const ODD: [usize; 5] = [1, 7, 8, 9, 63];

fn plan(build: impl FnOnce(&mut PlanBuilder) -> Result<Val>) -> Plan {
    let mut b = PlanBuilder::new();
    let y = build(&mut b).unwrap();
    b.output("y", y).unwrap();
    b.finish()
}

fn rows(width: u64) -> Spec {
    Spec::f32([Dim::TOKENS, width.into()])
}

/// Random numbers for floats: those of `positive…` lie in 0.5..1.5. Indices are below `INDEX_MAX`.
fn feed(plan: &Plan, tokens: usize) -> Feed {
    let mut random = Random::new(tokens as u64 + 1);
    let mut feed = Feed::new().size(Dim::TOKENS, tokens).size(Dim::LOGIT_ROWS, tokens.div_ceil(2));
    for port in plan.inputs.iter().chain(&plan.weights) {
        let spec = plan.spec(port.val);
        let size = |dim: &Dim| match dim {
            Dim::Fixed(n) => *n as usize,
            Dim::Symbol(symbol) => feed.size_of(*symbol),
        };
        let len: usize = spec.dims.iter().map(size).product();
        feed = if spec.dtype == DType::U32 {
            let below = if port.name == "rows" { tokens } else { INDEX_MAX };
            let indices: Vec<u32> = (0..len).map(|_| random.below(below) as u32).collect();
            feed.indices(&port.name, &indices)
        } else {
            let number = |x: f32| if port.name == "positive" { 1.0 + x / 2.0 } else { 1.5 * x };
            let values: Vec<f32> = (0..len).map(|_| number(random.signed())).collect();
            feed.reals(&port.name, &values)
        };
    }
    feed
}

/// Exclusive, and the rows of tables.
const INDEX_MAX: usize = 7;

#[test]
fn every_rule_agrees_with_central_differences() {
    let tokens = [9, 1, 7, 8, 63];
    for (width, tokens) in ODD.into_iter().zip(tokens) {
        for (_, plan) in cases(width as u64) {
            check(&plan, &feed(&plan, tokens));
        }
    }
}

#[test]
fn the_cases_hold_every_op_that_has_a_rule() {
    let plans: Vec<Plan> = cases(7).into_iter().map(|(_, plan)| plan).collect();
    let is_held = |op: OpId| {
        plans.iter().flat_map(|plan| &plan.nodes).any(|node| match &node.kind {
            NodeKind::Prim(known, _) | NodeKind::Fused { op: known, .. } => *known == op,
            NodeKind::Call { .. } => false,
        })
    };
    // Without a gradient: no inputs, flat, or refused.
    let without = [
        ops::CONSTANT,
        ops::FULL_LIKE,
        ops::IS_POSITIVE,
        ops::ATTEND,
        ops::CAUSAL_CONV,
        ops::SELECTIVE_SCAN,
        ops::ATTEND_WITHIN_GRAD,
        ops::MATMUL_EXPERTS,
    ];
    for op in ops::ALL.iter().filter(|op| !without.contains(op)) {
        assert!(is_held(*op), "no case for `{op}`");
    }
}

/// The plan with one more step after the first result of node `at`: turned around, a quarter more, and
/// a bit.
fn mutant(plan: &Plan, at: usize) -> Option<Plan> {
    let mut b = PlanBuilder::new();
    let mut to = vec![None; plan.specs.len()];
    for port in &plan.inputs {
        to[port.val.index()] = Some(b.input(&port.name, plan.spec(port.val).clone()).unwrap());
    }
    for (i, node) in plan.nodes.iter().enumerate() {
        let inputs: Vec<Val> = node.inputs.iter().map(|val| to[val.index()].unwrap()).collect();
        let outputs = match &node.kind {
            NodeKind::Prim(op, attrs) => b.op(*op, &inputs, attrs.clone()).unwrap(),
            NodeKind::Fused { op, attrs, expansion } => {
                b.fused(*op, &inputs, attrs.clone(), (**expansion).clone()).unwrap()
            }
            NodeKind::Call { .. } => return None,
        };
        for (j, (val, &output)) in node.outputs.iter().zip(&outputs).enumerate() {
            to[val.index()] = Some(output);
            if i == at && j == 0 {
                let scaled = b.scale(output, -1.25).unwrap();
                to[val.index()] = Some(b.offset(scaled, 0.25).unwrap());
            }
        }
    }
    for port in &plan.outputs {
        b.output(&port.name, to[port.val.index()].unwrap()).unwrap();
    }
    Some(b.finish())
}

#[test]
fn a_node_of_a_gradient_that_is_a_little_off_is_noticed() {
    for (name, plan) in cases(7) {
        let scene = Scene::new(&plan, &feed(&plan, 8));
        let gradient = &scene.gradient;
        let loss =
            gradient.outputs.iter().position(|port| !port.name.starts_with("grad.")).unwrap();
        let loss = gradient.outputs[loss + 1].val;
        let last = gradient.nodes.iter().position(|node| node.outputs.contains(&loss)).unwrap();
        for at in last + 1..gradient.nodes.len() {
            let node = &gradient.nodes[at];
            if gradient.spec(node.outputs[0]).dtype == DType::U32 {
                continue;
            }
            let mutant = mutant(gradient, at).unwrap();
            assert!(scene.compare(&mutant).is_err(), "{name}: {node:?}\n{gradient}");
        }
    }
}

#[test]
fn ties_give_to_the_right_operand_or_are_shared() {
    let found = |op, l: &[f32], r: &[f32]| {
        let plan = plan(|b| {
            let spec = || Spec::f32([1.into(), (l.len() as u64).into()]);
            let (x, z) = (b.input("l", spec())?, b.input("r", spec())?);
            let y = b.one(op, &[x, z], Attrs::new())?;
            let y = b.sum(y)?;
            b.reshape(y, &[1])
        });
        let loss = plan.outputs[0].val;
        let gradient = gradient(&plan, loss, &["l", "r"]).unwrap();
        let feed = Feed::new().reals("l", l).reals("r", r);
        feed.run::<f64>(&gradient, FusedAs::Whole).unwrap().split_off(1)
    };
    let reals = |x: [f64; 3]| Numbers::Reals(x.to_vec());
    for (op, l, r) in
        [(ops::MAX, [1.0, 0.0, 0.0], [0.0, 1.0, 1.0]), (ops::MIN, [0.0, 1.0, 0.0], [1.0, 0.0, 1.0])]
    {
        assert_eq!(found(op, &[2.0, 1.0, 1.0], &[1.0, 2.0, 1.0]), [reals(l), reals(r)]);
    }
    let peak = plan(|b| {
        let x = b.input("x", Spec::f32([4.into()]))?;
        b.unary(ops::REDUCE_MAX, x)
    });
    let gradient = gradient(&peak, peak.outputs[0].val, &["x"]).unwrap();
    let feed = Feed::new().reals("x", &[3.0, 1.0, 3.0, 2.0]);
    let shared = feed.run::<f64>(&gradient, FusedAs::Whole).unwrap().pop().unwrap();
    assert_eq!(shared, Numbers::Reals(vec![0.5, 0.0, 0.5, 0.0]));
}

#[test]
fn cross_entropy_and_its_gradient_are_those_of_pytorch() {
    let plan = plan(|b| {
        let x = b.input("x", Spec::f32([Dim::TOKENS, 4.into()]))?;
        let targets = b.input("targets", Spec::u32([Dim::TOKENS]))?;
        let loss = fused::cross_entropy(b, x, targets)?;
        b.output("rows", loss)?;
        // The second row does not count.
        let weights = b.input("weights", Spec::f32([Dim::TOKENS, 1.into()]))?;
        let weighed = b.mul(loss, weights)?;
        b.unary(ops::REDUCE_ROWS, weighed)
    });
    let loss = plan.outputs[1].val;
    let gradient = gradient(&plan, loss, &["x"]).unwrap();
    let x = TORCH_LOGITS.concat();
    let feed = Feed::new().size(Dim::TOKENS, 3).reals("x", &x).indices("targets", &[2, 0, 3]);
    let feed = feed.reals("weights", &[1.0, 0.0, 1.0]);
    let outputs = feed.run::<f64>(&gradient, FusedAs::Expansion).unwrap();
    let expected = [TORCH_LOSSES.to_vec(), TORCH_GRADIENTS.concat()];
    for (found, expected) in [&outputs[0], &outputs[2]].into_iter().zip(expected) {
        let Numbers::Reals(found) = found else { panic!("floats are expected") };
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} is expected to be {expected}");
        }
    }
}

/// Of each row: logits, the loss in nats and, where it counts, its gradient; by PyTorch 1.13 in `f64`:
/// `torch.nn.functional.cross_entropy(logits, targets, reduction="none")`.
const TORCH_LOGITS: [[f32; 4]; 3] =
    [[0.5, -1.25, 2.0, 0.25], [30.0, -30.0, 1.0, 0.0], [-0.75, 1.5, 88.0, 100.0]];
const TORCH_LOSSES: [f64; 3] =
    [0.361_637_428_420_839_57, 3.479_438_959_174_635_3e-13, 6.144_193_477_747_432e-6];
const TORCH_GRADIENTS: [[f64; 4]; 3] = [
    [
        0.155_417_936_157_362_02,
        0.027_007_587_648_994_316,
        -0.303_465_134_189_051_4,
        0.121_039_610_382_695_15,
    ],
    [0.0; 4],
    [0.0, 0.0, 6.144_174_602_214_719e-6, -6.144_174_602_207_286e-6],
];

/// Random chains of ops over `[tokens, width]`, in which values are used more than once.
fn composed(seed: u64, width: u64) -> Plan {
    let mut random = Random::new(seed);
    plan(|b| {
        let mut values = vec![b.input("x", rows(width))?];
        for step in 0..7 {
            let x = values[random.below(values.len())];
            let other = values[random.below(values.len())];
            let weight = |b: &mut PlanBuilder, dims: &[u64]| {
                let dims: Vec<Dim> = dims.iter().map(|&n| n.into()).collect();
                b.declare_weight(&format!("w{step}"), Spec::f32(dims))
            };
            let y = match random.below(12) {
                0 => b.add(x, other)?,
                1 => b.mul(x, other)?,
                2 => b.unary(ops::TANH, x)?,
                3 => fused::swiglu(b, x, other)?,
                4 => b.unary(ops::SOFTMAX, x)?,
                5 => {
                    let w = weight(b, &[width, width])?;
                    let product = b.matmul(x, w)?;
                    b.scale(product, 1.0 / width as f64)?
                }
                6 => {
                    let w = weight(b, &[width])?;
                    fused::rms_norm(b, x, w, 1e-2, 1.0)?
                }
                7 => {
                    let mean = b.mean(x)?;
                    b.sub(other, mean)?
                }
                8 => {
                    let both = b.concat(&[x, other], 1)?;
                    b.slice(both, 1, width / 2, width)?
                }
                9 => {
                    let heads = b.reshape(x, &[-1, 1, width as i64])?;
                    let i = b.input("i", Spec::u32([Dim::TOKENS]))?;
                    let attrs = Attrs::new().float("scale", 0.5).int("causal", 1);
                    let y = b.one(ops::ATTEND_WITHIN, &[heads, heads, heads, i], attrs)?;
                    b.reshape(y, &[-1, width as i64])?
                }
                10 => b.one(ops::MAX, &[x, other], Attrs::new())?,
                _ => b.unary(ops::GELU, x)?,
            };
            values.push(y);
        }
        // Every value counts, so that every weight is reached.
        let mut sum = values[0];
        for (i, &value) in values.iter().enumerate().skip(1) {
            let share = b.scale(value, 1.0 / i as f64)?;
            sum = b.add(sum, share)?;
        }
        Ok(sum)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn composed_plans_agree_with_central_differences(seed in any::<u64>(), width in 1_u64..9, tokens in 1_usize..10) {
        let plan = composed(seed, width);
        check(&plan, &feed(&plan, tokens));
    }
}
