//! `jackfield quantize` from outside: a table, work that was killed, a disk that is full, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A folder with the tiny Llama of the golden files in `model`, and a text.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    for (from, to) in [
        ("tiny.config.json", "config.json"),
        ("tiny.safetensors", "model.safetensors"),
        ("tiny.tokenizer.json", "tokenizer.json"),
    ] {
        fs::copy(golden.join(from), model.join(to)).unwrap();
    }
    let text =
        "The studio was quiet when the engineer came in. She moved one cable, and listened.\n";
    fs::write(folder.path().join("text"), text.repeat(8)).unwrap();
    folder
}

fn command(folder: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env("XDG_CONFIG_HOME", folder).env("XDG_CACHE_HOME", folder);
    command.env_remove("JACKFIELD_MODEL").env_remove("JACKFIELD_CONFIG");
    command
}

const USUAL: [&str; 7] = ["quantize", "--model", "model", "--text", "text", "--window", "32"];

fn jackfield(folder: &Path, args: &[&str]) -> Output {
    let mut command = command(folder, env!("CARGO_BIN_EXE_jackfield"));
    command.args(USUAL).args(args).output().expect("the binary runs")
}

fn rows(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    printed["rows"].as_array().unwrap().clone()
}

#[test]
fn a_table_has_a_row_for_the_original_and_each_format() {
    let folder = folder();
    let args = ["--to", "Q8_0,Q4_0", "--out", "tried", "--json"];
    let found = rows(&jackfield(folder.path(), &args));
    let numbers = |row: &Value, key: &str| row[key].as_f64().unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(found[0]["method"], "original (F32)");
    assert_eq!((numbers(&found[0], "kl"), numbers(&found[0], "bits_per_weight")), (0.0, 32.0));
    for (row, bits) in [(&found[1], 8.5), (&found[2], 4.5)] {
        // Rows of 176 numbers have 16 bits.
        let found = numbers(row, "bits_per_weight");
        assert!(found > bits && found < bits + 2.0, "{row}");
        let path = folder.path().join(row["path"].as_str().unwrap());
        assert_eq!(fs::metadata(path).unwrap().len(), row["size_bytes"].as_u64().unwrap());
        assert!(numbers(row, "kl") > 0.0 && numbers(row, "tokens_per_second") > 0.0, "{row}");
        assert_eq!(row["requantized_from"].as_array().unwrap().len(), 0);
    }
    // What is there is measured, and nothing made again; the text says the same figures.
    let again = jackfield(folder.path(), &["--to", "Q8_0,Q4_0", "--out", "tried"]);
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    let kl = format!("{:.6}", numbers(&found[2], "kl"));
    assert!(said.contains(&kl) && said.contains("| Q4_0 |"), "{said}");
    // Of a file that was quantized before.
    let mut more = command(folder.path(), env!("CARGO_BIN_EXE_jackfield"));
    more.args(["quantize", "--model", "tried/Q8_0.gguf", "--to", "Q4_0", "--out", "again.gguf"]);
    let said = more.output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("Q4_0, re-quantized from Q8_0"), "{said}");
}

#[test]
fn compressors_and_sensitive_weights_are_named_with_the_format() {
    let folder = folder();
    // Rows of the tiny model have 64 numbers.
    let sizes =
        "[plugin.int4-group]\ngroup = 64\n[plugin.fp8]\nblock = 64\n[plugin.w8a8]\nblock = 32\n";
    fs::write(folder.path().join("jackfield.toml"), sizes).unwrap();
    let usual = ["--calibration", "text", "--out", "tried", "--json"];
    let methods = ["--to", "Q4_0,Q4_0+gptq,Q4_0+awq,Q4_0+mixed,INT4_G64,FP8_E4M3_B64,INT8_B32"];
    let found = rows(&jackfield(folder.path(), &[&methods, &usual[..]].concat()));
    assert_eq!(found.len(), 8);
    let bits = |row: usize| found[row]["bits_per_weight"].as_f64().unwrap();
    let kl = |row: usize| found[row]["kl"].as_f64().unwrap();
    assert!((1..8).all(|row| kl(row) > 0.0 && kl(row).is_finite()), "{found:?}");
    assert!(bits(2) == bits(1) && bits(4) > bits(1) && bits(4) < 1.1 * bits(1), "{found:?}");
    let file = folder.path().join("sensitive_layers.json");
    let layers: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let weights = layers["weights"].as_array().unwrap();
    let chosen: Vec<&str> = weights
        .iter()
        .filter(|weight| weight["is_sensitive"] == true)
        .map(|weight| weight["name"].as_str().unwrap())
        .collect();
    assert!(!chosen.is_empty() && chosen.len() < weights.len(), "{chosen:?}");
    let refused = |args: &[&str], expected: &str| {
        let output = jackfield(folder.path(), args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{args:?}: {said}");
        assert!(!folder.path().join("m.gguf").exists());
    };
    let out = ["--out", "m.gguf"];
    refused(&[&["--to", "Q4_0+gptq"], &out[..]].concat(), "expected --calibration FILE");
    refused(&[&["--to", "Q4_0+gptq+awq"], &out[..]].concat(), "expected one compressor");
    refused(&[&["--to", "Q4_0+none", "--calibration", "text"], &out[..]].concat(), "none");
    fs::write(&file, layers.to_string().replace("\"elements\":", "\"elements\":1")).unwrap();
    refused(&[&["--to", "Q4_0+mixed"], &out[..]].concat(), "`elements`: expected");
}

#[test]
fn a_full_disk_leaves_nothing_at_the_place_and_the_work_goes_on() {
    let folder = folder();
    let out = folder.path().join("m.gguf");
    // Files may have 50 KiB (or twice that, as shells count): parts fit, the whole does not.
    let limited = format!(
        "trap '' XFSZ; ulimit -f 100; exec {} quantize --model model --text text --window 32 \
         --to Q4_0 --out m.gguf",
        env!("CARGO_BIN_EXE_jackfield")
    );
    let output = command(folder.path(), "sh").args(["-c", &limited]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("m.gguf"), "{said}");
    assert!(!out.exists());
    let left = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains(".new")).collect();
    assert!(left.is_empty(), "{left:?}");
    let output = jackfield(folder.path(), &["--to", "Q4_0", "--out", "m.gguf"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("went on after"), "{said}");
    assert!(out.exists() && !folder.path().join("m.gguf.work").exists());
}

#[test]
fn what_cannot_be_is_named() {
    let folder = folder();
    #[rustfmt::skip]
    let cases: [(&[&str], &str); 6] = [
        (&["--to", "Q4_9", "--out", "m.gguf"],                            "format: expected one that is written to a GGUF file"),
        (&["--to", "Q4_0", "--out", "text"],                              "text: expected a path at which nothing is"),
        (&["--to", "Q4_0", "--out", "m.gguf", "--set", "lm_head"],        "expected NAME=FORMAT"),
        (&["--to", "Q4_0", "--out", "m.gguf", "--set", "no=Q8_0"],        "`no`: expected a pattern"),
        (&["--to", "Q4_0", "--out", "m.gguf", "--tokenizer", "none"],     "none"),
        (&["--to", "Q4_0", "--out", "m.gguf", "--window", "1"],           "window: expected"),
    ];
    for (args, expected) in cases {
        let mut command = command(folder.path(), env!("CARGO_BIN_EXE_jackfield"));
        let output = command.args(["quantize", "--model", "model"]).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{args:?}: {said}");
        assert!(!folder.path().join("m.gguf").exists(), "{args:?}");
    }
}
