//! An engine that answers for months: what it holds does not grow with the requests it has answered.
//!
//! By default a few thousand requests, counted in bytes that are allocated. With `--ignored` 200,000
//! on the tiny model and 5,000 on SmolLM2-135M-Instruct, counted in resident memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::alloc::System;
use std::fs;
use std::sync::{Mutex, PoisonError};

use jackfield_engine::{Engine, Output, Request};
use jackfield_tests::{Setup, real_model, tiny_model};
use plugin_api::testing::random::Random;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Most bytes that a thousand requests may leave behind.
const BYTES_PER_1000_MAX: f64 = 1024.0;

/// Requests at a time.
const STREAMS: usize = 16;

fn setup() -> Setup {
    let mut setup = Setup::new("cpu").set("cpu", "threads", 2);
    // A pool that is full after a moment: eviction and preemption are part of it.
    setup.options.state_bytes_max = 1 << 20;
    setup
}

/// Answers `count` short requests, every tenth of which is cancelled, refused or overdue.
fn answer(engine: &mut Engine, count: usize, random: &mut Random) {
    let vocab_size = engine.model().tokenizer.vocab_size().max(2);
    let (mut begun, mut ended) = (0, 0);
    while ended < count {
        while begun < count && engine.num_running() < STREAMS {
            begun += 1;
            let shared = (0..16 * random.below(3) as u32).map(|i| i % 100);
            let own = (0..=random.below(12)).map(|_| random.below(vocab_size.min(500)) as u32);
            let prompt: Vec<u32> = shared.chain(own).collect();
            let mut request = Request::new(prompt)
                .with("max_tokens", 1 + random.below(6) as i64)
                .with("ignore_eos", true)
                .with("temperature", 0.8)
                .with("repetition_penalty", 1.1)
                .with("top_logprobs", random.below(3) as i64);
            if begun % 30 == 0 {
                request.timeout_us = Some(0);
            }
            if begun % 30 == 10 {
                request = request.with("temperature", -1.0);
            }
            match engine.submit(request) {
                Ok(id) if begun % 30 == 20 => {
                    engine.cancel(id);
                    ended += 1;
                }
                Ok(_) => {}
                Err(_) => ended += 1,
            }
        }
        let mut finished = 0;
        engine
            .step(&mut |output| finished += usize::from(matches!(output, Output::Finished { .. })))
            .unwrap();
        ended += finished;
    }
    assert_eq!(engine.num_running(), 0);
    assert_eq!(engine.cache_usage().used, 0, "every block comes back");
}

fn allocated() -> i64 {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as i64 - stats.bytes_deallocated as i64
}

#[test]
fn what_is_allocated_does_not_grow_with_requests() {
    let folder = tiny_model("tiny");
    let mut engine = setup().load(folder.path()).unwrap();
    let mut random = Random::new(1);
    answer(&mut engine, 2_000, &mut random);
    engine.swapper().flush();
    let before = allocated();
    answer(&mut engine, 4_000, &mut random);
    engine.swapper().flush();
    let grown = (allocated() - before) as f64 / 4.0;
    assert!(grown <= BYTES_PER_1000_MAX, "{grown} bytes for a thousand requests");
    let load = engine.gauge().read();
    assert!(load.cached_tokens > 0 && load.waiting == 0, "{load:?}");
}

/// Resident memory of this process, in bytes; nothing where the system does not tell.
fn resident() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib * 1024.0)
}

/// Has every block of the cache written once: what is kept for prompts to come would otherwise take
/// them one by one, for thousands of requests.
fn fill_cache(engine: &mut Engine) {
    let (total, longest) = (engine.cache_usage().total, engine.tokens_per_seq_max() - 2);
    let tokens = total * engine.state_layout().pool.block_size;
    for first in (0..tokens).step_by(longest) {
        let len = longest.min(tokens - first).max(1);
        let prompt: Vec<u32> = (first..first + len).map(|i| (i * 7 % 499) as u32).collect();
        engine.submit(Request::new(prompt).with("max_tokens", 1)).unwrap();
    }
    engine.run_to_end(&mut |_| {}).unwrap();
}

/// The slope of resident memory over twenty points, by least squares, in bytes per 1,000 requests.
fn slope(engine: &mut Engine, count: usize) -> Option<f64> {
    let mut random = Random::new(2);
    fill_cache(engine);
    answer(engine, count / 5, &mut random);
    let mut points = Vec::new();
    for point in 0..20 {
        answer(engine, count / 25, &mut random);
        points.push((point as f64 * count as f64 / 25_000.0, resident()?));
    }
    let n = points.len() as f64;
    let (mean_x, mean_y) =
        (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let covariance: f64 = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
    let variance: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    Some(covariance / variance)
}

/// One at a time: what another test takes in memory would count.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
#[ignore = "takes minutes"]
#[allow(clippy::print_stderr, reason = "the number is what it is for")]
fn resident_memory_stays_over_200_000_requests() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tiny_model("tiny");
    let mut engine = setup().load(folder.path()).unwrap();
    let Some(slope) = slope(&mut engine, 200_000) else { return };
    eprintln!("{slope:.1} bytes of resident memory for 1,000 requests");
    assert!(slope <= BYTES_PER_1000_MAX, "{slope} bytes for a thousand requests");
}

#[test]
#[ignore = "takes minutes"]
#[allow(clippy::print_stderr, reason = "the number is what it is for")]
fn resident_memory_stays_over_5_000_requests_of_a_real_model() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(model) = real_model("SmolLM2-135M-Instruct", file) else { return };
    let mut setup = setup();
    setup.options.state_bytes_max = 32 << 20;
    let mut engine = setup.load(&model).unwrap();
    let Some(slope) = slope(&mut engine, 5_000) else { return };
    eprintln!("{slope:.1} bytes of resident memory for 1,000 requests");
    assert!(slope <= BYTES_PER_1000_MAX, "{slope} bytes for a thousand requests");
}
