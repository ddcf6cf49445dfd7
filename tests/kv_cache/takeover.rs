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
    let provided = setup.registry.find("kv-cache", cache).unwrap();
    let made = (provided.make)(&Config::new()).unwrap();
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
        setup.options.convert_bytes_per_step = 6 * per_token;
        let mut engine = setup.load(folder.path()).unwrap();
        let ids = requests().map(|request| engine.submit(request).unwrap());
        let (mut tokens, mut steps_with, mut took_over_at) = (Vec::new(), [0, 0], None);
        for n in 0.. {
            if engine.num_running() == 0 {
                break;
            }
            match n {
                10 => assert_eq!(swap(&engine, &setup, cache), Reach::NextBoundary),
                80 => assert_eq!(swap(&engine, &setup, "paged"), Reach::NextBoundary),
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
