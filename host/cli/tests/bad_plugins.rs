//! `jackfield plugin check` finds what is wrong with every bad plugin there is, and nothing wrong
//! with a fair one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../loader/tests/support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use support::bad::{self, Bad};
use support::puppet;

/// Checks a file and returns the checks that failed, each with its message.
fn failed(path: &Path, seconds: u32) -> Vec<(String, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_jackfield"))
        .args(["--json", "plugin", "check", "--config", "puppet_scale=2.0", "--seconds"])
        .arg(seconds.to_string())
        .arg(path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let verdict: Value = serde_json::from_str(said.lines().next().unwrap_or_default())
        .unwrap_or_else(|e| panic!("{}: {e}: {said}{errors}", path.display()));
    let checks = verdict["checks"].as_array().unwrap();
    let failed = checks.iter().filter(|check| check["passed"] == false);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let failed: Vec<_> = failed.map(|c| (text(&c["name"]), text(&c["message"]))).collect();
    assert_eq!(verdict["passed"], failed.is_empty());
    assert_eq!(output.status.success(), failed.is_empty());
    failed
}

#[test]
fn a_fair_plugin_passes_every_check() {
    let folder = tempfile::tempdir().unwrap();
    for (build, name) in [(support::native(), "fair.so"), (support::component(), "fair.wasm")] {
        let path = folder.path().join(name);
        std::fs::write(&path, puppet(build, "fair")).unwrap();
        assert_eq!(failed(&path, 60), [], "{name}");
    }
}

#[test]
fn every_bad_plugin_is_found_by_its_check() {
    let plugins = bad::plugins();
    let names: BTreeSet<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    assert_eq!(names.len(), plugins.len(), "every name once");
    assert!(plugins.len() >= 40);
    let folder = tempfile::tempdir().unwrap();
    let (next, mistakes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(Bad { name, found_by, bytes }) =
            plugins.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let failed = failed(&path, if *found_by == "hang" { 1 } else { 60 });
            if !failed.iter().any(|(check, message)| check == found_by && !message.is_empty()) {
                let line = format!("{name}: expected `{found_by}` to fail, found {failed:?}");
                mistakes.lock().unwrap().push(line);
            }
        }
    };
    std::thread::scope(|scope| {
        (0..2).for_each(|_| drop(scope.spawn(work)));
    });
    let mistakes = mistakes.into_inner().unwrap();
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
}
