//! A configuration file that is changed while a conversation runs.
//!
//! Needs the `jackfield` binary beside this test, and SmolLM2-135M-Instruct in `JACKFIELD_MODELS`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jackfield_tests::chat::{Chat, program};
use jackfield_tests::real_model;

const FILE: &str = "jackfield.toml";

/// As editors save: whole files, renamed onto the old one.
fn save(here: &Path, text: &str) {
    fs::write(here.join("draft"), text).unwrap();
    fs::rename(here.join("draft"), here.join(FILE)).unwrap();
}

/// Waits until the log says so.
fn wait_for(here: &Path, words: &str) {
    let start = Instant::now();
    loop {
        let log = fs::read_to_string(here.join("log")).unwrap();
        if log.contains(words) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "never said {words:?}: {log}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_is_saved_is_applied_and_mistakes_change_nothing() {
    let Some(program) = program() else { return };
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(model) = real_model("SmolLM2-135M-Instruct", file) else { return };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join(FILE), "[plugin.cpu]\nactivations = \"int16\"\n").unwrap();
    let log = fs::File::create(here.join("log")).unwrap();
    let mut chat = Chat::start(&program, &model, here, Stdio::from(log));
    let question = "What is the capital of France?";
    assert!(chat.ask(question).contains("Paris"));
    let status = || {
        let mut command = Command::new(&program);
        let status = command.args(["plugin", "status"]).env("XDG_RUNTIME_DIR", here);
        String::from_utf8(status.current_dir(here).output().unwrap().stdout).unwrap()
    };
    let first = status();

    save(here, "[plugin.cpu]\nactivations = \"int8\"\n[plugin.stop-words]\nstop = [\"Paris\"]\n");
    wait_for(here, "configured anew: backend/backend");
    wait_for(here, "configured anew: hook/stop-words");
    assert_ne!(status(), first, "another generation of the backend runs");
    let cut = chat.ask(question);
    assert!(!cut.contains("Paris"), "{cut}");

    let second = status();
    let rest = "[load]\nprobation_seconds = 7\nfiles = [\"none.so\"]\n[plugin.stop-words]\nstop = [\"Paris\"]\n";
    save(here, &format!("[plugin.cpu]\nactivations = \"int8\"\n{rest}"));
    wait_for(here, "none.so: cannot read");
    wait_for(here, "takes effect at the next start: load.probation_seconds");
    // One mistake, and nothing of what the same save says: stop words stay.
    save(here, "[plugin.cpu]\nactivations = \"int3\"\n[plugin.stop-words]\nstop = []\n");
    wait_for(here, "expected one of int16, int8");
    save(here, "[plugin.cpu\n");
    wait_for(here, "changed, and not applied");
    assert_eq!(chat.ask(question), cut);
    assert_eq!(status(), second, "the old one serves");
}
