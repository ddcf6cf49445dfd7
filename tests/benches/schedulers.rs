//! What each scheduler makes of a long prompt and short ones that arrive among streams: time to
//! first token of both, and the longest gap of a stream.
//!
//! Needs SmolLM2-135M-Instruct in `JACKFIELD_MODELS`. Run as
//! `cargo bench -p jackfield-tests --bench schedulers`; compare within one run only.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, or fails")]

use std::collections::BTreeMap;
use std::time::Instant;

use jackfield_engine::{Output, Request, RequestId};
use jackfield_tests::{Setup, real_model};

const STREAMS: u32 = 6;
const SHORT: u32 = 6;
const LONG_TOKENS: u32 = 4_000;
const SHORT_TOKENS: u32 = 64;

fn main() {
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(model) = real_model("SmolLM2-135M-Instruct", file) else { return };
    println!(
        "scheduler    tokens   TTFT long   TTFT short: p50   worst   gap of a stream: p50   worst"
    );
    println!(
        "             a step          ms                ms      ms                     ms      ms"
    );
    for tokens in [128, 512] {
        for scheduler in ["fcfs", "continuous", "priority"] {
            let mut setup = Setup::new("cpu").with("scheduler", scheduler);
            setup.options.tokens_per_step_max = tokens;
            let mut engine = setup.load(&model).unwrap();
            let prompt = |seed: u32, len: u32| -> Vec<u32> {
                (0..len).map(|i| 100 + (i * 7919 + seed * 104_729) % 40_000).collect()
            };
            let ask = |prompt: Vec<u32>, tokens: i64| {
                let request = Request::new(prompt).strategy("greedy").with("ignore_eos", true);
                request.with("max_tokens", tokens)
            };
            let streams: Vec<RequestId> = (0..STREAMS)
                .map(|seed| engine.submit(ask(prompt(seed, 16), 400)).unwrap())
                .collect();
            for _ in 0..4 {
                engine.step(&mut |_| {}).unwrap();
            }
            let mut arrived: BTreeMap<RequestId, Instant> = BTreeMap::new();
            let mut waited: BTreeMap<RequestId, f64> = BTreeMap::new();
            let mut last: BTreeMap<RequestId, Instant> = BTreeMap::new();
            let mut gaps = Vec::new();
            let long = engine.submit(ask(prompt(50, LONG_TOKENS), 4)).unwrap();
            arrived.insert(long, Instant::now());
            let mut short = 0;
            while !waited.contains_key(&long) || waited.len() <= SHORT as usize {
                engine
                    .step(&mut |output| {
                        let Output::Token { request, .. } = output else { return };
                        let now = Instant::now();
                        let ms = |since: &Instant| (now - *since).as_secs_f64() * 1e3;
                        if let Some(before) = last.insert(request, now)
                            && streams.contains(&request)
                        {
                            gaps.push(ms(&before));
                        }
                        if let Some(since) = arrived.get(&request) {
                            waited.entry(request).or_insert_with(|| ms(since));
                        }
                    })
                    .unwrap();
                if short < SHORT {
                    short += 1;
                    let id = engine.submit(ask(prompt(60 + short, SHORT_TOKENS), 4)).unwrap();
                    arrived.insert(id, Instant::now());
                }
            }
            let of_long = waited.remove(&long).unwrap();
            let mut of_short: Vec<f64> = waited.into_values().collect();
            of_short.sort_by(f64::total_cmp);
            gaps.sort_by(f64::total_cmp);
            let (half, worst) = (of_short[of_short.len() / 2], of_short[of_short.len() - 1]);
            println!(
                "{scheduler:<11} {tokens:>7} {of_long:>11.0} {half:>17.0} {worst:>7.0} {:>22.0} {:>7.0}",
                gaps[gaps.len() / 2],
                gaps[gaps.len() - 1],
            );
        }
    }
}
