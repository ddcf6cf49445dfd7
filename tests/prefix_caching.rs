//! Prompts that begin as others did are not evaluated again, and nobody can tell from the answer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use jackfield_engine::{Engine, Output, Request, Stats};
use jackfield_runtime::SwapTarget;
use jackfield_tests::{Setup, real_model, tiny_model};
use plugin_api::Provided;
use plugin_api::native::{Owner, across};
use plugin_api::prelude::*;
use tempfile::TempDir;

/// The tiny model with room for prompts of thousands of tokens.
fn long_model() -> TempDir {
    let folder = tiny_model("tiny");
    let path = folder.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    let (from, to) = ("\"max_position_embeddings\": 256", "\"max_position_embeddings\": 8192");
    assert!(text.contains(from));
    fs::write(path, text.replace(from, to)).unwrap();
    folder
}

fn setup(backend: &str, keeps: bool) -> Setup {
    let setup = Setup::new(backend).set("paged", "prefix_caching", keeps);
    setup.set("cpu", "threads", 2)
}

/// `len` tokens that depend on `seed`.
fn text(seed: u32, len: u32) -> Vec<u32> {
    (0..len).map(|i| (i * 37 + i * i % 101 + seed * 11) % 510).collect()
}

fn request(prompt: Vec<u32>) -> Request {
    let request = Request::new(prompt).with("max_tokens", 12).with("ignore_eos", true);
    request.with("temperature", 0.9).with("top_p", 0.95).with("seed", 3).with("logprobs", true)
}

/// Tokens with the bits of their logprobs, and how it went.
fn answer(engine: &mut Engine, request: Request) -> (Vec<(u32, u32)>, Stats) {
    engine.submit(request).unwrap();
    answers(engine)
}

fn answers(engine: &mut Engine) -> (Vec<(u32, u32)>, Stats) {
    let (mut tokens, mut last) = (Vec::new(), Stats::default());
    engine
        .run_to_end(&mut |output| match output {
            Output::Token { token, logprob, .. } => tokens.push((token, logprob.to_bits())),
            Output::Finished { stats, error, .. } => {
                assert_eq!(error, None);
                last = stats;
            }
        })
        .unwrap();
    (tokens, last)
}

#[test]
fn answers_have_the_same_bits_with_and_without() {
    let folder = tiny_model("tiny");
    // Lengths around the ends of blocks of 16; each prompt is asked twice, whole and continued.
    for backend in ["reference", "cpu"] {
        let mut keeps = setup(backend, true).load(folder.path()).unwrap();
        let mut evaluates = setup(backend, false).load(folder.path()).unwrap();
        for len in [1, 15, 16, 17, 32, 33, 63, 64, 65, 130] {
            for continued in [0, 1, 16, 40] {
                let mut prompt = text(len, len);
                prompt.extend(text(99, continued));
                let (expected, without) = answer(&mut evaluates, request(prompt.clone()));
                for round in 0..2 {
                    let (found, with) = answer(&mut keeps, request(prompt.clone()));
                    assert_eq!(found, expected, "{backend}, {len} + {continued}, round {round}");
                    // The last token is evaluated whatever is there.
                    let most = (prompt.len() - 1) / 16 * 16;
                    assert!(with.cached_tokens <= most);
                    assert!(round == 0 || with.cached_tokens == most, "{with:?}");
                    assert_eq!(without.cached_tokens, 0);
                }
            }
        }
        assert_eq!(keeps.cache_usage().used, 0, "what is kept counts as free");
    }
}

#[test]
fn a_shared_system_prompt_is_evaluated_once() {
    let folder = long_model();
    let mut engine = setup("cpu", true).load(folder.path()).unwrap();
    let gauge = engine.gauge();
    let system = text(1, 2_000);
    let mut evaluated = Vec::new();
    for user in 0..3 {
        let before = gauge.read();
        let mut prompt = system.clone();
        prompt.extend(text(100 + user, 20));
        let (_, stats) = answer(&mut engine, request(prompt).with("max_tokens", 1));
        let after = gauge.read();
        evaluated.push(after.evaluated_tokens - before.evaluated_tokens);
        assert_eq!(after.prompt_tokens - before.prompt_tokens, 2_020);
        assert_eq!(after.cached_tokens - before.cached_tokens, stats.cached_tokens as u64);
        assert_eq!(stats.prompt_tokens, 2_020);
    }
    assert_eq!(evaluated, [2_020, 20, 20], "the second time at least 90 % less");
}

#[test]
fn requests_that_run_at_once_share_blocks() {
    let folder = long_model();
    let mut engine = setup("cpu", true).load(folder.path()).unwrap();
    let prompt = |user: u32| {
        let mut prompt = text(1, 320);
        prompt.extend(text(user, 5));
        prompt
    };
    answer(&mut engine, request(prompt(0)));
    for user in 1..9 {
        engine.submit(request(prompt(user))).unwrap();
    }
    engine.step(&mut |_| {}).unwrap();
    let used = engine.cache_usage().used;
    assert_eq!(used, 320 / 16 + 8, "twenty blocks of all, one of each");
    answers(&mut engine);
    assert_eq!(engine.cache_usage().used, 0);
}

#[test]
fn salts_keep_requests_apart() {
    let folder = tiny_model("tiny");
    let mut engine = setup("cpu", true).load(folder.path()).unwrap();
    let mut cached = |salt: &str| {
        let salted = request(text(1, 64)).with("cache_salt", salt);
        answer(&mut engine, salted).1.cached_tokens
    };
    let found = [cached("a"), cached("b"), cached("a"), cached("b"), cached("")];
    assert_eq!(found, [0, 0, 48, 48, 0]);
}

#[test]
fn blocks_of_a_plan_are_never_read_under_another() {
    let folder = tiny_model("tiny");
    let setup = setup("cpu", true);
    let mut engine = setup.load(folder.path()).unwrap();
    let prompt = || request(text(1, 100));
    let (expected, _) = answer(&mut engine, prompt());
    assert_eq!(answer(&mut engine, prompt()).1.cached_tokens, 96);
    for (kind, name) in [("rotary-embedding", "standard"), ("backend", "cpu"), ("norm", "rms-norm")]
    {
        // A stream that began before the swap goes on with blocks of both: it gives none away.
        let stream = request(text(1, 100)).with("max_tokens", 60);
        engine.submit(stream).unwrap();
        engine.step(&mut |_| {}).unwrap();
        let config = setup.wiring.table(name).cloned().unwrap_or_else(Config::new);
        let instance = (setup.registry.find(kind, name).unwrap().make)(&config).unwrap();
        engine.swapper().swap(kind, name, instance, Duration::ZERO).unwrap();
        answers(&mut engine);
        let (found, first) = answer(&mut engine, prompt());
        assert_eq!((first.cached_tokens, &found), (0, &expected), "after another {kind}");
        let (found, second) = answer(&mut engine, prompt());
        assert_eq!((second.cached_tokens, &found), (96, &expected), "{kind}");
    }
}

#[test]
fn a_cache_that_takes_over_is_told_again_what_streams_hold() {
    let folder = tiny_model("tiny");
    let setup = setup("cpu", true);
    let mut engine = setup.load(folder.path()).unwrap();
    let (expected, _) = answer(&mut engine, request(text(1, 100)));
    answer(&mut engine, request(text(2, 100)));
    let stream = engine.submit(request(text(1, 100)).with("max_tokens", 60)).unwrap();
    engine.step(&mut |_| {}).unwrap();
    let config = setup.wiring.table("paged").cloned().unwrap_or_else(Config::new);
    let instance = (setup.registry.find("kv-cache", "paged").unwrap().make)(&config).unwrap();
    engine.swapper().swap("kv-cache", "paged", instance, Duration::ZERO).unwrap();
    engine.step(&mut |_| {}).unwrap();
    assert_eq!(engine.gauge().read().running, 1);
    let before = engine.gauge().read().cached_tokens;
    let id = engine.submit(request(text(1, 100))).unwrap();
    let mut found = Vec::new();
    engine
        .run_to_end(&mut |output| match output {
            Output::Token { request, token, logprob, .. } if request == id => {
                found.push((token, logprob.to_bits()));
            }
            Output::Finished { request, error, .. } => {
                assert!(error.is_none() && (request == id || request == stream));
            }
            Output::Token { .. } => {}
        })
        .unwrap();
    assert_eq!(found, expected);
    assert_eq!(engine.gauge().read().cached_tokens - before, 96, "the stream's blocks");
    let (_, gone) = answer(&mut engine, request(text(2, 100)));
    assert_eq!(gone.cached_tokens, 0, "blocks without owner stay behind");
}

#[test]
fn preemption_and_eviction_change_no_bit() {
    let folder = tiny_model("tiny");
    let prompts: Vec<Vec<u32>> = (0..24)
        .map(|n| {
            let mut prompt = text(n % 3, 40);
            prompt.extend(text(n, n));
            prompt
        })
        .collect();
    let mut roomy = setup("cpu", false).load(folder.path()).unwrap();
    let alone: Vec<_> =
        prompts.iter().map(|prompt| answer(&mut roomy, request(prompt.clone())).0).collect();
    for (scheduler, tokens) in
        [("fcfs", 512), ("fcfs", 24), ("continuous", 24), ("priority", 512), ("priority", 24)]
    {
        let mut small = setup("cpu", true).with("scheduler", scheduler);
        // 256 bytes a token in F16, 16 tokens a block: a dozen blocks for what needs a hundred.
        small.options.state_bytes_max = 12 * 16 * 256;
        small.options.context_length_max = 96;
        small.options.tokens_per_step_max = tokens;
        let mut engine = small.load(folder.path()).unwrap();
        assert_eq!(engine.cache_usage().total, 12);
        let ids: Vec<_> = prompts
            .iter()
            .enumerate()
            .map(|(n, prompt)| {
                let mut request = request(prompt.clone());
                request.priority = n as i32 % 5;
                engine.submit(request).unwrap()
            })
            .collect();
        let mut together = vec![Vec::new(); prompts.len()];
        engine
            .run_to_end(&mut |output| match output {
                Output::Token { request, token, logprob, .. } => {
                    let index = ids.iter().position(|id| *id == request).unwrap();
                    together[index].push((token, logprob.to_bits()));
                }
                Output::Finished { error, .. } => assert_eq!(error, None, "{scheduler}, {tokens}"),
            })
            .unwrap();
        assert_eq!(together, alone, "{scheduler}, {tokens} tokens a step");
        assert_eq!(engine.cache_usage().used, 0, "every block comes back");
        let load = engine.gauge().read();
        assert!(load.preemptions > 0 && load.cached_tokens > 0, "{scheduler}: {load:?}");
    }
}

/// Nobody fails here.
struct Strict;

impl Owner for Strict {
    fn label(&self) -> String {
        "plugin".to_owned()
    }

    fn fault(&self, error: &Error) {
        panic!("{error}");
    }
}

#[test]
fn prefixes_are_found_over_the_boundary_of_the_native_lane() {
    let folder = tiny_model("tiny");
    let mut setup = setup("cpu", true);
    let (plugin, provided) = setup.registry.remove("kv-cache", "paged").unwrap();
    let provided = provided.iter().map(|provided| {
        let direct = Arc::clone(&provided.make);
        let make = move |config: &Config| {
            let instance = *direct(config)?.downcast::<Box<dyn KvCache>>().expect("a cache");
            Ok(Box::new(across(instance, Arc::new(Strict))) as _)
        };
        Provided { make: Arc::new(make), ..provided.clone() }
    });
    let provided = provided.collect();
    setup.registry.add(plugin, provided).unwrap();
    let mut engine = setup.load(folder.path()).unwrap();
    let (first, second) =
        (answer(&mut engine, request(text(1, 100))), answer(&mut engine, request(text(1, 100))));
    assert_eq!((first.1.cached_tokens, second.1.cached_tokens), (0, 96));
    assert_eq!(first.0, second.0);
}

#[test]
fn a_real_model_answers_with_the_same_bits() {
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(model) = real_model("SmolLM2-135M-Instruct", file) else { return };
    let system = "You are a careful assistant. ".repeat(24);
    let ask = |question: &str| {
        let request = Request::new(format!("{system}{question}").as_str()).strategy("greedy");
        request.with("max_tokens", 12).with("ignore_eos", true).with("logprobs", true)
    };
    let mut evaluates = setup("cpu", false).load(&model).unwrap();
    let mut keeps = setup("cpu", true).load(&model).unwrap();
    for (index, question) in
        ["What is gravity?", "Who was Ada?", "What is gravity?"].iter().enumerate()
    {
        let (expected, _) = answer(&mut evaluates, ask(question));
        let (found, stats) = answer(&mut keeps, ask(question));
        assert_eq!(found, expected, "{question}");
        assert!(index == 0 || stats.cached_tokens * 10 >= stats.prompt_tokens * 8, "{stats:?}");
    }
}
