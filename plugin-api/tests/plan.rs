//! Plans as bytes and as text: what is written reads back, what is spoilt is refused.

#![allow(clippy::unwrap_used, reason = "the plans of these tests are their own")]

use plugin_api::DType;
use plugin_api::Result;
use plugin_api::kinds::rotary_embedding::{Pairing, Rotation};
use plugin_api::plan::rewrite::{Named, Stage, cut_at_calls};
use plugin_api::plan::{
    Attr, Attrs, Dim, OpSink, OpSinkExt, Part, Per, Plan, PlanBuilder, Port, Spec, StateSpec,
    fused, ops,
};
use proptest::prelude::*;

/// A small decoder layer: every sort of port, node and attribute occurs.
fn layer() -> Plan {
    let build = || -> Result<Plan> {
        let mut b = PlanBuilder::new();
        let x = b.input("x", Spec::f32([Dim::TOKENS, 8.into()]))?;
        let positions = b.input("positions", Spec::u32([Dim::TOKENS]))?;
        let sequence_index = b.input("sequence_index", Spec::u32([Dim::TOKENS]))?;
        let block_table = b.input("block_table", Spec::u32([Dim::SEQS, Dim::BLOCKS]))?;
        let norm = b.declare_weight("norm.weight", Spec::f32([8.into()]))?;
        let w = b.declare_weight("proj.weight", Spec::f32([8.into(), 8.into()]))?;
        let part = |name: &str| Part { name: name.to_owned(), dims: vec![2, 4] };
        let state = b.state(StateSpec {
            name: "kv".to_owned(),
            per: Per::Token { window: 16 },
            parts: vec![part("key"), part("value")],
        })?;
        let normed = fused::rms_norm(&mut b, x, norm, 1e-6, 0.0)?;
        let heads = b.matmul(normed, w)?;
        let heads = b.reshape(heads, &[-1, 2, 4])?;
        let inv_freq = vec![1.0, 0.5];
        let rotation = Rotation { inv_freq, pairing: Pairing::HalfSplit, attention_factor: 1.0 };
        let q = fused::rope(&mut b, heads, positions, &rotation)?;
        let attrs = Attrs::new().float("scale", 0.5).float("softcap", 0.0);
        let inputs = [q, q, heads, state, positions, sequence_index, block_table];
        let mixed = b.one(ops::ATTEND, &inputs, attrs)?;
        let mixed = b.reshape(mixed, &[-1, 8])?;
        let called = b.call("probe", &[mixed], &[Spec::f32([Dim::TOKENS, 8.into()])])?;
        let halves = b.cast(called[0], DType::F16)?;
        let wide = b.cast(halves, DType::F32)?;
        let y = b.add(x, wide)?;
        b.output("y", y)?;
        Ok(b.finish())
    };
    build().unwrap()
}

#[test]
fn prints_one_line_an_op() {
    let mut b = PlanBuilder::new();
    let x = b.input("x", Spec::f32([Dim::TOKENS, 4.into()])).unwrap();
    let norm = b.declare_weight("norm.weight", Spec::f32([4.into()])).unwrap();
    let w = b.declare_weight("up.weight", Spec::f32([6.into(), 4.into()])).unwrap();
    let normed = fused::rms_norm(&mut b, x, norm, 1e-6, 0.0).unwrap();
    let up = b.matmul(normed, w).unwrap();
    let scaled = b.scale(up, 0.5).unwrap();
    b.output("y", scaled).unwrap();
    let expected = "\
input   x : f32[tokens, 4]
weight  norm.weight : f32[4]
weight  up.weight : f32[6, 4]
%3 = rms_norm(x, norm.weight) {eps = 0.000001, weight_offset = 0} : f32[tokens, 4]
%4 = matmul(%3, up.weight) : f32[tokens, 6]
%5 = scale(%4) {by = 0.5} : f32[tokens, 6]
output  y = %5
";
    assert_eq!(b.finish().to_string(), expected);
}

#[test]
fn a_layer_reads_back() {
    let plan = layer();
    let bytes = plan.to_bytes();
    let back = Plan::from_bytes(&bytes).unwrap();
    assert_eq!(back, plan);
    assert_eq!(back.to_bytes(), bytes);
    assert_eq!(back.to_string(), plan.to_string());
}

#[test]
fn every_truncation_is_refused() {
    let bytes = layer().to_bytes();
    for len in 0..bytes.len() {
        assert!(Plan::from_bytes(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
    }
    let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
    assert!(Plan::from_bytes(&longer).is_err(), "a byte too many");
}

#[test]
fn every_flipped_bit_is_refused_or_reads_as_another_plan() {
    let bytes = layer().to_bytes();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= 1 << bit;
            settles(&spoilt);
        }
        for byte in [0x00, 0x7F, 0xFF] {
            let mut spoilt = bytes.clone();
            spoilt[at] = byte;
            settles(&spoilt);
        }
    }
}

#[test]
fn counts_beyond_the_bytes_are_refused() {
    let bytes = layer().to_bytes();
    for at in 0..bytes.len() - 4 {
        for count in [u32::MAX, u32::MAX / 4, bytes.len() as u32] {
            let mut spoilt = bytes.clone();
            spoilt[at..at + 4].copy_from_slice(&count.to_le_bytes());
            settles(&spoilt);
        }
    }
}

/// Bytes are refused, or are a plan whose own bytes read back as it.
fn settles(bytes: &[u8]) {
    let Ok(plan) = Plan::from_bytes(bytes) else { return };
    let again = plan.to_bytes();
    assert!(again.len() <= bytes.len(), "a plan of more bytes than it was read from");
    assert_eq!(Plan::from_bytes(&again).map(|plan| plan.to_bytes()), Ok(again));
    let _ = plan.to_string();
}

/// One step of a random trace: which op, on which earlier values.
type Step = (u8, usize, usize, f64);

/// Applies what fits; what does not is refused by the builder, which must stay as it was.
fn trace(steps: &[Step]) -> Plan {
    let mut b = PlanBuilder::new();
    let mut vals = vec![
        b.input("x", Spec::f32([Dim::TOKENS, 4.into()])).unwrap(),
        b.input("ids", Spec::u32([Dim::TOKENS])).unwrap(),
        b.declare_weight("w", Spec::f32([4.into(), 4.into()])).unwrap(),
        b.declare_weight("n", Spec::f32([4.into()])).unwrap(),
    ];
    for &(op, i, j, number) in steps {
        let (a, c) = (vals[i % vals.len()], vals[j % vals.len()]);
        let before = b.plan().clone();
        let result = match op % 12 {
            0 => b.add(a, c),
            1 => b.mul(a, c),
            2 => b.matmul(a, c),
            3 => b.scale(a, number),
            4 => b.unary(ops::SILU, a),
            5 => b.embed(c, a),
            6 => fused::rms_norm(&mut b, a, c, number.abs(), 0.0),
            7 => b.concat(&[a, c], 1),
            8 => b.slice(a, 1, 1, 2),
            9 => b.reshape(a, &[-1, 2, 2]),
            10 => b.constant(&[number as f32, 1.0, 2.0, 3.0]),
            _ => b.one(ops::TRANSPOSE, &[a], Attrs::new().with("axes", Attr::Ints(vec![1, 0]))),
        };
        match result {
            Ok(val) => vals.push(val),
            Err(_) => assert_eq!(b.plan(), &before, "a refused op changed the plan"),
        }
    }
    b.output("y", vals[vals.len() - 1]).unwrap();
    b.finish()
}

proptest! {
    #[test]
    fn traces_read_back(
        steps in prop::collection::vec((any::<u8>(), 0..64_usize, 0..64_usize, -1e3..1e3), 0..40)
    ) {
        let plan = trace(&steps);
        prop_assert_eq!(trace(&steps).to_bytes(), plan.to_bytes());
        prop_assert_eq!(Plan::from_bytes(&plan.to_bytes()), Ok(plan));
    }

    #[test]
    fn random_bytes_never_panic(
        at in 0..4_000_usize,
        junk in prop::collection::vec(any::<u8>(), 0..64)
    ) {
        settles(&junk);
        let mut bytes = layer().to_bytes();
        let at = at % bytes.len();
        let end = (at + junk.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&junk[..end - at]);
        settles(&bytes);
    }
}

#[test]
fn a_fused_name_cannot_stand_for_another_computation() {
    let mut other = PlanBuilder::new();
    let row = || Spec::f32([Dim::TOKENS, Dim::Fixed(4)]);
    let x = other.input("0", row()).unwrap();
    let w = other.input("1", Spec::f32([Dim::Fixed(4)])).unwrap();
    let product = other.mul(x, w).unwrap();
    other.output("0", product).unwrap();
    let other = other.finish();

    let mut b = PlanBuilder::new();
    let x = b.input("x", row()).unwrap();
    let w = b.input("w", Spec::f32([Dim::Fixed(4)])).unwrap();
    let attrs = || Attrs::new().float("eps", 1e-6).float("weight_offset", 0.0);
    let error = b.fused(ops::RMS_NORM, &[x, w], attrs(), other.clone()).unwrap_err();
    assert!(error.to_string().starts_with("rms_norm: malformed"), "{error}");
    let vendors_own = plugin_api::plan::OpId::of("vendor.scale");
    assert!(b.fused(vendors_own, &[x, w], attrs(), other).is_ok());
    assert!(fused::rms_norm(&mut b, x, w, 1e-6, 0.0).is_ok());
}

#[test]
fn a_cut_runs_the_same_with_names_for_what_lives_across() {
    let plan = layer();
    let cut = cut_at_calls(&plan).unwrap();
    let [Stage::Run(before), Stage::Call { callback, inputs, outputs }, Stage::Run(after)] =
        &cut.stages[..]
    else {
        panic!("what is before, the call, and what is after: {cut:?}");
    };
    let ports = |ports: &[Port]| ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
    let named = |named: &[Named]| named.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    assert_eq!(callback, "probe");
    assert_eq!(ports(&before.outputs), named(inputs));
    // The step's own input keeps its name, on whichever side it is read.
    assert_eq!(ports(&before.inputs), ["x", "positions", "sequence_index", "block_table"]);
    assert_eq!(ports(&after.inputs), [vec!["x".to_owned()], named(outputs)].concat());
    assert_eq!(ports(&after.outputs), named(&cut.outputs));
    assert_eq!((before.weights.len(), before.states.len()), (2, 1));
    assert_eq!((after.weights.len(), after.states.len()), (0, 0));
    // The nodes are those of the whole, but for the call.
    assert_eq!(before.num_nodes() + after.num_nodes() + 1, plan.num_nodes());
    let whole = cut_at_calls(before).unwrap();
    assert!(
        matches!(&whole.stages[..], [Stage::Run(plan)] if plan.num_nodes() == before.num_nodes())
    );
}

#[test]
fn weights_states_and_bytes_are_not_lent_to_a_callback() {
    let mut b = PlanBuilder::new();
    let w = b.declare_weight("w", Spec::f32([4.into()])).unwrap();
    let y = b.call("probe", &[w], &[Spec::f32([4.into()])]).unwrap()[0];
    b.output("y", y).unwrap();
    let error = cut_at_calls(&b.finish()).unwrap_err().to_string();
    assert!(error.contains("weights and states lie as the backend has them"), "{error}");

    let mut b = PlanBuilder::new();
    let x = b.input("x", Spec::f32([Dim::TOKENS])).unwrap();
    let halves = b.cast(x, DType::F16).unwrap();
    let deep = Spec::f32([1.into(), 1.into(), 1.into(), 1.into(), 1.into()]);
    for refused in [
        b.call("probe", &[halves], &[]).unwrap_err(),
        b.call("probe", &[x; 9], &[]).unwrap_err(),
        b.call("probe", &[x], &[deep]).unwrap_err(),
    ] {
        assert!(refused.to_string().contains("callback `probe`"), "{refused}");
    }
}
