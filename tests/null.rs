//! Who lets a backend answer that computes nothing is told so.
//!
//! Needs the `jackfield` binary beside this test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::Command;

use jackfield_tests::chat::program;
use jackfield_tests::tiny_model;

#[test]
fn a_backend_that_computes_nothing_says_that_its_answers_mean_nothing() {
    let Some(program) = program() else { return };
    let model = tiny_model("tiny");
    for (backend, is_told) in [("null", true), ("cpu", false)] {
        let mut command = Command::new(&program);
        command.args(["--plugin", &format!("backend={backend}"), "--model"]).arg(model.path());
        command.args(["bench", "--prefill", "8", "--decode", "4", "--runs", "1"]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let expected = "backend `null` computes nothing: its answers mean nothing";
        assert_eq!(said.contains(expected), is_told, "{backend}: {said}");
    }
}
