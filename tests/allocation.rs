//! After warm-up a decode step allocates nothing but room for the growing answer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::alloc::System;

use jackfield_engine::Request;
use jackfield_tests::{Setup, tiny_model};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Lists that double as the answer grows: its text, its tokens, the tokens of the sequence, the
/// history of the repetition penalty, each once between 64 and 128 tokens.
const GROWTHS_MAX: usize = 4;

#[test]
fn a_step_allocates_nothing_after_warm_up() {
    let folder = tiny_model("tiny");
    let mut engine = Setup::new("cpu").set("cpu", "threads", 2).load(folder.path()).unwrap();
    let request = Request::new(vec![510, 3, 7])
        .with("max_tokens", 140)
        .with("ignore_eos", true)
        .with("temperature", 0.7)
        .with("top_p", 0.9)
        .with("top_k", 40);
    engine.submit(request).unwrap();
    for _ in 0..64 {
        engine.step(&mut |_| {}).unwrap();
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..64 {
        engine.step(&mut |_| {}).unwrap();
    }
    let change = region.change();
    let calls = change.allocations + change.reallocations;
    assert!(calls <= GROWTHS_MAX, "{calls} allocations in 64 steps: {change:?}");
    assert_eq!(engine.num_running(), 1);
}
