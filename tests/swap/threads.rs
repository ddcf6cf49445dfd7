//! Swaps from another thread than the one that steps.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use jackfield_runtime::{Reach, SwapError, SwapTarget};
use jackfield_tests::{Setup, answer, tiny_model};
use plugin_api::Config;

use super::parts::{Count, Counted};
use super::{instance, of, request, step};

/// The thread that runs an engine in these tests.
pub(crate) const STEP_THREAD: &str = "step";

/// Longer than any boundary takes to come, on any machine.
const LONG: Duration = Duration::from_secs(600);

fn on_step_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    thread::Builder::new().name(STEP_THREAD.to_owned()).spawn(work).unwrap()
}

#[test]
fn a_swap_returns_once_a_boundary_took_it_in_and_nothing_is_dropped_in_a_step() {
    let folder = tiny_model("tiny");
    let setup = Setup::new("cpu");
    let mut engine = setup.load(folder.path()).unwrap();
    let expected = answer(&mut engine, request(200)).1;
    let swapper = engine.swapper();
    let id = engine.submit(request(200)).unwrap();
    let (stop, is_stopped) = channel::<()>();
    let stepping = on_step_thread(move || {
        let mut tokens = Vec::new();
        while engine.num_running() > 0 {
            step(&mut engine, &mut tokens);
        }
        // Boundaries go on until every swap has found one.
        while is_stopped.try_recv().is_err() {
            engine.boundary();
        }
        (engine, tokens)
    });
    let count = Arc::new(Count::default());
    for n in 2..=20 {
        let swapped = swapper.swap("scheduler", "counted", Counted::boxed(&count), LONG).unwrap();
        assert_eq!((swapped.reach, swapped.active.generation), (Reach::MidStream, n));
        for (kind, name) in [("kv-cache", "paged"), ("norm", "rms-norm"), ("backend", "cpu")] {
            let made = instance(&setup, kind, name, &Config::new());
            let swapped = swapper.swap(kind, name, made, LONG).unwrap();
            assert_eq!((swapped.reach, swapped.active.generation), (Reach::MidStream, n));
            assert_eq!(swapped.retired.unwrap().generation, n - 1);
        }
    }
    swapper.flush();
    assert_eq!(count.alive.load(Ordering::Relaxed), 1, "what is replaced is dropped");
    stop.send(()).unwrap();
    let (engine, tokens) = stepping.join().unwrap();
    assert_eq!(of(&tokens, id), expected);
    drop(engine);
    assert_eq!(count.alive.load(Ordering::Relaxed), 0);
    assert_eq!(count.dropped_in_a_step.load(Ordering::Relaxed), 0);
}

#[test]
fn an_idle_engine_that_is_woken_takes_swaps_in() {
    let folder = tiny_model("tiny");
    let setup = Setup::new("cpu");
    let mut engine = setup.load(folder.path()).unwrap();
    let swapper = engine.swapper();
    let (wake, is_woken) = channel();
    swapper.on_offer(move || wake.send(()).unwrap());
    let waiting = on_step_thread(move || {
        for _ in 0..3 {
            is_woken.recv().unwrap();
            engine.boundary();
        }
        engine
    });
    for n in 2..=4 {
        let made = instance(&setup, "backend", "cpu", &Config::new());
        let swapped = swapper.swap("backend", "cpu", made, LONG).unwrap();
        assert_eq!(swapped.active.to_string(), format!("cpu#{n}"));
    }
    let slot = swapper.slots().swap_remove(0);
    assert_eq!((slot.active.generation, slot.requests, slot.is_swapping), (4, 0, false));
    drop(waiting.join().unwrap());
}

#[test]
fn a_swap_that_no_boundary_took_in_stays_and_one_of_an_ended_engine_does_not() {
    let folder = tiny_model("tiny");
    let setup = Setup::new("cpu");
    let engine = setup.load(folder.path()).unwrap();
    let swapper = engine.swapper();
    let count = Arc::new(Count::default());
    let counted = || Counted::boxed(&count);
    let swapped = swapper.swap("scheduler", "counted", counted(), Duration::ZERO).unwrap();
    assert_eq!((swapped.reach, swapped.retired), (Reach::NextBoundary, None));
    let slots = swapper.slots();
    let slot = slots.iter().find(|slot| slot.kind == "scheduler").unwrap();
    assert_eq!((slot.active.to_string(), slot.is_swapping), ("continuous#1".to_owned(), true));
    let second = swapper.swap("scheduler", "counted", counted(), Duration::ZERO).unwrap_err();
    assert_eq!(second, SwapError::Pending { slot: "scheduler".to_owned() });
    drop(engine);
    swapper.flush();
    assert_eq!(count.alive.load(Ordering::Relaxed), 0, "what waited is dropped");
    let late = swapper.swap("scheduler", "counted", counted(), LONG).unwrap_err();
    assert_eq!(late, SwapError::Ended { slot: "scheduler".to_owned() });
    assert_eq!(count.alive.load(Ordering::Relaxed), 0);
}
