//! Equal meaning: replaced between two tokens, and nobody but the digest notices.

use jackfield_runtime::Reach;
use jackfield_tests::{Setup, answer, tiny_model};
use plugin_api::Config;
use plugin_api::testing::random::Random;

use super::{Token, of, request, slot, slots, step, swap, swap_with};

const REQUESTS: i64 = 3;
const TOKENS: i64 = 200;

/// What is swapped how often: kind, plugin, times.
const SWAPS: [(&str, &str, usize); 3] =
    [("kv-cache", "paged", 50), ("rotary-embedding", "standard", 50), ("backend", "cpu", 10)];

fn draws(seed: i64) -> jackfield_engine::Request {
    request(TOKENS).with("seed", seed)
}

#[test]
fn swaps_at_random_boundaries_change_every_digest_and_no_token() {
    let folder = tiny_model("tiny");
    let setup = Setup::new("cpu").set("cpu", "threads", 1);
    let mut engine = setup.load(folder.path()).unwrap();
    let expected: Vec<_> = (0..REQUESTS).map(|n| answer(&mut engine, draws(n)).1).collect();

    let mut engine = setup.load(folder.path()).unwrap();
    let ids: Vec<_> = (0..REQUESTS).map(|n| engine.submit(draws(n)).unwrap()).collect();
    let (mut random, mut left) = (Random::new(7), SWAPS.to_vec());
    let (mut tokens, mut last) = (Vec::<Token>::new(), None);
    while engine.num_running() > 0 {
        let is_swapped = !left.is_empty() && random.below(4) > 0;
        if is_swapped {
            let place = random.below(left.len());
            let (kind, name, times) = &mut left[place];
            let threads = Config::new().with("threads", 1 + *times as i64 % 2);
            let config = if *kind == "backend" { threads } else { Config::new() };
            let swapped = swap_with(&engine, &setup, kind, name, &config).unwrap();
            assert_eq!(swapped.reach, Reach::NextBoundary);
            *times -= 1;
            left.retain(|(.., times)| *times > 0);
        }
        let before = tokens.len();
        step(&mut engine, &mut tokens);
        for (_, _, digest) in &tokens[before..] {
            let is_other = last.is_some_and(|last| last != *digest);
            assert_eq!(is_other, is_swapped && last.is_some(), "a swap shows in the next token");
        }
        last = tokens.last().map(|(.., digest)| *digest);
    }
    assert!(left.is_empty(), "{left:?} did not happen");
    for (id, expected) in ids.into_iter().zip(&expected) {
        assert_eq!(of(&tokens, id), *expected);
    }
    for (kind, name, times) in SWAPS {
        assert_eq!(slot(&engine, kind), format!("{kind}: {name}#{}", times + 1));
    }
}

#[test]
fn every_cache_hands_its_sequences_over() {
    let folder = tiny_model("tiny");
    for cache in ["paged", "contiguous"] {
        let setup = Setup::new("cpu").with("kv-cache", cache);
        let mut engine = setup.load(folder.path()).unwrap();
        let expected = answer(&mut engine, draws(1)).1;
        let id = engine.submit(draws(1)).unwrap();
        let mut tokens = Vec::new();
        while engine.num_running() > 0 {
            swap(&engine, &setup, "kv-cache", cache).unwrap();
            step(&mut engine, &mut tokens);
        }
        assert_eq!(of(&tokens, id), expected, "{cache}");
        assert_eq!(engine.cache_usage().used, 0, "{cache}: every block comes back");
    }
}

#[test]
fn a_part_with_an_equal_id_takes_over_whatever_its_name() {
    let folder = tiny_model("tiny");
    let setup = super::parts::setup();
    let mut engine = setup.load(folder.path()).unwrap();
    let expected = answer(&mut engine, draws(1)).1;
    let id = engine.submit(draws(1)).unwrap();
    let mut tokens = Vec::new();
    for _ in 0..20 {
        step(&mut engine, &mut tokens);
    }
    let same = Config::new().with("id", "rope standard/1").with("by", 1.0);
    swap_with(&engine, &setup, "rotary-embedding", "faster", &same).unwrap();
    while engine.num_running() > 0 {
        step(&mut engine, &mut tokens);
    }
    assert_eq!(of(&tokens, id), expected);
    assert_eq!(slot(&engine, "rotary-embedding"), "rotary-embedding: faster#2");
}

#[test]
fn a_quantizer_and_a_scheduler_are_replaced_and_named_in_the_digest() {
    let folder = tiny_model("tiny");
    let setup = Setup::new("cpu");
    let mut engine = setup.load(folder.path()).unwrap();
    let expected = answer(&mut engine, draws(1)).1;
    let id = engine.submit(draws(1)).unwrap();
    let mut tokens = Vec::new();
    for (kind, name) in [("quantizer", "f32"), ("scheduler", "fcfs")] {
        step(&mut engine, &mut tokens);
        let before = tokens.last().unwrap().2;
        swap(&engine, &setup, kind, name).unwrap();
        step(&mut engine, &mut tokens);
        assert_ne!(tokens.last().unwrap().2, before, "{kind}");
        assert_eq!(slot(&engine, kind), format!("{kind}: {name}#2"));
    }
    while engine.num_running() > 0 {
        step(&mut engine, &mut tokens);
    }
    assert_eq!(of(&tokens, id), expected);
}

#[test]
fn a_processor_is_swapped_for_new_requests_and_running_ones_keep_theirs() {
    let folder = tiny_model("tiny");
    let setup = Setup::new("cpu");
    let mut engine = setup.load(folder.path()).unwrap();
    let expected = answer(&mut engine, draws(1)).1;
    let side = || request(2).with("seed", 9);
    let id = engine.submit(draws(1)).unwrap();
    let mut tokens = Vec::new();
    step(&mut engine, &mut tokens);
    for _ in 0..50 {
        // From the first swap on, new requests take the likeliest token every time.
        let strict = Config::new().with("top_k", 1);
        swap_with(&engine, &setup, "logits-processor", "top-k", &strict).unwrap();
        let short = engine.submit(side()).unwrap();
        while engine.num_running() > 1 {
            step(&mut engine, &mut tokens);
        }
        assert_eq!(of(&tokens, short).len(), 2, "the side request is answered");
    }
    let slots = slots(&engine);
    assert!(slots.contains(&"logits-processor: top-k#51, top-k#1 with 1".to_owned()), "{slots:?}");
    while engine.num_running() > 0 {
        step(&mut engine, &mut tokens);
    }
    let digests = tokens.iter().filter(|(request, ..)| *request == id).map(|(.., digest)| *digest);
    assert!(digests.is_sorted_by(|a, b| a == b), "what made the running request never changed");
    assert_eq!(of(&tokens, id), expected);
    let greedy = answer(&mut engine, request(2).strategy("greedy")).1;
    assert_eq!(answer(&mut engine, side()).1, greedy);
}
