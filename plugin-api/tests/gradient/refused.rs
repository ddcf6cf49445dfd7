//! What has no gradient, and what attention without a state is.

use plugin_api::plan::{
    Attrs, Dim, NoGradient, OpSink, OpSinkExt, Part, Per, Plan, PlanBuilder, Spec, StateSpec, Val,
    gradient, ops, rewrite,
};
use plugin_api::testing::gradient::check;
use plugin_api::testing::interpreter::{FusedAs, Numbers, OwnedArena};
use plugin_api::{DType, Error, Result};

use super::{feed, plan, rows};

fn scalar(b: &mut PlanBuilder, x: Val) -> Result<Val> {
    let rows = b.sum(x)?;
    b.unary(ops::REDUCE_ROWS, rows)
}

fn refused(plan: &Plan, wrt: &[&str]) -> NoGradient {
    gradient(plan, plan.outputs[0].val, wrt).unwrap_err()
}

#[test]
fn a_call_between_a_parameter_and_the_loss_is_refused_by_name() {
    let build = |input: &'static str| {
        plan(|b| {
            let (x, w) = (b.input("x", rows(3))?, b.declare_weight("w", Spec::f32([3.into()]))?);
            let scaled = b.mul(x, w)?;
            let called = if input == "x" { x } else { scaled };
            let called = b.call("probe", &[called], &[rows(3)])?[0];
            let y = b.mul(called, scaled)?;
            scalar(b, y)
        })
    };
    let error = refused(&build("w"), &["w"]);
    assert_eq!(
        error.to_string(),
        "%3 = call `probe`: no gradient: plugins that are called at run time have none"
    );
    // What no parameter reaches may be called.
    let beside = build("x");
    assert!(gradient(&beside, beside.outputs[0].val, &["w"]).is_ok());
    assert!(matches!(refused(&beside, &["x"]), NoGradient::Node { .. }));
}

#[test]
fn a_parameter_out_of_reach_is_an_error_that_names_it() {
    let plan = plan(|b| {
        let x = b.input("x", rows(3))?;
        for name in ["used", "unused", "flat", "index"] {
            b.declare_weight(name, Spec::f32([3.into()]))?;
        }
        let [used, flat, index] = ["used", "flat", "index"].map(|name| b.weight(name).unwrap());
        let y = b.mul(x, used)?;
        let flat = b.unary(ops::IS_POSITIVE, flat)?;
        let y = b.mul(y, flat)?;
        let index = b.cast(index, DType::U32)?;
        let index = b.cast(index, DType::F32)?;
        let y = b.mul(y, index)?;
        scalar(b, y)
    });
    assert!(gradient(&plan, plan.outputs[0].val, &["used", "x"]).is_ok());
    for name in ["unused", "flat", "index"] {
        let error = refused(&plan, &["used", name]);
        assert_eq!(error, NoGradient::Unreachable { param: name.to_owned() });
        let text = format!("parameter `{name}`: the loss does not depend on it");
        assert_eq!(error.to_string(), text);
    }
    let missing = refused(&plan, &["nowhere"]);
    assert_eq!(missing, NoGradient::NotAParam { param: "nowhere".to_owned() });
}

#[test]
fn a_loss_is_one_number() {
    let wide = plan(|b| {
        let x = b.input("x", rows(3))?;
        b.unary(ops::NEG, x)
    });
    let expected = "loss %1: expected one float, found f32[tokens, 3]";
    assert_eq!(refused(&wide, &["x"]).to_string(), expected);
    let nowhere = gradient(&wide, Val(99), &["x"]).unwrap_err();
    assert_eq!(nowhere.to_string(), "loss %99: expected one float, found no value");
}

/// One head of attention over a state, as mixers describe it.
fn attention(window: u32, softcap: f64) -> Plan {
    plan(|b| {
        let x = b.input("x", rows(8))?;
        let w = b.declare_weight("w", Spec::f32([8.into(), 8.into()]))?;
        let positions = b.input("positions", Spec::u32([Dim::TOKENS]))?;
        let sequence_index = b.input("sequence_index", Spec::u32([Dim::TOKENS]))?;
        let block_table = b.input("block_table", Spec::u32([Dim::SEQS, Dim::BLOCKS]))?;
        let part = |name: &str| Part { name: name.to_owned(), dims: vec![2, 4] };
        let state = b.state(StateSpec {
            name: "layers.0.kv".to_owned(),
            per: Per::Token { window },
            parts: vec![part("key"), part("value")],
        })?;
        let heads = b.matmul(x, w)?;
        let heads = b.reshape(heads, &[-1, 2, 4])?;
        let attrs = Attrs::new().float("scale", 0.5).float("softcap", softcap);
        let inputs = [heads, heads, heads, state, positions, sequence_index, block_table];
        let mixed = b.one(ops::ATTEND, &inputs, attrs)?;
        let mixed = b.reshape(mixed, &[-1, 8])?;
        scalar(b, mixed)
    })
}

#[test]
fn attention_over_a_state_is_refused_and_without_it_looks_back_only() {
    let with_state = attention(0, 0.0);
    let text = refused(&with_state, &["w"]).to_string();
    assert_eq!(
        text,
        "%8 = attend: no gradient: it reads a state; training computes `attend_within`"
    );
    let without = rewrite::without_states(&with_state).unwrap();
    let names: Vec<&str> = without.inputs.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["x", "sequence_index"]);
    let index = [0, 0, 0, 1, 1];
    let feed = feed(&without, 5).indices("sequence_index", &index);
    check(&without, &feed);

    // The same numbers as with a cache: two sequences of a block each.
    let feed = feed.indices("positions", &[0, 1, 2, 0, 1]).indices("block_table", &[1, 0]);
    let feed = feed.size(Dim::SEQS, 2).size(Dim::BLOCKS, 1);
    let mut arena = OwnedArena::new(&with_state, 2, 4, DType::F64);
    let expected = feed.run_with::<f64>(&with_state, FusedAs::Whole, &mut arena).unwrap();
    let found = feed.run::<f64>(&without, FusedAs::Whole).unwrap();
    let [Numbers::Reals(found), Numbers::Reals(expected)] = [&found[0], &expected[0]] else {
        panic!("floats are expected")
    };
    assert!((found[0] - expected[0]).abs() < 1e-12, "{found:?} {expected:?}");

    for other in [attention(4, 0.0), attention(0, 30.0)] {
        let error = rewrite::without_states(&other).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("layers.0.kv"), "{error}");
    }
}

#[test]
fn a_gradient_plan_is_a_plan_like_any_other() {
    let forward = rewrite::without_states(&attention(0, 0.0)).unwrap();
    let backward = gradient(&forward, forward.outputs[0].val, &["w"]).unwrap();
    assert_eq!(Plan::from_bytes(&backward.to_bytes()).unwrap(), backward);
    assert_eq!(backward.nodes[..forward.nodes.len()].len(), forward.nodes.len());
    let again = gradient(&forward, forward.outputs[0].val, &["w"]).unwrap();
    assert_eq!(again.to_bytes(), backward.to_bytes());
    let names: Vec<&str> = backward.outputs.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["y", "grad.w"]);
}
