//! Everything comes back: memory, mappings, files and threads of a thousand generations.
//!
//! The only test of its binary, since it counts what the whole process has.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

#[path = "wasm/fixtures.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod fixtures;

use std::fs;

use plugin_api::Config;
use plugin_api::kinds::logits_processor::{BatchChange, LogitsProcessor, RowId};

use fixtures::{Lane, made, min_p};

/// Resident memory, in KiB.
fn resident_kib() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn count(folder: &str) -> usize {
    fs::read_dir(folder).unwrap().count()
}

fn reload(lane: &Lane) {
    let provided = lane.open(min_p()).unwrap();
    let mut processor = made::<dyn LogitsProcessor>(&provided, &Config::new());
    let params = Config::new().with("min_p", 0.1);
    processor.batch(&BatchChange::Added { row: RowId(0), params: &params, history: &[1] }).unwrap();
}

#[test]
fn a_thousand_reloads_give_everything_back() {
    let lane = Lane::new();
    for _ in 0..100 {
        reload(&lane);
    }
    let mappings = || fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    let before = (resident_kib(), mappings(), count("/proc/self/fd"), count("/proc/self/task"));
    for _ in 0..1000 {
        reload(&lane);
    }
    let after = (resident_kib(), mappings(), count("/proc/self/fd"), count("/proc/self/task"));
    println!("before and after (KiB, mappings, files, threads): {before:?} {after:?}");
    assert!(after.0 - before.0 <= 5 * 1024, "resident: {} KiB more", after.0 - before.0);
    assert!(after.1 <= before.1 + 4, "mappings: {} and {}", before.1, after.1);
    assert_eq!((before.2, before.3), (after.2, after.3), "files and threads");
}
