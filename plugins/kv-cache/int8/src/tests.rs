//! What the cache says of its numbers. What codes and scales are is tested against numpy elsewhere.

use super::*;
use plugin_api::plan::{Part, Per};

fn states(num: usize) -> Vec<StateSpec> {
    let part = |name: &str| Part { name: name.to_owned(), dims: vec![2, 3] };
    let parts = vec![part("key"), part("value")];
    let per = Per::Token { window: 0 };
    vec![StateSpec { name: "layers.0.self_attn".to_owned(), per, parts }; num]
}

/// Scales for one state of the contract suite.
fn scales(of: &[f64]) -> Value {
    let part = || Value::List(of.iter().map(|x| Value::Float(*x)).collect());
    Value::List(vec![Value::List(vec![part(), part()])])
}

const LIMITS: PoolLimits =
    PoolLimits { num_seqs_max: 2, tokens_per_seq_max: 64, size_bytes_max: 1 << 20 };

#[test]
fn passes_the_contract_suite() {
    for block_size in [1, 7, 16] {
        let config = Config::new().with("block_size", block_size);
        plugin_api::testing::kv_cache::suite::<Int8>(&config);
        let fixed = config.with("channel_scales", scales(&[0.5, 1.0, 1.0, 2.0, 1.0, 0.25]));
        plugin_api::testing::kv_cache::suite::<Int8>(&fixed);
    }
}

#[test]
fn a_token_takes_half_of_what_it_takes_in_16_bits() {
    // As in a model with 3 heads of 64 channels.
    let part = |name: &str| Part { name: name.to_owned(), dims: vec![3, 64] };
    let parts = vec![part("key"), part("value")];
    let per = Per::Token { window: 0 };
    let states = [StateSpec { name: "s".to_owned(), per, parts }];
    let bytes = |storage: Storage| block_bytes(&states, &[storage], 16).unwrap() / 16;
    assert_eq!(bytes(Storage::Plain(DType::F16)), 2 * 3 * 128);
    let dynamic = Codes { scales: StateScales::from_config(&Config::new()).unwrap() };
    assert_eq!(bytes(dynamic.storage(&states).unwrap()[0].clone()), 2 * 3 * 66);
    let fixed = CodeScales::PerChannel(vec![vec![1.0; 192]; 2]);
    assert_eq!(bytes(Storage::Affine(AffineStorage { scales: fixed, patches: None })), 2 * 3 * 64);
}

#[test]
fn other_scales_mean_other_numbers() {
    let meaning = |config: &Config| {
        let mut cache = Int8::from_config(config).unwrap();
        cache.pool(&states(1), &LIMITS).unwrap().semantic_id
    };
    let fixed = |of: &[f64]| meaning(&Config::new().with("channel_scales", scales(of)));
    let (a, b) = (fixed(&[1.0; 6]), fixed(&[1.0, 1.0, 1.0, 1.0, 1.0, 1.5]));
    assert_eq!(meaning(&Config::new()), SemanticId::new("kv int8 dynamic/1"));
    assert_eq!(a, fixed(&[1.0; 6]));
    assert!(a != b && a != meaning(&Config::new()), "{a:?} {b:?}");
}

#[test]
fn scales_that_do_not_fit_are_refused() {
    let text = Value::Text("large".to_owned());
    for wrong in [text.clone(), Value::List(vec![text]), scales(&[0.0; 6]), scales(&[f64::NAN])] {
        let config = Config::new().with("channel_scales", wrong.clone());
        let answer = Int8::from_config(&config).map(|_| ());
        assert!(matches!(answer, Err(Error::Config { .. })), "{wrong:?}: {answer:?}");
    }
    let pool = |of: &[f64], num_states| {
        let config = Config::new().with("channel_scales", scales(of));
        Int8::from_config(&config).unwrap().pool(&states(num_states), &LIMITS)
    };
    assert!(pool(&[1.0; 6], 1).is_ok());
    assert!(matches!(pool(&[1.0; 6], 2), Err(Error::ShapeMismatch { .. })));
    assert!(matches!(pool(&[1.0; 5], 1), Err(Error::Malformed { .. })));
}

#[test]
fn states_per_sequence_are_no_codes() {
    let mut states = states(2);
    states[1].per = Per::Sequence;
    let spec = Int8::from_config(&Config::new()).unwrap().pool(&states, &LIMITS).unwrap();
    assert!(matches!(spec.storage[0], Storage::Affine(_)), "{spec:?}");
    assert_eq!(spec.storage[1], Storage::Plain(DType::F32));
}
