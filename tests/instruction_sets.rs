//! A real model answers the same with every instruction set that this machine has, chosen as users
//! choose it: by the environment.
//!
//! Needs SmolLM2-135M-Instruct in the folder that `JACKFIELD_MODELS` names, and the command line.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Output};

use jackfield_tests::{chat::program, real_model, tiny_model};

/// Names in the environment, and what backends call them.
const SETS: [(&str, &str); 4] =
    [("scalar", "scalar"), ("avx2", "avx2-fma"), ("avx512", "avx512-vnni"), ("amx", "amx-int8")];

fn run(program: &Path, isa: &str, args: &[&str]) -> Output {
    let folder = tempfile::TempDir::new().unwrap();
    Command::new(program)
        .args(args)
        .env("JACKFIELD_CPU_ISA", isa)
        .env("XDG_CONFIG_HOME", folder.path())
        .env("XDG_RUNTIME_DIR", folder.path())
        .env_remove("JACKFIELD_CONFIG")
        .current_dir(folder.path())
        .output()
        .unwrap()
}

/// What the `cpu` backend runs with where nothing beyond `isa` may be used.
fn chosen(program: &Path, isa: &str) -> String {
    let output = run(program, isa, &["plugin", "ls"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    let line = lines.find(|line| line.trim_start_matches(['*', ' ']).starts_with("cpu "));
    let kernels = line.and_then(|line| line.split_once("[kernels: ")?.1.split_once(']'));
    kernels.unwrap_or_else(|| panic!("no kernels of `cpu`: {text}")).0.to_owned()
}

#[test]
fn the_environment_caps_the_instruction_set_and_changes_no_answer() {
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(program) = program() else { return };
    assert_eq!(chosen(&program, "scalar"), "scalar");
    let prompts = ["Name three colours of the rainbow.", "What is the capital of France?"];
    let model = real_model("SmolLM2-135M-Instruct", file);
    let mut answers = Vec::new();
    for (i, (isa, name)) in SETS.iter().enumerate() {
        let chosen = chosen(&program, isa);
        let place = SETS.iter().position(|set| set.1 == chosen);
        assert!(place.is_some_and(|place| place <= i), "{isa}: {chosen}");
        println!("{isa}: {chosen}{}", if chosen == *name { "" } else { ", for want of it" });
        let Some(model) = &model else { continue };
        for prompt in prompts {
            let model = model.to_str().unwrap();
            let command = ["generate", "--chat", "--greedy", "--max-tokens", "6", "--model", model];
            let options: Vec<&str> = command.into_iter().chain([prompt]).collect();
            let output = run(&program, isa, &options);
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !output.stdout.is_empty(), "{isa}: {error}");
            answers.push(String::from_utf8(output.stdout).unwrap());
        }
    }
    for pair in answers.chunks_exact(prompts.len()) {
        assert_eq!(pair, &answers[..prompts.len()]);
    }
}

#[test]
fn an_unknown_instruction_set_is_an_error() {
    let Some(program) = program() else { return };
    let folder = tiny_model("tiny");
    let model = folder.path().to_str().unwrap();
    let output = run(&program, "sse9", &["generate", "--model", model, "x"]);
    let error = String::from_utf8_lossy(&output.stderr);
    let expected = "JACKFIELD_CPU_ISA: malformed: expected scalar, avx2, avx512 or amx, found sse9";
    assert!(!output.status.success() && error.contains(expected), "{error}");
}
