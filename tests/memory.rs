//! What a model takes in memory: its weights, what its cache holds and little more, also while it is
//! loaded: room for tokens that never come costs nothing.
//!
//! Needs the `jackfield` binary beside this test, and the models in `JACKFIELD_MODELS`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::process::Command;

use jackfield_tests::chat::program;
use jackfield_tests::real_model;
use serde_json::Value;

/// Name and file.
const MODELS: [(&str, &str); 3] = [
    ("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    ("gemma-3-270m", "gemma-3-270m-q4_k_m.gguf"),
    ("qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"),
];

/// Bytes for everything but weights: tokens of a short run in the cache, the program, the tokenizer,
/// logits, scratch.
const REST_MAX: u64 = 64 << 20;

#[test]
fn a_model_takes_its_weights_its_cache_and_little_more() {
    let Some(program) = program() else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("jackfield.toml");
    fs::write(&config, "").unwrap();
    for (name, file) in MODELS {
        let Some(model) = real_model(name, file) else { continue };
        let mut command = Command::new(&program);
        command.args(["--json", "--config"]).arg(&config).arg("--model").arg(&model);
        command.args(["bench", "--prefill", "128", "--decode", "4", "--runs", "1"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let bytes = |key: &str| report[key].as_u64();
        let Some(peak) = bytes("peak_memory_bytes") else { return };
        let weights = bytes("weight_bytes").unwrap();
        let rest = peak.saturating_sub(weights);
        assert!(rest <= REST_MAX, "{name}: {peak} bytes, {weights} of them weights");
        let room = bytes("cache_bytes").unwrap();
        assert!(room > 2 * REST_MAX, "{name}: a cache that is written to its end goes unnoticed");
    }
}
