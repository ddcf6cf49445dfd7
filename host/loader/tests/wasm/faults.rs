//! What a guest does wrong ends that guest, with a reason, and nothing else.

use std::time::{Duration, Instant};

use jackfield_loader::Quotas;
use plugin_api::kinds::logits_processor::{LogitsProcessor, LogitsRows};
use plugin_api::testing::rows::Rows;
use plugin_api::{Config, Error};

use super::fixtures::{Lane, hostile, made, try_made};

const LIMIT: Duration = Duration::from_millis(100);

fn lane() -> Lane {
    Lane::with(|options| {
        options.call_limit = LIMIT;
        options.create_limit = LIMIT;
        options.memory_bytes_max = 16 << 20;
    })
}

fn apply(processor: &mut dyn LogitsProcessor) -> Result<(), Error> {
    let mut rows = Rows::new(&[&[1.0, 2.0]]);
    processor.apply(&mut LogitsRows::new(&mut rows))
}

/// The error of `apply` after `deed`.
fn error_of(lane: &Lane, deed: &str) -> String {
    let provided = lane.open(hostile()).unwrap();
    let config = Config::new().with("deed", deed);
    let mut processor = made::<dyn LogitsProcessor>(&provided, &config);
    let error = apply(&mut *processor).unwrap_err();
    // A stopped instance says the same until it is made again.
    assert_eq!(apply(&mut *processor).unwrap_err(), error);
    drop(processor);
    apply(&mut *made::<dyn LogitsProcessor>(&provided, &Config::new())).unwrap();
    error.to_string()
}

#[test]
fn a_fault_ends_the_instance_and_says_why() {
    let lane = lane();
    #[rustfmt::skip]
    let cases = [
        ("loop",        "plugin `hostile`: stopped at its deadline of 100 ms"),
        ("stack",       "plugin `hostile`: its stack overflowed"),
        ("memory",      "plugin `hostile`: asked for "),
        ("sleep",       "plugin `hostile`: wasi: waiting is denied"),
        ("rows",        "plugin `hostile`: rows: expected a row below 1, found 99"),
        ("panic",       "plugin `hostile`: panicked at src/lib.rs:"),
    ];
    for (deed, expected) in cases {
        let error = error_of(&lane, deed);
        assert!(error.starts_with(expected), "{deed}: {error}");
    }
    assert!(error_of(&lane, "panic").ends_with("the row is cursed"));
    assert!(error_of(&lane, "memory").contains("`memory_bytes_max` is 16777216"));
    let log = lane.machine.log();
    assert!(log.iter().any(|line| line.contains("stopped: plugin `hostile`")), "{log:?}");
}

#[test]
fn an_endless_loop_ends_soon_after_its_deadline() {
    let lane = lane();
    let provided = lane.open(hostile()).unwrap();
    let config = Config::new().with("deed", "loop");
    let mut processor = made::<dyn LogitsProcessor>(&provided, &config);
    let start = Instant::now();
    apply(&mut *processor).unwrap_err();
    // Generous for machines under load; what matters is that it ends.
    assert!(start.elapsed() >= LIMIT && start.elapsed() < LIMIT * 20, "{:?}", start.elapsed());
}

#[test]
fn faults_while_it_is_made_are_errors_of_making() {
    let lane = lane();
    let provided = lane.open(hostile()).unwrap();
    for deed in ["loop", "panic", "memory", "stack"] {
        let config = Config::new().with("at_once", deed);
        let error = try_made::<dyn LogitsProcessor>(&provided, &config).err().unwrap();
        assert!(error.to_string().starts_with("plugin `hostile`: "), "{deed}: {error}");
    }
    let config = Config::new().with("at_once", "rows");
    let error = try_made::<dyn LogitsProcessor>(&provided, &config).err().unwrap();
    assert_eq!(error.to_string(), "plugin `hostile`: rows: called outside of `apply`");
    let config = Config::new().with("at_once", "error");
    let error = try_made::<dyn LogitsProcessor>(&provided, &config).err().unwrap();
    assert_eq!(error, Error::unsupported("deed", "this one"));
}

#[test]
fn nothing_of_the_machine_is_reachable() {
    let lane = lane();
    lane.machine.deny("clock");
    let provided = lane.open(hostile()).unwrap();
    #[rustfmt::skip]
    let cases = [
        ("clock",       "clock: 0"),
        ("environment", "variables: 0"),
        ("file",        "file: denied"),
    ];
    for (deed, expected) in cases {
        let config = Config::new().with("deed", deed);
        let mut processor = made::<dyn LogitsProcessor>(&provided, &config);
        assert_eq!(apply(&mut *processor).unwrap_err().to_string(), expected);
    }
    let config = Config::new().with("deed", "print");
    apply(&mut *made::<dyn LogitsProcessor>(&provided, &config)).unwrap();
    assert_eq!(lane.machine.log(), ["hostile: hello from the sandbox"]);
}

#[test]
fn instances_are_limited_and_come_back() {
    let lane = Lane::with(|options| options.instances_max = 3);
    let provided = lane.open(hostile()).unwrap();
    let some: Vec<_> =
        (0..3).map(|_| made::<dyn LogitsProcessor>(&provided, &Config::new())).collect();
    let error = try_made::<dyn LogitsProcessor>(&provided, &Config::new()).err().unwrap();
    assert!(error.to_string().contains("`instances_max`"), "{error}");
    drop(some);
    for _ in 0..10 {
        made::<dyn LogitsProcessor>(&provided, &Config::new());
    }
}

#[test]
fn quotas_change_while_instances_run() {
    let lane = Lane::with(|options| options.call_limit = Duration::from_secs(3600));
    let provided = lane.open(hostile()).unwrap();
    let made_with =
        |deed: &str| made::<dyn LogitsProcessor>(&provided, &Config::new().with("deed", deed));
    let (mut loops, mut eats) = (made_with("loop"), made_with("memory"));
    let before = lane.lane.quotas();
    let tight = Quotas { call: LIMIT, memory_bytes: 16 << 20, instances: 3, ..before };
    lane.lane.set_quotas(&tight).unwrap();
    let stopped = apply(&mut *loops).unwrap_err().to_string();
    assert!(stopped.ends_with("stopped at its deadline of 100 ms"), "{stopped}");
    let refused = apply(&mut *eats).unwrap_err().to_string();
    assert!(refused.contains("`memory_bytes_max` is 16777216"), "{refused}");
    let one_more = made_with("nothing");
    let error = try_made::<dyn LogitsProcessor>(&provided, &Config::new()).err().unwrap();
    assert!(error.to_string().contains("`instances_max`"), "{error}");
    drop(one_more);

    let too_much = [
        Quotas { instances: before.instances + 1, ..before },
        Quotas { memory_bytes: 1 << 33, ..before },
        Quotas { call: Duration::ZERO, ..before },
    ];
    for quotas in too_much {
        assert!(matches!(lane.lane.set_quotas(&quotas), Err(Error::Config { .. })), "{quotas:?}");
        assert_eq!(lane.lane.quotas(), tight, "nothing has changed");
    }
}

#[test]
fn ten_thousand_faults_leave_the_host_as_it_was() {
    let lane = lane();
    let provided = lane.open(hostile()).unwrap();
    let config = Config::new().with("deed", "panic");
    for _ in 0..10_000 {
        let mut processor = made::<dyn LogitsProcessor>(&provided, &config);
        apply(&mut *processor).unwrap_err();
    }
    apply(&mut *made::<dyn LogitsProcessor>(&provided, &Config::new())).unwrap();
}
