//! Components that fail by the thousand beside 64 streams: nobody else notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use jackfield_loader::LoadedPlugin;
use jackfield_tests::{answer, component, component_of, root, tiny_model};
use plugin_api::Config;
use plugin_api::kinds::logits_processor::{LogitsProcessor, LogitsRows};
use plugin_api::testing::rows::Rows;

use super::under_fire::{REQUESTS, answer_until, request, setup};

/// Makes a component, lets it fail in `apply`, drops it: `faults` times, while requests are answered
/// by another component of the same lane.
fn check(faults: usize) {
    let (state, folder) = (tempfile::tempdir().unwrap(), tiny_model("tiny"));
    let mut setup = setup("cpu");
    let temperature = component(state.path(), "logits-processor/temperature");
    setup.registry.replace(temperature.info(), temperature.provided.clone()).unwrap();
    let mut engine = setup.load(folder.path()).unwrap();
    let expected: Vec<_> = (0..REQUESTS).map(|n| answer(&mut engine, request(n)).1).collect();

    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let source = root().join("host/loader/tests/guests/hostile");
    let hostile = component_of(state.path(), &source, move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let registered = setup.registry.iter().count();
    let is_over = AtomicBool::new(false);
    let tally = thread::scope(|scope| {
        scope.spawn(|| {
            let config = Config::new().with("deed", "panic");
            for _ in 0..faults {
                let made = (hostile.provided[0].make)(&config).unwrap();
                let mut processor = *made.downcast::<Box<dyn LogitsProcessor>>().unwrap();
                let mut rows = Rows::new(&[&[1.0, 2.0]]);
                let error = processor.apply(&mut LogitsRows::new(&mut rows)).unwrap_err();
                assert!(error.to_string().contains("the row is cursed"), "{error}");
            }
            is_over.store(true, Ordering::Relaxed);
        });
        answer_until(&mut engine, &expected, || is_over.load(Ordering::Relaxed))
    });
    println!("{faults} faults beside {tally:?}");
    assert!(tally.finished >= super::under_fire::STREAMS && tally.wrong == 0, "{tally:?}");
    assert_eq!(told.load(Ordering::Relaxed), faults, "each is told once");
    assert_eq!(setup.registry.iter().count(), registered);
    let state_of = |loaded: LoadedPlugin| {
        let generation = loaded.generation.unwrap();
        (generation.instances(), generation.faults().0)
    };
    assert_eq!(state_of(hostile), (0, faults));
    assert_eq!(state_of(temperature), (1, 0));
}

#[test]
fn failing_components_leave_others_alone() {
    check(300);
}

/// `cargo test -p jackfield-tests --test swap -- --ignored --nocapture ten_thousand`
#[test]
#[ignore = "a minute"]
fn ten_thousand_failing_components_leave_others_alone() {
    check(10_000);
}
