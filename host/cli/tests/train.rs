//! `jackfield train` from outside: a run, its resumption, damaged checkpoints and data that is none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32,
"intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
"head_dim": 16, "vocab_size": 256, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
"rope_theta": 10000.0, "tie_word_embeddings": true}"#;

/// A folder with a model, a text and a run of four steps that keeps each.
fn run_in(folder: &Path, text: &[u8], more: &str) -> PathBuf {
    let file = |name: &str| folder.join(name);
    fs::write(file("config.json"), CONFIG).unwrap();
    fs::write(file("text"), text).unwrap();
    let [config, text, kept] = ["config.json", "text", "kept"].map(file);
    let table = format!(
        "[train]\nconfig = {config:?}\ntext = {text:?}\nfolder = {kept:?}\nsteps = 4\n\
         sequence_length = 16\nsequences = 2\ncheckpoint_every = 1\nkeep_last = 9\n{more}\n\
         [plugins]\nlr-schedule = \"constant\"\n"
    );
    fs::write(file("run.toml"), table).unwrap();
    file("run.toml")
}

fn train(folder: &Path, run: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_jackfield"))
        .args(["train", "--json", "--config"])
        .arg(run)
        .args(more)
        .env("XDG_CONFIG_HOME", folder)
        .env("XDG_CACHE_HOME", folder)
        .output()
        .expect("the binary runs")
}

/// The last line of a run that went well, and what it said beside.
fn last(output: &Output) -> (serde_json::Value, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let printed = String::from_utf8_lossy(&output.stdout);
    (serde_json::from_str(printed.lines().last().unwrap()).unwrap(), said)
}

fn text() -> Vec<u8> {
    // Bytes are tokens, whether they are UTF-8 or not.
    (0..2000_u32).map(|i| (i * i % 251) as u8).collect()
}

#[test]
fn a_run_goes_on_where_its_last_whole_checkpoint_stands() {
    let (folder, other) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
    let run = run_in(folder.path(), &text(), "");
    let (line, said) = last(&train(folder.path(), &run, &[]));
    assert_eq!(line["step"], 3);
    assert!(!said.contains("goes on"), "{said}");
    let file = |step: u64, name: &str| folder.path().join(format!("kept/step-{step:08}/{name}"));
    // The newest is damaged: the one before is taken, and the run goes on from there.
    fs::write(file(4, "model.safetensors"), "short").unwrap();
    let (resumed, said) = last(&train(folder.path(), &run, &["--steps", "6"]));
    assert!(said.contains("passed over") && said.contains("`model.safetensors` of"), "{said}");
    assert!(said.contains("goes on after step 3 "), "{said}");
    let whole = run_in(other.path(), &text(), "");
    let (whole, _) = last(&train(other.path(), &whole, &["--steps", "6"]));
    for key in ["step", "loss", "grad_norm"] {
        assert_eq!(resumed[key], whole[key], "{key}");
    }
    let model = fs::read(file(6, "model.safetensors")).unwrap();
    assert_eq!(model, fs::read(other.path().join("kept/step-00000006/model.safetensors")).unwrap());
    let (_, said) = last(&train(folder.path(), &run, &["--fresh"]));
    assert!(!said.contains("goes on"), "{said}");
}

#[test]
fn what_cannot_be_trained_on_is_named() {
    let folder = tempfile::TempDir::new().unwrap();
    #[rustfmt::skip]
    let cases: [(&[u8], &str, &str); 4] = [
        (b"",          "",                    "expected 17 bytes for a sequence of 16 tokens, found 0"),
        (&[b'a'; 16],  "",                    "expected 17 bytes for a sequence of 16 tokens, found 16"),
        (&[b'a'; 40],  "sequence_lenght = 4", "sequence_lenght"),
        (&[b'a'; 40],  "learning_rate = -1",  "learning_rate"),
    ];
    for (text, more, expected) in cases {
        let run = run_in(folder.path(), text, more);
        let output = train(folder.path(), &run, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{more}: {said}");
        let is_named =
            !more.is_empty() || said.contains(folder.path().join("text").to_str().unwrap());
        assert!(is_named, "{said}");
    }
    let run = run_in(folder.path(), &[b'a'; 40], "");
    fs::remove_file(folder.path().join("text")).unwrap();
    let output = train(folder.path(), &run, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("text"), "{said}");
}
