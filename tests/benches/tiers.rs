//! A pool that is larger than its memory beside one that is not: hits and time, by policy, for
//! a cycle and for uses of which some come back often.
//!
//! Run as `cargo bench -p jackfield-tests --bench tiers`. The model is the tiny one with eight layers, which computes
//! so little that files weigh more than they would elsewhere. *Cycle*: one context of four times the memory; every
//! token reads all of it, layer by layer. *Skewed*: twelve conversations, of which four turns in five go to the same two;
//! together they are four times the memory. A hit is a chunk that was in memory, fetched one that a thread had read or was reading.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, or fails")]

#[path = "../kv_cache/tiers.rs"]
#[allow(dead_code, unused_imports, reason = "what the tests need beside")]
mod tiers;

use std::path::Path;
use std::time::Instant;

use jackfield_engine::{Engine, Request};
use jackfield_tests::{Setup, answer};
use plugin_api::testing::random::Random;
use tiers::{Tiers, deep_model};

fn request(num_tokens: usize, seed: usize, answer: i64) -> Request {
    let tokens: Vec<u32> =
        (0..num_tokens).map(|i| ((i * 31 + seed * 17 + i / 7) % 510) as u32).collect();
    Request::new(tokens).with("max_tokens", answer).with("ignore_eos", true).strategy("greedy")
}

/// The requests of a pattern, in order.
fn pattern(name: &str) -> Vec<Request> {
    if name == "cycle" {
        return vec![request(900, 1, 120)];
    }
    let mut random = Random::new(5);
    let mut turn = |_| {
        let conversation = if random.below(5) < 4 { random.below(2) } else { 2 + random.below(10) };
        request(90 + random.below(3), conversation, 3)
    };
    (0..160).map(&mut turn).collect()
}

fn run(engine: &mut Engine, pattern: &[Request]) -> (Vec<Vec<u32>>, f64) {
    let began = Instant::now();
    let tokens = pattern.iter().map(|request| answer(engine, request.clone()).1).collect();
    (tokens, began.elapsed().as_secs_f64())
}

fn plain(model: &Path) -> Engine {
    let mut setup = Setup::new("cpu");
    setup.options.state_bytes_max = 4 << 20;
    setup.options.context_length_max = 2048;
    setup.options.num_seqs_max = 4;
    setup.load(model).unwrap()
}

fn main() {
    let model = deep_model();
    println!(
        "pattern  policy   prefetch  hits    fetched ahead  chunks read  time of that in memory"
    );
    for name in ["cycle", "skewed"] {
        let pattern = pattern(name);
        let (expected, base) = run(&mut plain(model.path()), &pattern);
        for (policy, prefetch) in
            [("lru", false), ("bimodal", false), ("lru", true), ("bimodal", true)]
        {
            let memory = if name == "cycle" { 255 } else { 276 };
            let tiers = Tiers::new(4096, memory, 4);
            let setup = tiers.setup.set("tiered", "policy", policy);
            let mut engine = setup.set("tiered", "prefetch", prefetch).load(model.path()).unwrap();
            let (found, time) = run(&mut engine, &pattern);
            assert_eq!(found, expected, "{name}, {policy}");
            let stats = engine.tier_stats().unwrap();
            let part = |n: u64| 100.0 * n as f64 / stats.uses as f64;
            let (hits, ahead) = (part(stats.hits), part(stats.prefetched));
            println!(
                "{name:8} {policy:8} {:8}  {hits:>5.1} % {ahead:>12.1} % {:>12} {:>10.2} x",
                if prefetch { "yes" } else { "no" },
                stats.reads,
                time / base
            );
        }
    }
}
