//! Every slot is swapped over and over while 64 streams are answered: no token is lost, doubled,
//! changed or reordered.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jackfield_engine::{Engine, Output, Request, RequestId};
use jackfield_runtime::{Replacement, SlotStatus, SwapError, SwapTarget};
use jackfield_tests::{Setup, answer, tiny_model};
use plugin_api::events::Subscriptions;
use plugin_api::testing::machine::Machine;
use plugin_api::testing::random::Random;
use plugin_api::{Config, Hook};

use super::files::Files;
use super::instance;

/// Requests at a time.
pub(super) const STREAMS: usize = 64;
/// Requests that differ.
pub(super) const REQUESTS: usize = 16;

/// Lengths, prompts and seeds of their own.
pub(super) fn request(number: usize) -> Request {
    let number = number % REQUESTS;
    let prompt: Vec<u32> =
        (0..1 + number * 5).map(|i| (i * 31 + number * 7) as u32 % 500).collect();
    let request = Request::new(prompt).with("max_tokens", 8 + 8 * number as i64);
    let request = request.with("ignore_eos", true).with("seed", number as i64);
    request.with("temperature", if number.is_multiple_of(2) { 0.0 } else { 0.9 })
}

pub(super) fn setup(backend: &str) -> Setup {
    let mut setup = Setup::new(backend);
    setup.options.num_seqs_max = STREAMS;
    setup.options.logit_rows_max = STREAMS;
    setup.options.context_length_max = 256;
    setup
}

/// What happened.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) finished: usize,
    pub(super) wrong: usize,
    swapped: usize,
    /// Sets that were taken in, and their members.
    sets: usize,
    members: usize,
    /// Refused since three generations had requests in flight.
    drained: usize,
}

/// Makes an instance of the plugin with this kind and name.
type Make<'a> = dyn Fn(&str, &str) -> Box<dyn Any + Send> + Sync + 'a;

/// Answers requests on this thread, and swaps on another, for some time.
fn run(setup: &Setup, make: &Make<'_>, time: Duration) -> Tally {
    let folder = tiny_model("tiny");
    let mut alone = setup.load(folder.path()).unwrap();
    let expected: Vec<_> = (0..REQUESTS).map(|n| answer(&mut alone, request(n)).1).collect();
    drop(alone);

    let mut engine = setup.load(folder.path()).unwrap();
    let swapper = engine.swapper();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let swapping = scope.spawn(|| swap_all(&swapper, setup, make, &is_over));
        let start = Instant::now();
        let tally = answer_until(&mut engine, &expected, || start.elapsed() >= time);
        is_over.store(true, Ordering::Relaxed);
        while !swapping.is_finished() {
            engine.boundary();
        }
        let other = swapping.join().unwrap();
        Tally { finished: tally.finished, wrong: tally.wrong, ..other }
    })
}

/// Keeps as many streams going as there is room for.
pub(super) fn answer_until(
    engine: &mut Engine,
    expected: &[Vec<u32>],
    is_over: impl Fn() -> bool,
) -> Tally {
    let (mut next, mut tally) = (0, Tally::default());
    let mut streams: Vec<(RequestId, usize, Vec<u32>)> = Vec::new();
    let mut ended = Vec::new();
    loop {
        while streams.len() < STREAMS && !is_over() {
            let id = engine.submit(request(next)).unwrap();
            streams.push((id, next % REQUESTS, Vec::new()));
            next += 1;
        }
        if streams.is_empty() {
            return tally;
        }
        let of = |streams: &[(RequestId, usize, Vec<u32>)], id| {
            streams.iter().position(|stream| stream.0 == id).expect("a stream that runs")
        };
        engine
            .step(&mut |output| match output {
                Output::Token { request, token, .. } => {
                    let place = of(&streams, request);
                    streams[place].2.push(token);
                }
                Output::Finished { request, error, .. } => {
                    assert_eq!(error, None);
                    ended.push(request);
                }
            })
            .unwrap();
        for id in ended.drain(..) {
            let (_, number, tokens) = streams.swap_remove(of(&streams, id));
            tally.finished += 1;
            tally.wrong += usize::from(tokens != expected[number]);
        }
    }
}

/// Replaces what fills each slot, and the hook, by another instance of it, round after round; between
/// two rounds a set, each time of other slots.
fn swap_all(
    swapper: &dyn SwapTarget,
    setup: &Setup,
    make: &Make<'_>,
    is_over: &AtomicBool,
) -> Tally {
    let (mut tally, mut random) = (Tally::default(), Random::new(11));
    let slots = swapper.slots();
    let kinds: std::collections::BTreeSet<_> = slots.iter().map(|slot| &slot.kind).collect();
    assert!(kinds.len() >= 11, "{kinds:?}");
    while !is_over.load(Ordering::Relaxed) {
        for slot in &slots {
            let name = &slot.active.name;
            let made = make(&slot.kind, name);
            let place = format!("{}/{}", slot.kind, slot.slot);
            match swapper.swap(&place, name, made, Duration::from_secs(60)) {
                Ok(_) => tally.swapped += 1,
                Err(SwapError::TooManyDraining { .. }) => tally.drained += 1,
                Err(error) => panic!("{place}: {error}"),
            }
        }
        swap_some(swapper, make, &mut random, &mut tally);
        let hook = make("hook", "stop-words");
        let hook = hook.downcast::<Box<dyn Hook>>().unwrap();
        let mut on = Subscriptions::new();
        hook.subscribe(&mut on).unwrap();
        setup.bus.replace(&Machine::new().host("stop-words"), on);
        tally.swapped += 1;
    }
    tally
}

/// Replaces what fills some slots at one boundary: each has another generation after it, or none.
fn swap_some(swapper: &dyn SwapTarget, make: &Make<'_>, random: &mut Random, tally: &mut Tally) {
    // Kinds of requests are most often full: of them one in eight, of the others every other.
    let of_requests = ["logits-processor", "decoding-strategy", "output-parser"];
    let is_of_requests = |slot: &SlotStatus| of_requests.contains(&slot.kind.as_str());
    let before = swapper.slots();
    let chosen: Vec<bool> = before
        .iter()
        .map(|slot| random.below(if is_of_requests(slot) { 8 } else { 2 }) == 0)
        .collect();
    let set = before.iter().zip(&chosen).filter(|(_, is_chosen)| **is_chosen).map(|(slot, _)| {
        let name = slot.active.name.clone();
        let instance = make(&slot.kind, &name);
        Replacement { slot: format!("{}/{}", slot.kind, slot.slot), name, instance }
    });
    let set: Vec<Replacement> = set.collect();
    let num_members = set.len();
    let is_taken = match swapper.swap_all(set, Duration::from_secs(60)) {
        Ok(swapped) => {
            assert_eq!(swapped.len(), num_members);
            (tally.sets, tally.members) = (tally.sets + 1, tally.members + num_members);
            true
        }
        Err(SwapError::TooManyDraining { .. }) => {
            tally.drained += 1;
            false
        }
        Err(error) => panic!("a set of {num_members}: {error}"),
    };
    for ((old, new), is_chosen) in before.iter().zip(swapper.slots()).zip(chosen) {
        let changed = new.active.generation - old.active.generation;
        assert_eq!(changed, u32::from(is_taken && is_chosen), "{}/{}", new.kind, new.slot);
    }
}

fn check(time: Duration) {
    for backend in ["cpu", "null"] {
        let setup = setup(backend);
        let linked = |kind: &str, name: &str| instance(&setup, kind, name, &Config::new());
        let tally = run(&setup, &linked, time);
        assert_eq!(tally.wrong, 0, "{backend}: {tally:?}");
        assert!(tally.finished > STREAMS && tally.swapped > 20, "{backend}: {tally:?}");
        assert!(tally.sets > 0 && tally.members > tally.sets, "{backend}: {tally:?}");
        println!("{backend}: {tally:?}");
    }
}

#[test]
fn nothing_is_lost_while_everything_is_swapped() {
    check(Duration::from_secs(2));
}

/// `cargo test -p jackfield-tests --test swap -- --ignored --nocapture under_fire`
#[test]
#[ignore = "two minutes"]
fn nothing_is_lost_in_a_minute_of_swaps() {
    check(Duration::from_secs(60));
}

/// `cargo test -p jackfield-tests --test swap -- --ignored --nocapture of_files`
#[test]
#[ignore = "minutes"]
fn nothing_is_lost_in_a_minute_of_swaps_of_files() {
    let folder = tempfile::tempdir().unwrap();
    let (setup, files) = (setup("cpu"), Files::new(folder.path()));
    // Everything is built once before the clock starts.
    let engine = setup.load(tiny_model("tiny").path()).unwrap();
    for _ in 0..2 {
        for slot in engine.swapper().slots() {
            drop(files.make(&slot.kind, &slot.active.name));
        }
        drop(files.make("hook", "stop-words"));
    }
    drop(engine);
    let tally = run(&setup, &|kind, name| files.make(kind, name), Duration::from_secs(60));
    let (loads, refused) = files.loads();
    println!("{tally:?}; {loads} loads, {refused} beyond the quota");
    assert_eq!(tally.wrong, 0, "{tally:?}");
    assert!(tally.finished > STREAMS && tally.swapped > 20, "{tally:?}");
}
