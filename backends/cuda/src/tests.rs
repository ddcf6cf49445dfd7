//! What needs no device: opening one that is not there, what is supported, layouts, compiling.

use kernels_cuda::Fault;
use plugin_api::kinds::backend::{MemoryMap, RawValues, WeightPlace};
use plugin_api::plan::PlanBuilder;

use super::*;
use crate::compile::compile;
use crate::layout::{layout, pack};
use crate::step::Step;

#[test]
fn without_a_driver_it_says_where_to_get_one() {
    match Cuda::from_config(&Config::new()) {
        Ok(cuda) => eprintln!("skipped: there is a device: {:?}", cuda.domain),
        Err(error) => {
            let expected = Error::from(Problem::from(Fault::NoDriver));
            if error == expected {
                let start = "backend `cuda` is unsupported: libcuda not found: it comes with";
                assert!(error.to_string().starts_with(start), "{error}");
            } else {
                eprintln!("skipped: there is a driver: {error}");
            }
        }
    }
}

#[test]
fn each_thing_that_may_be_missing_is_named_with_how_to_get_it() {
    #[rustfmt::skip]
    let cases = [
        (Fault::NoDriver,                            "libcuda not found", "NVIDIA's driver"),
        (Fault::NoCompiler,                          "libnvrtc not found", "LD_LIBRARY_PATH"),
        (Fault::NoDevice { ordinal: 2, found: 1 },   "no CUDA device 2", "found 1 devices"),
    ];
    for (fault, what, how) in cases {
        let error = Error::from(Problem::from(fault));
        let text = error.to_string();
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        assert!(text.contains(what) && text.contains(how), "{text}");
    }
    let full = Error::from(Problem::from(Fault::NoSpace { needed: 2, free: 1 }));
    assert_eq!(full.to_string(), "device memory: no space: needs 2, has 1");
}

#[test]
fn wrong_keys_are_said_before_a_device_is_looked_for() {
    for (key, expected) in [
        ("device", "device: expected a whole number in 0..=63, found -1"),
        ("streams", "streams: expected a whole number in 1..=16, found -1"),
    ] {
        let error = Cuda::from_config(&Config::new().with(key, -1)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

/// `x [tokens, 8]`, and what `build` makes of it.
fn plan(build: impl FnOnce(&mut PlanBuilder, Val) -> Result<Val>) -> Plan {
    let mut b = PlanBuilder::new();
    let x = b.input("x", Spec::f32([Dim::TOKENS, 8.into()])).unwrap();
    let y = build(&mut b, x).unwrap();
    b.output("y", y).unwrap();
    b.finish()
}

fn last_support(plan: &Plan) -> Support {
    support::support(&NodeView { plan, node: plan.nodes.last().unwrap() })
}

#[test]
fn runs_kernels_whole_and_the_rest_as_expansions_of_them() {
    assert_eq!(last_support(&plan(|b, x| b.add(x, x))), Support::Native);
    assert_eq!(last_support(&plan(|b, x| fused::swiglu(b, x, x))), Support::Native);
    let geglu = plan(|b, x| fused::geglu(b, x, x));
    assert_eq!(last_support(&geglu), Support::Expand);
    let code = compile(&geglu, &Bucket::default(), &MemoryMap::default()).unwrap();
    assert!(matches!(code.steps[..], [Step::Unary { .. }, Step::Binary { .. }]), "{code:?}");
}

#[test]
fn what_it_cannot_run_is_refused_with_the_node() {
    let layer_norm = |b: &mut PlanBuilder, x| {
        let w = b.input("w", Spec::f32([Dim::Fixed(8)]))?;
        let y = b.add(x, x)?;
        fused::layer_norm(b, y, w, w, 1e-5)
    };
    #[rustfmt::skip]
    let cases = [
        (plan(|b, x| b.unary(ops::SOFTMAX, x)), "node 0, op `softmax` is unsupported: op `softmax` has no kernel"),
        (plan(layer_norm), "node 1, op `layer_norm` is unsupported: in its expansion, op `reduce_mean` has no kernel"),
        (plan(|b, x| { let y = b.cast(x, DType::F16)?; b.add(y, y) }), "node 0, op `cast` is unsupported: op `cast` has no kernel"),
    ];
    for (plan, expected) in cases {
        let error = compile(&plan, &Bucket::default(), &MemoryMap::default()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let mut b = PlanBuilder::new();
    let x = b.input("x", Spec::new(DType::F64, [Dim::TOKENS])).unwrap();
    let y = b.add(x, x).unwrap();
    b.output("y", y).unwrap();
    let refused = Support::No("values of f64: expected f32 there".to_owned());
    assert_eq!(last_support(&b.finish()), refused);
}

#[test]
fn shapes_that_no_builder_has_checked_are_checked() {
    let wider = |plan: &mut Plan, val: usize| plan.specs[val].dims = vec![Dim::TOKENS, 9.into()];
    let matmul = |b: &mut PlanBuilder, x| {
        let w = b.input("w", Spec::f32([Dim::Fixed(3), Dim::Fixed(8)]))?;
        b.matmul(x, w)
    };
    let norm = |b: &mut PlanBuilder, x| {
        let w = b.input("w", Spec::f32([Dim::Fixed(8)]))?;
        fused::rms_norm(b, x, w, 1e-5, 0.0)
    };
    let plans = [
        plan(|b, x| b.unary(ops::NEG, x)),
        plan(|b, x| b.add(x, x)),
        plan(|b, x| b.reshape(x, &[-1, 2, 4])),
        plan(|b, x| fused::swiglu(b, x, x)),
        plan(matmul),
        plan(norm),
    ];
    for plan in plans {
        for val in [0, plan.specs.len() - 1] {
            let mut plan = plan.clone();
            wider(&mut plan, val);
            let found = compile(&plan, &Bucket::default(), &MemoryMap::default());
            assert!(matches!(found, Err(Error::ShapeMismatch { .. })), "{plan}: {found:?}");
        }
    }
}

fn desc(rows: usize, cols: usize) -> WeightDesc {
    WeightDesc { name: "w".to_owned(), format: "Q4_1".to_owned(), rows, cols }
}

const Q4_1: Lowering =
    Lowering::Affine { bits: 4, group: 32, zero_point: 0, has_min: true, scales: Scales::F16 };

#[test]
fn affine_weights_stay_packed_and_vectors_do_not() {
    let packed = layout(&desc(3, 64), &Q4_1).unwrap();
    assert_eq!(packed.id.0, "cuda/1 affine 4 bits, group 32, zero 0, min");
    assert_eq!((packed.row_block, packed.block_bytes), (1, 32 + 2 * 8));
    assert_eq!(layout(&desc(1, 64), &Q4_1).unwrap().id.0, "cuda/1 dense f32");
    assert_eq!(layout(&desc(3, 48), &Q4_1).unwrap().block_bytes, 48 * 4);
    assert!(layout(&desc(2, usize::MAX / 2), &Lowering::Opaque).is_err());
}

#[test]
fn packs_what_fits_only() {
    let (desc, expected) = (desc(2, 32), layout(&desc(2, 32), &Q4_1).unwrap());
    let run = |codes: &[u8], scales: &[f32], len: usize| {
        let values = RawValues::Affine { codes, scales, mins: &[0.5, 0.25] };
        let raw = RawRows { desc: &desc, lowering: &Q4_1, rows: 2, values };
        pack(&raw, &expected, &mut vec![0; len])
    };
    let size = expected.size_bytes(2);
    assert_eq!(run(&[15; 64], &[0.5; 2], size), Ok(()));
    assert!(matches!(run(&[15; 63], &[0.5; 2], size), Err(Error::ShapeMismatch { .. })));
    assert!(matches!(run(&[15; 64], &[0.5; 3], size), Err(Error::ShapeMismatch { .. })));
    assert!(matches!(run(&[15; 64], &[0.5; 2], size - 1), Err(Error::ShapeMismatch { .. })));
    assert!(matches!(run(&[16; 64], &[0.5; 2], size), Err(Error::Malformed { .. })));
}

#[test]
fn quantized_weights_are_taken_by_products_and_tables_only() {
    let with_weight = |build: fn(&mut PlanBuilder, Val, Val) -> Result<Val>| {
        plan(|b, _| {
            let x = b.input("x32", Spec::f32([Dim::Fixed(2), Dim::Fixed(32)]))?;
            let w = b.declare_weight("w", Spec::f32([Dim::Fixed(2), Dim::Fixed(32)]))?;
            build(b, x, w)
        })
    };
    let (desc, lowering) = (desc(2, 32), Q4_1);
    let layout = layout(&desc, &lowering).unwrap();
    let weights = vec![WeightPlace { desc, lowering, layout }];
    let memory = MemoryMap { weights, ..MemoryMap::default() };
    let product = with_weight(|b, x, w| b.matmul(x, w));
    let code = compile(&product, &Bucket::default(), &memory).unwrap();
    assert!(matches!(code.steps[..], [Step::MatmulAffine { .. }]), "{code:?}");
    let sum = with_weight(|b, x, w| b.add(x, w));
    let error = compile(&sum, &Bucket::default(), &memory).unwrap_err();
    let expected =
        "node 0, op `add` is unsupported: quantized weights, other than by matmul and embed";
    assert_eq!(error.to_string(), expected);
}
