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
    check(Setup::new("cpu"));

    let mut setup = Setup::new("cpu");
    let kinds = [
        cross::<dyn plugin_api::kinds::backend::Backend>(&mut setup),
        cross::<dyn KvCache>(&mut setup),
        cross::<dyn Scheduler>(&mut setup),
        cross::<dyn DecodingStrategy>(&mut setup),
        cross::<dyn LogitsProcessor>(&mut setup),
    ];
    assert!(kinds.iter().all(|crossed| *crossed > 0), "{kinds:?}");
    check(setup);
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

fn check(setup: Setup) {
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
    let calls = change.allocations + change.reallocations;
    assert!(calls <= GROWTHS_MAX, "{calls} allocations in 64 steps: {change:?}");
    assert_eq!(engine.num_running(), 1);
}
