//! What a callback costs: the experts of a tiny mixture chosen by what was described, and by a plugin that is called for each
//! layer in each step, linked in, as a shared library and as a component.
//!
//! Run as `cargo bench -p jackfield-tests --bench callback`. The model is so small that a step is little else.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, or fails")]

use std::time::Instant;

use jackfield::BuildLane;
use jackfield_engine::{Engine, Request};
use jackfield_tests::{Setup, answer, built, quantile, tiny_model};
use tempfile::TempDir;

/// Rounds of each way, one way after the other in each round.
const ROUNDS: usize = 15;
const TOKENS: i64 = 160;

fn main() {
    let (state, folder) = (TempDir::new().unwrap(), tiny_model("tiny_mixtral"));
    let load = |router: &str, lane: Option<BuildLane>| {
        let mut setup = Setup::new("cpu").with("moe-router", router);
        if let Some(lane) = lane {
            let plugin = built(state.path(), &format!("moe-router/{router}"), lane);
            setup.registry.replace(plugin.info(), plugin.provided).unwrap();
        }
        setup.load(folder.path()).unwrap()
    };
    let mut ways = [
        ("described", load("mixtral", None)),
        ("called, linked in", load("hash", None)),
        ("called, shared library", load("hash", Some(BuildLane::Native))),
        ("called, component", load("hash", Some(BuildLane::Wasm))),
    ];
    let mut times = [(); 4].map(|()| [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        for ((_, engine), times) in ways.iter_mut().zip(&mut times) {
            times[0].push(step_us(engine, &[510, 3, 7], TOKENS));
            let prompt: Vec<u32> = (0..200).map(|i| (i * 7 + 3) % 500).collect();
            times[1].push(step_us(engine, &prompt, 1));
        }
    }
    println!("{:<24}{:>20}{:>24}", "experts are", "step of one token", "step of 200 tokens");
    for ((name, _), times) in ways.iter().zip(&times) {
        let [one, many] = times.each_ref().map(|times| quantile(times, 0.5));
        println!("{name:<24}{one:>17.1} us{many:>21.1} us");
    }
}

/// Microseconds that a step takes.
fn step_us(engine: &mut Engine, prompt: &[u32], tokens: i64) -> f64 {
    let request = Request::new(prompt.to_vec()).strategy("greedy");
    let request = request.with("max_tokens", tokens).with("ignore_eos", true);
    let start = Instant::now();
    let made = answer(engine, request).1.len();
    start.elapsed().as_secs_f64() * 1e6 / made as f64
}
