//! What the cache says of its numbers, and what patches are for.

use super::*;
use plugin_api::plan::{Part, Per};

fn part() -> Part {
    Part { name: "key".to_owned(), dims: vec![2, 64] }
}

fn storage(config: &Config) -> Storage {
    let state = StateSpec {
        name: "s".to_owned(),
        per: Per::Token { window: 0 },
        parts: vec![part(), Part { name: "value".to_owned(), ..part() }],
    };
    PatchedCodes::from_config(config).unwrap().storage(&[state]).unwrap().remove(0)
}

#[test]
fn passes_the_contract_suite() {
    for block_size in [1, 7, 16] {
        for patches in [1, 40] {
            let config = Config::new().with("block_size", block_size);
            let config = config.with("patches_per_block", patches);
            plugin_api::testing::kv_cache::suite::<Int8Residual>(&config);
        }
    }
}

#[test]
fn a_block_has_room_for_its_patches() {
    let config = Config::new().with("patches_per_block", 2);
    assert_eq!(storage(&config).block_bytes(&part(), 16), 16 * 2 * 66 + 2 * 36);
    for (key, wrong) in [("patches_per_block", Value::Int(0)), ("error_min", Value::Float(1.5))] {
        let answer = PatchedCodes::from_config(&Config::new().with(key, wrong)).map(|_| ());
        assert!(matches!(answer, Err(Error::Config { .. })), "{key}: {answer:?}");
    }
}

/// Root of the mean square of what storing tokens of these numbers loses, by token.
fn errors(storage: &Storage, tokens: &[Vec<f32>]) -> Vec<f64> {
    let mut block = vec![0; storage.block_bytes(&part(), 16)];
    for (inside, x) in tokens.iter().enumerate() {
        storage.write(0, &part(), &mut block, inside, x);
    }
    let mut found = vec![0.0; 128];
    let loss = |(inside, x): (usize, &Vec<f32>)| {
        storage.read(0, &part(), &block, inside, &mut found);
        let lost: f64 = x.iter().zip(&found).map(|(x, y)| f64::from(x - y).powi(2)).sum();
        (lost / 128.0).sqrt()
    };
    tokens.iter().enumerate().map(loss).collect()
}

#[test]
fn patches_go_to_the_vectors_that_codes_keep_badly() {
    let mut random = plugin_api::testing::random::Random::new(3);
    let mut tokens: Vec<Vec<f32>> =
        (0..16).map(|_| (0..128).map(|_| random.signed()).collect()).collect();
    // One channel of one vector is far beyond all others: the scale of that vector is coarse.
    tokens[5][70] = 60.0;
    let config = Config::new().with("error_min", 0.01);
    let plain = Storage::Affine(AffineStorage { scales: CodeScales::PerVector, patches: None });
    let (codes, patched) = (errors(&plain, &tokens), errors(&storage(&config), &tokens));
    for (token, (codes, patched)) in codes.iter().zip(&patched).enumerate() {
        if token == 5 {
            assert!(*patched < codes / 5.0, "{patched} of {codes}");
        } else {
            assert_eq!(codes, patched, "token {token} needs none");
        }
    }
}

#[test]
fn the_first_ones_get_the_patches_and_who_is_written_again_gives_them_back() {
    let outlier =
        |at: usize| -> Vec<f32> { (0..128).map(|c| if c == at { 90.0 } else { 0.3 }).collect() };
    let config = Config::new().with("patches_per_block", 2).with("error_min", 0.001);
    let storage = storage(&config);
    let mut block = vec![0; storage.block_bytes(&part(), 16)];
    let mut found = vec![0.0; 128];
    let mut is_exact = |block: &[u8], inside: usize| {
        storage.read(0, &part(), block, inside, &mut found);
        (found[1] - 0.3).abs() < 0.01
    };
    for inside in 0..4 {
        storage.write(0, &part(), &mut block, inside, &outlier(9));
    }
    let exact: Vec<bool> = (0..4).map(|inside| is_exact(&block, inside)).collect();
    assert_eq!(exact, [true, true, false, false]);
    storage.write(0, &part(), &mut block, 1, &[0.5; 128]);
    storage.write(0, &part(), &mut block, 2, &outlier(9));
    assert!(is_exact(&block, 0) && is_exact(&block, 2), "what token 1 gave back");
}
