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
use std::time::Instant;

use serde_json::Value;
use support::bad::{self, Bad};
use support::puppet;

/// What a check found: of each part its name, whether it passed, and what was said.
#[derive(Debug, PartialEq)]
struct Verdict {
    checks: Vec<(String, bool, String)>,
    warnings: Vec<String>,
}

impl Verdict {
    /// The checks that failed, each with its message.
    fn failed(&self) -> Vec<(&str, &str)> {
        let failed = self.checks.iter().filter(|(_, passed, _)| !passed);
        failed.map(|(name, _, message)| (name.as_str(), message.as_str())).collect()
    }

    /// The same without what was said.
    fn marks(&self) -> Vec<(&str, bool)> {
        self.checks.iter().map(|(name, passed, _)| (name.as_str(), *passed)).collect()
    }
}

fn check(path: &Path, seconds: u32) -> Verdict {
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
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let found = Verdict {
        checks: verdict["checks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| (text(&c["name"]), c["passed"] == true, text(&c["message"])))
            .collect(),
        warnings: verdict["warnings"].as_array().unwrap().iter().map(text).collect(),
    };
    assert_eq!(verdict["passed"], found.failed().is_empty());
    assert_eq!(output.status.success(), found.failed().is_empty());
    found
}

/// Seconds that a part may take of a plugin that is found by `check`.
fn limit(found_by: &str) -> u32 {
    if found_by == "hang" { 1 } else { 60 }
}

/// What is said of the fair puppet and of all bad plugins, by two checks at a time.
fn check_all(folder: &Path, plugins: &[Bad]) -> Vec<Verdict> {
    let (next, verdicts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(Bad { name, found_by, bytes }) = plugins.get(i) else { return };
            let path = folder.join(name);
            std::fs::write(&path, bytes).unwrap();
            let verdict = check(&path, limit(found_by));
            verdicts.lock().unwrap().push((i, verdict));
        }
    };
    std::thread::scope(|scope| {
        (0..2).for_each(|_| drop(scope.spawn(work)));
    });
    let mut verdicts = verdicts.into_inner().unwrap();
    verdicts.sort_by_key(|(i, _)| *i);
    verdicts.into_iter().map(|(_, verdict)| verdict).collect()
}

/// The fair puppet in both lanes.
fn fair() -> [(&'static str, Vec<u8>); 2] {
    let builds = [("fair.so", support::native()), ("fair.wasm", support::component())];
    builds.map(|(name, build)| (name, puppet(build, "fair")))
}

#[test]
fn a_fair_plugin_passes_every_check() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in fair() {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let verdict = check(&path, 60);
        assert_eq!(verdict.failed(), [], "{name}");
        assert_eq!(verdict.warnings, [""; 0], "{name}");
    }
}

#[test]
fn a_plugin_that_prints_is_warned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("talks.so");
    std::fs::write(&path, puppet(support::native(), "print@apply")).unwrap();
    let verdict = check(&path, 60);
    assert_eq!(verdict.failed(), [], "to print is no fault");
    let [warning] = &verdict.warnings[..] else { panic!("{verdict:?}") };
    assert!(warning.contains("standard output, during contract"), "{warning}");
    assert!(warning.contains("the puppet talks at apply"), "{warning}");
}

#[test]
fn a_plugin_that_says_it_starts_programs_is_warned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("starts-a-program.so");
    let says = support::with_manifest(support::programs(), "= []", "= [\"process\"]");
    std::fs::write(&path, puppet(&says, "program@apply")).unwrap();
    let verdict = check(&path, 60);
    assert_eq!(verdict.failed(), [], "its manifest says so");
    let [warning] = &verdict.warnings[..] else { panic!("{verdict:?}") };
    assert!(warning.contains("its permission `process` says that it runs programs"), "{warning}");
}

#[test]
fn every_bad_plugin_is_found_by_its_check() {
    let plugins = bad::plugins();
    let names: BTreeSet<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    assert_eq!(names.len(), plugins.len(), "every name once");
    assert!(plugins.len() >= 40);
    let folder = tempfile::tempdir().unwrap();
    let mut mistakes = Vec::new();
    for (Bad { name, found_by, .. }, verdict) in
        plugins.iter().zip(check_all(folder.path(), &plugins))
    {
        let failed = verdict.failed();
        if !failed.iter().any(|(check, message)| check == found_by && !message.is_empty()) {
            mistakes.push(format!("{name}: expected `{found_by}` to fail, found {failed:?}"));
        }
    }
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
}

/// `cargo test -p jackfield --test bad_plugins -- --ignored --nocapture` also prints how long one
/// round over all bad plugins takes, builds left out: at most 60 s are promised.
#[test]
#[ignore = "20 rounds over all bad plugins take minutes"]
#[allow(clippy::print_stdout, reason = "the table is what the run is for")]
fn twenty_checks_give_one_verdict() {
    let mut plugins = bad::plugins();
    let num_bad = plugins.len();
    let fair = fair().map(|(name, bytes)| Bad { name: name.to_owned(), found_by: "", bytes });
    plugins.extend(fair);
    let folder = tempfile::tempdir().unwrap();
    let mut first: Option<Vec<Verdict>> = None;
    let (mut others, mut other_words) = (Vec::new(), BTreeSet::new());
    for round in 1..=20 {
        let start = Instant::now();
        let mut verdicts = check_all(folder.path(), &plugins[..num_bad]);
        println!(
            "round {round:2}: {num_bad} bad plugins in {:.1} s",
            start.elapsed().as_secs_f64()
        );
        verdicts.extend(check_all(folder.path(), &plugins[num_bad..]));
        let Some(first) = &first else {
            first = Some(verdicts);
            continue;
        };
        for ((plugin, first), found) in plugins.iter().zip(first).zip(&verdicts) {
            if first.marks() != found.marks() {
                let (expected, found) = (first.failed(), found.failed());
                others.push(format!("{}, round {round}: {expected:?}, {found:?}", plugin.name));
            } else if first != found {
                other_words.insert(plugin.name.as_str());
            }
        }
    }
    for (Bad { name, .. }, verdict) in plugins.iter().zip(first.iter().flatten()) {
        let failed: Vec<_> = verdict.failed().into_iter().map(|(check, _)| check).collect();
        println!(
            "{name:40} {}",
            if failed.is_empty() { "passed".into() } else { failed.join(", ") }
        );
    }
    println!("same verdict in other words: {other_words:?}");
    assert!(others.is_empty(), "\n{}", others.join("\n"));
}
