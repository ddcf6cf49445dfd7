//! Caches take over from each other in `jackfield serve`, while answers are streamed.
//!
//! Needs the `jackfield` binary beside this test.

use std::sync::atomic::{AtomicBool, Ordering};

use jackfield::BuildLane;
use jackfield_tests::root;
use serde_json::{Value, json};

use crate::client::{Connection, bytes};
use crate::operators::{Process, greedy};

const CACHES: [&str; 4] = ["contiguous", "int8", "int8-residual", "paged"];

/// One block for a whole sequence: all of them lay their pools out in the same blocks then.
const CONFIG: &str = "[plugin.paged]\nblock_size = 256\n[plugin.int8]\nblock_size = 256\n\
    [plugin.int8-residual]\nblock_size = 256\npatches_per_block = 32\n";

/// What `/metrics` says was converted, in bytes.
fn converted(service: &Process) -> f64 {
    let page = Connection::send(service.address, &bytes("GET", "/metrics", &[], "")).answer().body;
    let of =
        |line: &&str| line.contains("kv_cache_converted_bytes_total") && !line.starts_with('#');
    let line = page.lines().find(of).unwrap_or_else(|| panic!("{page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Streams answers one after the other until it is over, each of which is whole; how many.
fn stream(service: &Process, is_over: &AtomicBool) -> usize {
    let mut num_answers = 0;
    while !is_over.load(Ordering::Relaxed) {
        let answer = Connection::send(service.address, &greedy(&service.model, true)).answer();
        let events = answer.events();
        let last = &events.last().unwrap()["choices"][0];
        assert_eq!(last["finish_reason"], "length", "{}", answer.body);
        num_answers += 1;
    }
    num_answers
}

#[test]
fn every_cache_takes_over_while_answers_are_streamed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("jackfield.toml"), CONFIG).unwrap();
    let Some(service) = Process::start(folder.path()) else { return };
    let file = |name: &str| folder.path().join(format!("{name}.so"));
    for name in CACHES {
        let source = root().join("plugins/kv-cache").join(name);
        jackfield::build_plugin(&source, BuildLane::Native, Some(&file(name))).unwrap();
    }
    let before = service.answer();
    let swap = |name: &str| {
        let answer = service.ask("POST", "/plugins/swap", &json!({ "file": file(name) }));
        let active = answer.json()["active"].as_str().map(str::to_owned);
        let is_active = active.is_some_and(|active| active.starts_with(&format!("{name}#")));
        if is_active { Ok(()) } else { Err(format!("{name}: {}", answer.body)) }
    };
    let swap_all = || -> Result<(), String> {
        for from in CACHES {
            for to in CACHES.into_iter().filter(|to| *to != from) {
                swap(from)?;
                swap(to)?;
            }
        }
        Ok(())
    };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let streams = [(); 3].map(|()| scope.spawn(|| stream(&service, &is_over)));
        let swapped = swap_all();
        // Streams end whatever came of it.
        is_over.store(true, Ordering::Relaxed);
        swapped.unwrap();
        for stream in streams {
            assert!(stream.join().unwrap() > 0, "answers went on");
        }
    });
    assert!(converted(&service) > 0.0, "numbers of running requests were converted");
    swap("paged").unwrap();
    assert_eq!(service.answer(), before, "16 bits again");
    let used: Value = service.ask("GET", "/slots", &Value::Null).json();
    let filled = used["slots"].as_array().unwrap().iter().filter(|slot| slot["kind"] == "kv-cache");
    assert_eq!(filled.count(), 1, "{used}");
}
