//! After warm-up a decode step allocates nothing but room for the growing answer, with plugins
//! that are linked in and with the same over the boundary of the native lane.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::alloc::System;
use std::sync::Arc;

use jackfield_engine::Request;
use jackfield_tests::{Setup, tiny_model};
use plugin_api::Provided;
use plugin_api::native::{Crosses, Owner, across};
use plugin_api::prelude::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Lists that double as the answer grows: its text, its tokens, the tokens of the sequence, the
/// history of the repetition penalty, each once between 64 and 128 tokens.
const GROWTHS_MAX: usize = 4;

/// One test, for the allocator counts for the whole process.
#[test]
fn a_step_allocates_nothing_after_warm_up() {
    check(|| Setup::new("cpu"));
    check(over_the_boundary);
}

/// Every plugin of the step behind the tables of the native lane.
fn over_the_boundary() -> Setup {
    let mut setup = Setup::new("cpu");
    let kinds = [
        cross::<dyn plugin_api::kinds::backend::Backend>(&mut setup),
        cross::<dyn KvCache>(&mut setup),
        cross::<dyn Scheduler>(&mut setup),
        cross::<dyn DecodingStrategy>(&mut setup),
        cross::<dyn LogitsProcessor>(&mut setup),
    ];
    assert!(kinds.iter().all(|crossed| *crossed > 0), "{kinds:?}");
    setup
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

/// Puts the tables of the native lane in front of every plugin of a kind; how many there are.
fn cross<K: Crosses + ?Sized>(setup: &mut Setup) -> usize
where
    Box<K>: Send,
{
    let names: Vec<String> = setup.registry.names(K::NAME).map(str::to_owned).collect();
    for name in &names {
        let (plugin, provided) = setup.registry.remove(K::NAME, name).unwrap();
        let provided = provided.iter().map(|provided| {
            let direct = Arc::clone(&provided.make);
            let make = move |config: &Config| {
                let instance = direct(config)?.downcast::<Box<K>>();
                let instance = *instance.expect("an instance of its kind");
                Ok(Box::new(across(instance, Arc::new(Strict))) as _)
            };
            Provided { make: Arc::new(make), ..provided.clone() }
        });
        let provided = provided.collect();
        setup.registry.add(plugin, provided).unwrap();
    }
    names.len()
}

/// The count is of the whole process, and on a busy machine a thread of the backend may have its first turn, with
/// what it allocates then, after the warm-up: the least of a few counts is that of the steps.
fn check(setup: impl Fn() -> Setup) {
    let mut counts = Vec::new();
    while counts.len() < COUNTS_MAX {
        counts.push(allocations(setup()));
        if counts.last().is_some_and(|calls| *calls <= GROWTHS_MAX) {
            return;
        }
    }
    panic!("{counts:?} allocations in 64 steps, expected at most {GROWTHS_MAX}");
}

/// How often it is counted.
const COUNTS_MAX: usize = 8;

/// Calls of the allocator in 64 steps after the first 64.
fn allocations(setup: Setup) -> usize {
    let folder = tiny_model("tiny");
    let mut engine = setup.set("cpu", "threads", 2).load(folder.path()).unwrap();
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
    assert_eq!(engine.num_running(), 1);
    change.allocations + change.reallocations
}
