//! Codes take over from plain numbers, and give back, while requests run.

use std::time::Duration;

use jackfield_engine::{Engine, Output, Request, RequestId};
use jackfield_runtime::{Reach, SwapTarget};
use jackfield_tests::{Setup, answer, tiny_model};
use plugin_api::Config;
use plugin_api::kinds::kv_cache::Storage;

const TOKENS: i64 = 100;

fn requests() -> [Request; 3] {
    let long: Vec<u32> = (0..70).map(|i| (i * 31) % 510).collect();
    [vec![510, 3, 7, 31], long.clone(), [long, vec![5]].concat()].map(|tokens| {
        let request = Request::new(tokens).with("max_tokens", TOKENS).with("ignore_eos", true);
        request.strategy("greedy")
    })
}

fn is_codes(engine: &Engine) -> bool {
    matches!(engine.state_layout().pool.storage[0], Storage::Affine(_))
}

fn swap(engine: &Engine, setup: &Setup, cache: &str) -> Reach {
    swap_with(engine, setup, cache, &Config::new())
}

fn swap_with(engine: &Engine, setup: &Setup, cache: &str, config: &Config) -> Reach {
    let provided = setup.registry.find("kv-cache", cache).unwrap();
    let made = (provided.make)(config).unwrap();
    engine.swapper().swap("kv-cache", cache, made, Duration::ZERO).unwrap().reach
}

fn step(engine: &mut Engine, tokens: &mut Vec<(RequestId, u32)>) {
    let sink = &mut |output: Output<'_>| match output {
        Output::Token { request, token, .. } => tokens.push((request, token)),
        Output::Finished { error, .. } => assert_eq!(error, None),
    };
    engine.step(sink).unwrap();
}

#[test]
fn streams_go_on_while_numbers_become_codes_and_come_back() {
    let folder = tiny_model("tiny");
    for cache in ["int8", "int8-residual"] {
        let mut setup = Setup::new("cpu");
        let per_token = setup.load(folder.path()).unwrap().state_layout().bytes_per_token as u64;
        let mut plain = setup.load(folder.path()).unwrap();
        let expected = requests().map(|request| answer(&mut plain, request).1);
        setup.options.convert_bytes_per_step = 16 * per_token;
        let mut engine = setup.load(folder.path()).unwrap();
        let ids = requests().map(|request| engine.submit(request).unwrap());
        let (mut tokens, mut steps_with, mut took_over_at) = (Vec::new(), [0, 0], None);
        for n in 0.. {
            if engine.num_running() == 0 {
                break;
            }
            match n {
                10 => assert_eq!(swap(&engine, &setup, cache), Reach::NextBoundary),
                60 => assert_eq!(swap(&engine, &setup, "paged"), Reach::NextBoundary),
                _ => {}
            }
            let before = tokens.len();
            step(&mut engine, &mut tokens);
            engine.swapper().flush();
            assert!(n == 0 || tokens.len() > before, "{cache}: step {n} gave no token");
            steps_with[usize::from(is_codes(&engine))] += 1;
            if is_codes(&engine) && took_over_at.is_none() {
                took_over_at = Some(tokens.len());
            }
        }
        let [plain, codes] = steps_with;
        assert!(plain > 20 && codes > 20, "{cache}: {plain} plain steps, {codes} with codes");
        assert!(!is_codes(&engine), "{cache}: it gave back");
        let took_over_at = took_over_at.unwrap();
        for (id, expected) in ids.into_iter().zip(&expected) {
            let all: Vec<usize> = (0..tokens.len()).filter(|i| tokens[*i].0 == id).collect();
            assert_eq!(all.len(), TOKENS as usize, "{cache}: no token is lost or doubled");
            let before = all.iter().filter(|i| **i < took_over_at).count();
            let found: Vec<u32> = all[..before].iter().map(|i| tokens[*i].1).collect();
            assert!(before > 10, "{cache}: {before}");
            assert_eq!(found[..before - 1], expected[..before - 1], "{cache}: until it takes over");
        }
        assert_eq!(engine.cache_usage().used, 0, "{cache}: every block comes back");
    }
}

/// Caches with blocks of the same size, and their configurations.
fn caches(block_size: i64) -> [(&'static str, Config); 7] {
    let paged = || Config::new().with("block_size", block_size);
    let patched = paged().with("error_min", 0.008).with("patches_per_block", 40);
    [
        ("paged", paged()),
        ("paged", paged().with("dtype", "f32")),
        ("contiguous", Config::new()),
        ("contiguous", Config::new().with("dtype", "f32")),
        ("int8", paged()),
        ("int8-residual", paged()),
        ("int8-residual", patched),
    ]
}

fn setup(cache: &str, config: &Config) -> Setup {
    config.unmarked().fold(Setup::new("cpu").with("kv-cache", cache), |setup, (key, value)| {
        setup.set(cache, key, value.clone())
    })
}

#[test]
fn every_cache_takes_over_from_every_other() {
    let folder = tiny_model("tiny");
    let load = |cache: &str, config: &Config| setup(cache, config).load(folder.path()).unwrap();
    let whole = load("contiguous", &Config::new()).state_layout().pool.block_size;
    let caches = caches(whole as i64);
    let meaning = |engine: &Engine| engine.state_layout().pool.semantic_id.clone();
    for (from, config) in &caches {
        let mut plain = load(from, config);
        let (old, per_token) = (meaning(&plain), plain.state_layout().bytes_per_token as u64);
        let expected = requests().map(|request| answer(&mut plain, request).1);
        let mut setup = setup(from, config);
        setup.options.convert_bytes_per_step = 20 * per_token;
        for (to, into) in &caches {
            let (new, what) =
                (meaning(&load(to, into)), format!("{from} {config:?} to {to} {into:?}"));
            let mut engine = setup.load(folder.path()).unwrap();
            let ids = requests().map(|request| engine.submit(request).unwrap());
            let (mut tokens, mut took_over_at) = (Vec::new(), None);
            for n in 0.. {
                if engine.num_running() == 0 {
                    break;
                }
                if n == 25 {
                    swap_with(&engine, &setup, to, into);
                }
                step(&mut engine, &mut tokens);
                engine.swapper().flush();
                if n >= 25 && meaning(&engine) == new {
                    took_over_at = took_over_at.or(Some(tokens.len()));
                }
            }
            let took_over_at = took_over_at.unwrap_or_else(|| panic!("{what}: never"));
            let [mut before, mut alike] = [0, 0];
            for (id, expected) in ids.into_iter().zip(&expected) {
                let all: Vec<usize> = (0..tokens.len()).filter(|i| tokens[*i].0 == id).collect();
                assert_eq!(all.len(), TOKENS as usize, "{what}: no token is lost or doubled");
                let found = all.iter().map(|i| tokens[*i].1);
                let is_same = found.zip(expected).take_while(|(a, b)| a == *b).count();
                let own = all.iter().filter(|i| **i < took_over_at).count();
                assert!(is_same + 1 >= own, "{what}: {is_same} of {own} until it takes over");
                (before, alike) = (before + own, alike + is_same);
            }
            println!("{what}: {alike} tokens alike, {before} until it took over");
            let num_all = ids.len() * TOKENS as usize;
            assert!(old != new || alike == num_all, "{what}: the same numbers, {alike} alike");
            assert!(alike > before, "{what}: what was converted is near what it was");
            assert_eq!(engine.cache_usage().used, 0, "{what}: every block comes back");
        }
    }
}

#[test]
fn codes_hold_twice_the_tokens_in_the_same_memory() {
    let folder = tiny_model("tiny");
    let tokens = |cache: &str| {
        let mut setup = Setup::new("cpu").with("kv-cache", cache);
        // Heads of 16 channels: 18 bytes of 32.
        setup.options.state_bytes_max = 1 << 17;
        setup.options.num_seqs_max = 64;
        let engine = setup.load(folder.path()).unwrap();
        engine.cache_usage().total * engine.state_layout().pool.block_size
    };
    let (plain, codes) = (tokens("paged"), tokens("int8"));
    println!("{plain} tokens in 16 bits, {codes} in 8");
    assert!((1.7..1.85).contains(&(codes as f64 / plain as f64)), "{codes} beside {plain}");
}
