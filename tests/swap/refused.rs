//! A swap that fails anywhere leaves slots, digests and answers as they were.

use std::any::Any;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jackfield_runtime::{Reach, Replacement, SwapError, SwapTarget};
use jackfield_tests::{Setup, answer, tiny_model};
use plugin_api::Config;
use plugin_api::events::{Flow, Subscriptions};
use plugin_api::testing::machine::Machine;

use super::parts::setup;
use super::{instance, of, request, slot, slots, step, swap};

/// What hooks heard, line by line.
pub(crate) type Heard = Arc<Mutex<Vec<String>>>;

/// Listens to everything that happens to plugins.
pub(crate) fn listen(setup: &Setup) -> Heard {
    let heard = Heard::default();
    let note = |heard: &Heard| {
        let heard = Arc::clone(heard);
        move |line: String| {
            heard.lock().unwrap().push(line);
            Flow::Continue
        }
    };
    let mut on = Subscriptions::new();
    let before = note(&heard);
    on.before_swap(move |e, _| before(format!("before {} {}#{}", e.kind, e.name, e.generation)));
    let after = note(&heard);
    on.after_swap(move |e, _| after(format!("after {} {}#{}", e.kind, e.name, e.generation)));
    let back = note(&heard);
    on.after_rollback(move |e, _| back(format!("back {} {}: {}", e.kind, e.name, e.reason)));
    let fault = note(&heard);
    on.on_fault(move |e, _| fault(format!("fault {}/{}: {}", e.kind, e.plugin, e.error)));
    setup.bus.subscribe(&Machine::new().host("listener"), on);
    heard
}

pub(crate) fn take(heard: &Heard) -> Vec<String> {
    std::mem::take(&mut *heard.lock().unwrap())
}

/// Offers one plugin while a request runs; whatever refuses, everything is as before.
fn refuses(setup: &Setup, kind: &str, name: &str, made: Box<dyn Any + Send>, expected: &str) {
    let (slot, name) = (kind.to_owned(), name.to_owned());
    refuses_all(setup, vec![Replacement { slot, name, instance: made }], expected);
}

/// The same for a set.
pub(crate) fn refuses_all(setup: &Setup, set: Vec<Replacement>, expected: &str) {
    let folder = tiny_model("tiny");
    let heard = listen(setup);
    let mut engine = setup.load(folder.path()).unwrap();
    let plain = answer(&mut engine, request(24)).1;
    let id = engine.submit(request(24)).unwrap();
    let mut tokens = Vec::new();
    for _ in 0..9 {
        step(&mut engine, &mut tokens);
    }
    let before = (slots(&engine), engine.digest(), engine.cache_usage());
    let num_members = set.len();
    let answered = engine.swapper().swap_all(set, Duration::ZERO);
    engine.boundary();
    assert_eq!((slots(&engine), engine.digest(), engine.cache_usage()), before, "{expected}");
    let reason = match answered {
        Err(error) => error.to_string(),
        // What only the boundary can find out, hooks are told.
        Ok(swapped) => {
            assert!(swapped.iter().all(|one| one.reach == Reach::NextBoundary), "{swapped:?}");
            engine.swapper().flush();
            heard.lock().unwrap().last().unwrap().clone()
        }
    };
    assert!(reason.contains(expected), "expected `{expected}`, found `{reason}`");
    // Without a slot of its own there is nothing to ask the hooks about.
    if !reason.contains("no slot") && !reason.contains("one plugin of a set") {
        let heard = take(&heard);
        let (before, back) = heard.split_at(num_members);
        let is = |word: &'static str| move |line: &String| line.starts_with(word);
        assert!(before.iter().all(is("before ")) && back.iter().all(is("back ")), "{heard:?}");
        assert_eq!(back.len(), num_members, "each member is told of: {heard:?}");
    }
    while engine.num_running() > 0 {
        step(&mut engine, &mut tokens);
    }
    assert_eq!(of(&tokens, id), plain, "{expected}");
    let digest = tokens[0].2;
    assert!(tokens.iter().all(|(.., found)| *found == digest), "{expected}");
    // The slot is free again.
    let (kind, name) = ("kv-cache", "paged");
    swap(&engine, setup, kind, name).unwrap();
    engine.boundary();
    assert_eq!(slot(&engine, kind), "kv-cache: paged#2", "{expected}");
}

#[test]
fn failures_at_every_point_change_nothing() {
    let text = |key: &str, value: &str| Config::new().with(key, value);
    #[rustfmt::skip]
    let cases: [(&str, &str, Config, &str); 10] = [
        ("backend",          "reference", Config::new(),                    "layout of weight"),
        ("backend",          "broken",    text("fails", "layout"),          "turned round"),
        ("backend",          "broken",    text("fails", "compile"),         "this one fails to compile"),
        ("rotary-embedding", "faster",    Config::new().with("fails", true), "trace: rotation is unsupported"),
        ("rotary-embedding", "faster",    text("needs", "missing.weight"),  "missing.weight`: not in the model"),
        ("kv-cache",         "paged",     Config::new().with("block_size", 8), "pool: expected"),
        ("kv-cache",         "odd",       text("handover", "never"),        "a new one that does not"),
        ("kv-cache",         "odd",       text("handover", "fails-to-restore"), "handover: restore"),
        ("kv-cache",         "odd",       text("handover", "restores-nothing"), "blocks in use after"),
        ("kv-cache",         "contiguous", Config::new(),                   "pool: expected"),
    ];
    for (kind, name, config, expected) in cases {
        let setup = setup();
        let made = instance(&setup, kind, name, &config);
        refuses(&setup, kind, name, made, expected);
    }
}

#[test]
fn what_is_no_slot_or_of_another_kind_is_refused() {
    let setup = setup();
    let scheduler = || instance(&setup, "scheduler", "fcfs", &Config::new());
    refuses(
        &setup,
        "scheduling",
        "fcfs",
        scheduler(),
        "no slot: expected one of backend, kv-cache",
    );
    refuses(&setup, "logits-processor", "fcfs", scheduler(), "no slot");
    for (kind, name) in [("backend", "fcfs"), ("norm", "fcfs"), ("quantizer", "f32")] {
        let setup = super::parts::setup();
        refuses(&setup, kind, name, scheduler(), "expected an instance of the kind");
    }
    let setup = super::parts::setup();
    let other = instance(&setup, "quantizer", "q8-0", &Config::new());
    refuses(&setup, "quantizer", "f32", other, "load the model again");
}

/// A setup with a hook that refuses every swap but that of a cache.
fn careful() -> Setup {
    let (setup, mut on) = (setup(), Subscriptions::new());
    on.before_swap(|e, _| if e.kind == "kv-cache" { Flow::Continue } else { Flow::Refuse });
    setup.bus.subscribe(&Machine::new().host("careful"), on);
    setup
}

#[test]
fn a_hook_may_refuse_until_another_takes_its_place() {
    let setup = careful();
    let made = instance(&setup, "scheduler", "fcfs", &Config::new());
    refuses(&setup, "scheduler", "fcfs", made, "a hook of before-swap refused");

    let setup = careful();
    let folder = tiny_model("tiny");
    let engine = setup.load(folder.path()).unwrap();
    assert!(matches!(swap(&engine, &setup, "scheduler", "fcfs"), Err(SwapError::Vetoed { .. })));
    setup.bus.replace(&Machine::new().host("careful"), Subscriptions::new());
    swap(&engine, &setup, "scheduler", "fcfs").unwrap();
}

#[test]
fn an_old_cache_that_cannot_hand_over_is_replaced_while_nothing_runs() {
    let folder = tiny_model("tiny");
    for handover in ["never", "fails-to-save"] {
        let setup = setup().with("kv-cache", "odd").set("odd", "handover", handover);
        let heard = listen(&setup);
        let mut engine = setup.load(folder.path()).unwrap();
        let plain = answer(&mut engine, request(24)).1;
        let id = engine.submit(request(24)).unwrap();
        let mut tokens = Vec::new();
        step(&mut engine, &mut tokens);
        swap(&engine, &setup, "kv-cache", "paged").unwrap();
        while engine.num_running() > 0 {
            step(&mut engine, &mut tokens);
        }
        assert_eq!(of(&tokens, id), plain);
        assert_eq!(slot(&engine, "kv-cache"), "kv-cache: odd#1");
        assert!(take(&heard)[1].contains("handover"), "{handover}");
        swap(&engine, &setup, "kv-cache", "paged").unwrap();
        engine.boundary();
        assert_eq!(slot(&engine, "kv-cache"), "kv-cache: paged#2");
        engine.swapper().flush();
        assert_eq!(take(&heard).pop().unwrap(), "after kv-cache paged#2");
        assert_eq!(answer(&mut engine, request(24)).1, plain);
    }
}

#[test]
fn one_swap_of_a_slot_waits_at_a_time_and_a_fifth_processor_is_refused() {
    let folder = tiny_model("tiny");
    let setup = setup();
    let mut engine = setup.load(folder.path()).unwrap();
    swap(&engine, &setup, "backend", "cpu").unwrap();
    let second = swap(&engine, &setup, "norm", "rms-norm").unwrap_err();
    assert!(matches!(second, SwapError::Pending { .. }), "they make one plan: {second}");
    swap(&engine, &setup, "kv-cache", "paged").unwrap();
    engine.boundary();
    swap(&engine, &setup, "norm", "rms-norm").unwrap();
    let mut tokens = Vec::new();
    for _ in 0..4 {
        engine.submit(request(24)).unwrap();
        swap(&engine, &setup, "logits-processor", "top-k").unwrap();
        step(&mut engine, &mut tokens);
    }
    engine.swapper().flush(); // what was told of those swaps is told
    let heard = listen(&setup);
    let expected = "logits-processor: top-k#4, top-k#1 with 1, top-k#2 with 1, top-k#3 with 1";
    assert!(slots(&engine).contains(&expected.to_owned()), "{:?}", slots(&engine));
    let _ = swap(&engine, &setup, "logits-processor", "top-k");
    engine.boundary();
    engine.swapper().flush();
    assert!(slots(&engine).contains(&expected.to_owned()), "{:?}", slots(&engine));
    assert!(take(&heard)[1].contains("at most 3 draining generations"));
}

#[test]
fn a_failing_processor_ends_its_request_and_is_told() {
    let folder = tiny_model("tiny");
    let setup = setup().with("logits-processor", "failing");
    let heard = listen(&setup);
    let mut engine = setup.load(folder.path()).unwrap();
    engine.submit(request(24)).unwrap();
    let mut ends = Vec::new();
    engine
        .run_to_end(&mut |output| {
            if let jackfield_engine::Output::Finished { error, .. } = output {
                ends.push(error.map(ToString::to_string));
            }
        })
        .unwrap();
    assert_eq!(ends, [Some("failing: this one fails to apply".to_owned())]);
    let expected = "fault logits-processor/failing: failing: this one fails to apply";
    assert_eq!(take(&heard), [expected]);
}

#[test]
fn a_processor_that_cannot_follow_a_row_ends_its_request_and_is_told() {
    let folder = tiny_model("tiny");
    let setup = setup().with("logits-processor", "stumbling");
    let heard = listen(&setup);
    let mut engine = setup.load(folder.path()).unwrap();
    engine.submit(request(3)).unwrap();
    let mut ends = Vec::new();
    engine
        .run_to_end(&mut |output| match output {
            jackfield_engine::Output::Finished { error, .. } => {
                ends.push(error.unwrap().to_string());
            }
            jackfield_engine::Output::Token { token, .. } => panic!("{token} is not followed"),
        })
        .unwrap();
    let told: Vec<String> =
        ends.iter().map(|error| format!("fault logits-processor/stumbling: {error}")).collect();
    assert_eq!((ends.len(), take(&heard)), (1, told));
    assert!(ends[0].starts_with("stumbling: this one fails to follow "), "{ends:?}");
    assert_eq!(engine.cache_usage().used, 0);
}

#[test]
fn hooks_and_observers_that_panic_are_told_at_the_next_boundary() {
    let folder = tiny_model("tiny");
    let setup = setup();
    let heard = listen(&setup);
    let mut on = Subscriptions::new();
    on.after_token(|e, _| if e.index == 1 { panic!("not this one") } else { Flow::Continue });
    on.observe(|record, _| assert!(record.topic != "after-token", "nor that"));
    setup.bus.subscribe(&Machine::new().host("fragile"), on);
    let mut engine = setup.load(folder.path()).unwrap();
    assert_eq!(answer(&mut engine, request(5)).1.len(), 5);
    setup.bus.flush();
    engine.boundary();
    let mut told = take(&heard);
    told.sort();
    let who = "fault hook/fragile: plugin fragile: its";
    let expected = [
        format!("{who} hook on after-token: it panicked: not this one"),
        format!("{who} observer: it panicked: nor that"),
    ];
    assert_eq!(told, expected);
}
