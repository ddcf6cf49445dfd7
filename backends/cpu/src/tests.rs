//! The contract suite, and what the configuration takes.

use plugin_api::testing::backend;

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
