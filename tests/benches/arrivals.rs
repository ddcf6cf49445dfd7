//! Prompts of 4,000 tokens that arrive one after the other among streams, with chunked prefill and
//! without: time to their first token, and what the streams notice.
//!
//! Needs SmolLM2-135M-Instruct in `JACKFIELD_MODELS`. Run as
//! `cargo bench -p jackfield-tests --bench arrivals`; `JACKFIELD_ARRIVALS` sets how many prompts
//! arrive (default 20). Compare within one run only.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, or fails")]

use std::collections::BTreeMap;
use std::time::Instant;

use jackfield_engine::{Engine, Output, Request, RequestId};
use jackfield_tests::{Setup, quantile, real_model};

const STREAMS: usize = 6;
const PROMPT_TOKENS: u32 = 4_000;

fn main() {
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(model) = real_model("SmolLM2-135M-Instruct", file) else { return };
    let arrivals = std::env::var("JACKFIELD_ARRIVALS").ok().and_then(|n| n.parse().ok());
    let arrivals = arrivals.unwrap_or(20);
    println!("{arrivals} prompts of {PROMPT_TOKENS} tokens among {STREAMS} streams, in ms");
    println!("tokens a step      TTFT p50     p99     gap of a stream p50     p99     max");
    for (tokens, name) in [(512, "512, in chunks"), (PROMPT_TOKENS as usize + 64, "all, at once")] {
        let mut setup = Setup::new("cpu");
        setup.options.tokens_per_step_max = tokens;
        let mut engine = setup.load(&model).unwrap();
        let (mut waits, mut gaps) = (Vec::new(), Vec::new());
        let mut streams = Streams::default();
        for arrival in 0..arrivals {
            // The streams are on their way before the prompt comes.
            for _ in 0..8 {
                streams.step(&mut engine, &mut gaps, None);
            }
            let (request, arrived) = (prompt(1_000 + arrival, PROMPT_TOKENS, 1), Instant::now());
            let id = engine.submit(request).unwrap();
            while !streams.step(&mut engine, &mut gaps, Some(id)) {}
            waits.push(arrived.elapsed().as_secs_f64() * 1e3);
        }
        let of = |list: &[f64], q| quantile(list, q);
        println!(
            "{name:<16} {:>10.0} {:>7.0} {:>23.1} {:>7.0} {:>7.0}",
            of(&waits, 0.5),
            of(&waits, 0.99),
            of(&gaps, 0.5),
            of(&gaps, 0.99),
            of(&gaps, 1.0),
        );
    }
}

/// A prompt like no other.
fn prompt(seed: u32, len: u32, max_tokens: i64) -> Request {
    let tokens: Vec<u32> = (0..len).map(|i| 100 + (i * 7919 + seed * 104_729) % 40_000).collect();
    let request = Request::new(tokens).strategy("greedy").with("ignore_eos", true);
    request.with("max_tokens", max_tokens)
}

/// Answers that are always on their way.
#[derive(Default)]
struct Streams {
    begun: u32,
    /// When each had its last token.
    last: BTreeMap<RequestId, Option<Instant>>,
}

impl Streams {
    /// One step, with the gaps of its tokens in milliseconds; whether `awaited` has its first.
    fn step(
        &mut self,
        engine: &mut Engine,
        gaps: &mut Vec<f64>,
        awaited: Option<RequestId>,
    ) -> bool {
        while self.last.len() < STREAMS {
            self.begun += 1;
            self.last.insert(engine.submit(prompt(self.begun, 16, 500)).unwrap(), None);
        }
        let mut is_there = false;
        let sink = &mut |output: Output<'_>| {
            let now = Instant::now();
            match output {
                Output::Token { request, .. } => {
                    is_there |= awaited == Some(request);
                    if let Some(last) = self.last.get_mut(&request)
                        && let Some(before) = last.replace(now)
                    {
                        gaps.push((now - before).as_secs_f64() * 1e3);
                    }
                }
                Output::Finished { request, .. } => _ = self.last.remove(&request),
            }
        };
        engine.step(sink).unwrap();
        is_there
    }
}
