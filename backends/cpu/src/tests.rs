//! The contract suite, and what the configuration takes.

use plugin_api::TensorMut;
use plugin_api::plan::{Dim, PlanBuilder};
use plugin_api::testing::backend;
use plugin_api::testing::interpreter::{Feed, FusedAs};

use super::*;

#[test]
fn passes_the_contract_suite_with_every_instruction_set() {
    for isa in ["scalar", "avx2", "avx512", "amx"] {
        for threads in [1, 3] {
            let config = Config::new().with("isa", isa).with("threads", threads);
            match Cpu::from_config(&config) {
                Ok(cpu) => backend::suite(&cpu),
                Err(error) => assert!(matches!(error, Error::Unsupported { .. }), "{error}"),
            }
        }
    }
}

#[test]
fn passes_the_contract_suite_with_activations_of_8_bits() {
    let config = Config::new().with("activations", "int8").with("threads", 2);
    backend::suite(&Cpu::from_config(&config).unwrap());
}

#[test]
fn says_what_a_configuration_may_hold() {
    #[rustfmt::skip]
    let cases = [
        ("isa",     Value::from("sse9"), "isa: expected one of auto, amx, avx512, avx2, scalar, found \"sse9\""),
        ("threads", Value::from(0),      "threads: expected a whole number in 1..=256, found 0"),
        ("threads", Value::from(257),    "threads: expected a whole number in 1..=256, found 257"),
    ];
    for (key, value, expected) in cases {
        let error = Cpu::from_config(&Config::new().with(key, value)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn adopts_what_any_instance_packed() {
    let desc = WeightDesc { name: "w".to_owned(), format: "q".to_owned(), rows: 33, cols: 64 };
    let lowering = Lowering::Opaque;
    let scalar = Config::new().with("isa", "scalar").with("threads", 1);
    let (one, other) = (
        Cpu::from_config(&scalar).unwrap(),
        Cpu::from_config(&Config::new().with("threads", 3)).unwrap(),
    );
    assert_eq!(one.layout(&desc, &lowering), other.layout(&desc, &lowering));
}

/// Elementwise ops on one length, more values at a time than a chain holds, single numbers in between.
fn elementwise(len: u64, values: usize) -> Plan {
    let mut g = PlanBuilder::new();
    let dims = |n| [Dim::Fixed(1), Dim::Fixed(n)];
    let x = g.input("x", Spec::f32(dims(len))).unwrap();
    let rate = g.input("rate", Spec::f32(dims(1))).unwrap();
    let mut kept = vec![x];
    for i in 0..values {
        let (last, half) = (kept[kept.len() - 1], g.scale(rate, 0.5 + i as f64).unwrap());
        let next = g.mul(last, half).unwrap();
        kept.push(g.unary(ops::TANH, next).unwrap());
    }
    let mut sum = x;
    for val in kept.iter().skip(1).rev() {
        sum = g.add(sum, *val).unwrap();
    }
    g.output("middle", kept[values / 2]).unwrap();
    g.output("sum", sum).unwrap();
    g.finish()
}

#[test]
fn chains_compute_what_their_ops_do() {
    for (len, values) in [(1, 2), (7, 12), (1024, 3), (2049, 12), (5000, 20)] {
        let plan = elementwise(len, values);
        let x: Vec<f32> = (0..len).map(|i| (i as f32 * 0.37).sin()).collect();
        let feed = Feed::new().reals("x", &x).reals("rate", &[0.75]);
        let expected = feed.run::<f64>(&plan, FusedAs::Whole).unwrap();
        let mut first: Option<Vec<Vec<f32>>> = None;
        for threads in [1, 3] {
            let cpu = Cpu::from_config(&Config::new().with("threads", threads)).unwrap();
            let exe = cpu.compile(&plan, &Bucket::default(), &MemoryMap::default()).unwrap();
            let chains =
                |instruction: &code::Instruction| matches!(instruction.op, code::Op::Chain(_));
            let code: &code::Code = exe.code().unwrap();
            assert!(code.instructions.iter().any(chains), "{len} {values}: no chain");
            let mut found = vec![vec![f32::NAN; x.len()]; 2];
            let mut outputs: Vec<_> = found.iter_mut().map(|x| TensorMut::F32(x)).collect();
            // Aligned to a line, wherever the vector lies.
            let mut scratch = vec![0_u8; exe.scratch_bytes + 64];
            let start = scratch.as_ptr().align_offset(64);
            let mut bind = Bindings {
                sizes: &[],
                inputs: &feed.inputs_of(&plan).unwrap(),
                weights: &[],
                state: &mut [],
                scratch: &mut scratch[start..],
                outputs: &mut outputs,
            };
            assert_eq!(cpu.run(&exe, StreamId(0), &mut bind), Ok(Fence::Done));
            for (found, expected) in found.iter().zip(&expected) {
                let expected = expected.clone().into_reals().unwrap();
                for (found, expected) in found.iter().zip(expected) {
                    let error = (f64::from(*found) - expected).abs();
                    assert!(
                        error < 1e-5 * values as f64,
                        "{len} {values}: {found}, not {expected}"
                    );
                }
            }
            assert_eq!(
                *first.get_or_insert(found.clone()),
                found,
                "{len} {values}, {threads} threads"
            );
        }
    }
}
