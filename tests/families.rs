//! Seeded tiny models of families with mathematics of their own: logits and greedy tokens equal those of mlx-lm, on
//! backends, caches and chunkings, and no bit depends on chunks or on who else is answered.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use jackfield_engine::{Engine, Output, Request};
use jackfield_tests::{Setup, answer, golden, tiny_model};
use serde_json::Value;

/// Largest distance of a logit, over the largest logit: F32 sums in another order.
const TOLERANCE: f64 = 1e-4;

const MODELS: [&str; 5] =
    ["tiny_gpt_oss", "tiny_gpt_oss_mxfp4", "tiny_llama4", "tiny_deepseek_v3", "tiny_mamba"];

/// Backend, cache, most tokens in a step.
const SETUPS: [(&str, &str, usize); 5] = [
    ("reference", "paged", 512),
    ("cpu", "paged", 512),
    ("cpu", "contiguous", 512),
    ("cpu", "paged", 5),
    ("cpu", "paged", 1),
];

fn engine(model: &str, backend: &str, cache: &str, tokens_per_step_max: usize) -> Engine {
    let mut setup = Setup::new(backend).with("kv-cache", cache).set(cache, "dtype", "f32");
    setup.options.tokens_per_step_max = tokens_per_step_max;
    setup.options.logit_rows_max = 64;
    setup.load(tiny_model(model).path()).unwrap()
}

fn expected() -> Value {
    let text = std::fs::read_to_string(golden("families_expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn logits_and_greedy_tokens_equal_those_of_the_reference() {
    let expected = expected();
    for model in MODELS {
        for (backend, cache, tokens) in SETUPS {
            let mut engine = engine(model, backend, cache, tokens);
            for case in expected[model].as_array().unwrap() {
                let prompt = ids(&case["ids"]);
                let what = format!("{model}, {} tokens, {backend}/{cache}/{tokens}", prompt.len());
                let mut logits = Vec::new();
                let each = &mut |_: usize, row: &[f32]| logits.extend_from_slice(row);
                engine.evaluate(&prompt, prompt.len() - 1, tokens, each).unwrap();
                let theirs = case["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap());
                let theirs: Vec<f64> = theirs.collect();
                let largest = theirs.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
                assert_eq!(logits.len(), theirs.len(), "{what}");
                let distances = logits.iter().zip(&theirs).map(|(a, b)| (f64::from(*a) - b).abs());
                let distance = distances.fold(0.0_f64, f64::max) / largest;
                assert!(distance <= TOLERANCE, "{what}: {distance:e} away");

                let greedy = ids(&case["greedy"]);
                let request = Request::new(prompt).strategy("greedy");
                let request = request.with("max_tokens", greedy.len() as i64);
                let (_, ours) = answer(&mut engine, request.with("ignore_eos", true));
                assert_eq!(ours, greedy, "{what}");
            }
        }
    }
}

/// Logits of every token, as bits.
fn bits(engine: &mut Engine, tokens: &[u32], chunk: usize) -> Vec<u32> {
    let mut bits = Vec::new();
    let each = &mut |_: usize, row: &[f32]| bits.extend(row.iter().map(|x| x.to_bits()));
    engine.evaluate(tokens, 0, chunk, each).unwrap();
    bits
}

#[test]
fn chunks_and_caches_change_no_bit() {
    let tokens: Vec<u32> = (0..53).map(|i| i * 37 % 510).collect();
    for model in MODELS {
        for backend in ["reference", "cpu"] {
            let expected = bits(&mut engine(model, backend, "paged", 64), &tokens, 64);
            for (cache, chunk) in [("paged", 1), ("paged", 7), ("contiguous", 20)] {
                let found = bits(&mut engine(model, backend, cache, 64), &tokens, chunk);
                assert!(found == expected, "{model} {backend} {cache} {chunk}");
            }
        }
    }
}

#[test]
fn answers_do_not_depend_on_who_else_is_answered() {
    let request = |n: u32| {
        let prompt: Vec<u32> = (0..=n * 7).map(|i| (i * 37 + n * 11) % 510).collect();
        let request = Request::new(prompt).with("max_tokens", 20).with("ignore_eos", true);
        request.with("seed", i64::from(n)).with("temperature", 0.8)
    };
    for model in MODELS {
        let alone = |n| answer(&mut engine(model, "cpu", "paged", 512), request(n)).1;
        let alone: Vec<Vec<u32>> = (0..6).map(alone).collect();
        let mut engine = engine(model, "cpu", "paged", 16);
        let ids: Vec<_> = (0..6).map(|n| engine.submit(request(n)).unwrap()).collect();
        let mut together = vec![Vec::new(); 6];
        engine
            .run_to_end(&mut |output| match output {
                Output::Token { request, token, .. } => {
                    together[ids.iter().position(|id| *id == request).unwrap()].push(token);
                }
                Output::Finished { error, .. } => assert_eq!(error, None),
            })
            .unwrap();
        assert_eq!(together, alone, "{model}");
        assert_eq!(engine.cache_usage().used, 0, "every block comes back");
    }
}

/// Greedy tokens of a request, and how many of its prompt's tokens were in the cache.
fn greedy(engine: &mut Engine, prompt: &[u32], strategy: &str) -> (Vec<u32>, usize) {
    let request = Request::new(prompt.to_vec()).strategy(strategy).with("temperature", 0.0);
    engine.submit(request.with("max_tokens", 20).with("ignore_eos", true)).unwrap();
    let (mut tokens, mut cached) = (Vec::new(), 0);
    engine
        .run_to_end(&mut |output| match output {
            Output::Token { token, .. } => tokens.push(token),
            Output::Finished { error, stats, .. } => {
                assert_eq!(error, None);
                cached = stats.cached_tokens;
            }
        })
        .unwrap();
    (tokens, cached)
}

#[test]
fn states_of_sequences_are_found_again_at_the_ends_of_blocks() {
    let prompt = |last: u32| -> Vec<u32> {
        (0..41).map(|i| if i < 37 { i * 37 % 510 } else { i + last }).collect()
    };
    let mut shared = engine("tiny_mamba", "cpu", "paged", 512);
    for last in [1, 9, 300] {
        let (expected, _) =
            greedy(&mut engine("tiny_mamba", "cpu", "paged", 512), &prompt(last), "greedy");
        let (found, cached) = greedy(&mut shared, &prompt(last), "greedy");
        assert_eq!(found, expected, "{last}");
        assert_eq!(cached, if last == 1 { 0 } else { 32 }, "whole blocks of 16 that began alike");
    }
}

#[test]
fn guesses_change_no_answer_of_a_model_whose_state_cannot_be_taken_back() {
    let prompt: Vec<u32> = (0..30).map(|i| i % 5 * 37).collect();
    let (expected, _) = greedy(&mut engine("tiny_mamba", "cpu", "paged", 512), &prompt, "greedy");
    let mut guessing = engine("tiny_mamba", "cpu", "paged", 512);
    assert_eq!(greedy(&mut guessing, &prompt, "prompt-lookup").0, expected);
    assert_eq!(guessing.gauge().read().draft_tokens, 0);
}

#[test]
fn answers_of_a_recurrence_survive_a_cache_that_is_too_small_for_all() {
    let request = |n: u32| {
        let prompt: Vec<u32> = (0..20).map(|i| (i * 37 + n * 11) % 510).collect();
        let request = Request::new(prompt).strategy("greedy").with("max_tokens", 24);
        request.with("ignore_eos", true)
    };
    let mut roomy = engine("tiny_mamba", "cpu", "paged", 512);
    let alone: Vec<Vec<u32>> = (0..6).map(|n| answer(&mut roomy, request(n)).1).collect();
    // Two layers of 128 channels with 3 inputs and 16 numbers each, for every block.
    let block_bytes = 2 * 128 * (3 + 16) * 4;
    let mut small = Setup::new("cpu");
    small.options.state_bytes_max = 7 * block_bytes;
    small.options.context_length_max = 64;
    let mut engine = small.load(tiny_model("tiny_mamba").path()).unwrap();
    assert_eq!(engine.cache_usage().total, 7);
    let ids: Vec<_> = (0..6).map(|n| engine.submit(request(n)).unwrap()).collect();
    let mut together = vec![Vec::new(); 6];
    engine
        .run_to_end(&mut |output| match output {
            Output::Token { request, token, .. } => {
                together[ids.iter().position(|id| *id == request).unwrap()].push(token);
            }
            Output::Finished { error, .. } => assert_eq!(error, None),
        })
        .unwrap();
    assert_eq!(together, alone);
    assert!(engine.gauge().read().preemptions > 0);
    assert_eq!(engine.cache_usage().used, 0);
}
