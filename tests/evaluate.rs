//! Perplexity beside mlx-lm and llama.cpp, in windows as transformers and llama-perplexity cut them.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::Command;

use jackfield_engine::generate::perplexity::{Perplexity, Windows};
use jackfield_engine::model::ModelFiles;
use jackfield_engine::train::Parameters;
use jackfield_tests::{Setup, golden, real_model, root, tiny_model};
use serde_json::{Value, json};
use tempfile::TempDir;

const WINDOW: usize = 256;
/// Of the loss, relative: F32 here, F32 in mlx-lm.
const MLX_MAX: f64 = 1e-4;
/// The same beside llama.cpp, which rounds activations to 8 bits before products with Q4_1.
const LLAMA_CPP_MAX: f64 = 5e-3;

fn perplexity(model: &Path, ids: &[u32], windows: Windows) -> Perplexity {
    let mut setup = Setup::new("cpu").set("paged", "dtype", "f32");
    setup.options.logit_rows_max = 64;
    setup.options.context_length_max = WINDOW;
    let mut engine = setup.load(model).unwrap();
    engine.perplexity(ids, windows, None, &mut |_, _| true).unwrap()
}

#[test]
fn the_sum_is_that_of_the_logits_of_each_window() {
    let folder = tiny_model("tiny");
    let ids: Vec<u32> = (0..50_u32).map(|i| (i * i * 7 + 3) % 510).collect();
    let mut engine = Setup::new("cpu").set("paged", "dtype", "f32").load(folder.path()).unwrap();
    let nll = |engine: &mut jackfield_engine::Engine, start: usize, end: usize, target: usize| {
        let mut found = f64::NAN;
        let last = target - 1 - start;
        let each = &mut |position: usize, logits: &[f32]| {
            if position == last {
                let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
                found = sum.ln() - f64::from(logits[ids[target] as usize]);
            }
        };
        engine.evaluate(&ids[start..end], 0, 64, each).unwrap();
        found
    };
    // Of the second window those that the first one had not.
    let first: f64 = (1..20).map(|target| nll(&mut engine, 0, 20, target)).sum();
    let second: f64 = (20..28).map(|target| nll(&mut engine, 8, 28, target)).sum();
    let windows = Windows::Sliding { length: 20, stride: 8 };
    let found = perplexity(folder.path(), &ids[..28], windows);
    assert_eq!((found.tokens, found.windows), (27, 2));
    assert!((found.nll / (first + second) - 1.0).abs() < 1e-6, "{found:?}, {}", first + second);
    assert!(found.standard_error() > 0.0);
    assert!((found.perplexity() - found.loss().exp()).abs() < 1e-9);
}

/// Needs `PYTHON`, an interpreter with the packages that the script names, and the model.
#[test]
#[ignore = "some minutes, peers and a model that have to be there: SmolLM2-135M beside mlx-lm and llama.cpp"]
fn a_real_model_has_the_perplexity_of_mlx_and_llama_cpp() {
    let Some(path) = real_model("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct.Q4_1.gguf") else {
        return;
    };
    let out = TempDir::new().unwrap();
    let Setup { wiring, registry, .. } = Setup::new("cpu");
    let (_, weights) = Parameters::of_model(&path, &wiring, &registry).unwrap();
    let folder = out.path().join("f32");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("model.safetensors"), weights.to_safetensors().unwrap()).unwrap();
    let config = json!({
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "vocab_size": 49152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0, "tie_word_embeddings": true,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::copy(golden("tiny.tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut ids = ModelFiles::open(&path).unwrap().tokenizer().unwrap().encode(&text, false);
    ids.truncate(1000);
    let strides = [WINDOW, WINDOW / 2];
    let asked = out.path().join("asked.json");
    let what = json!({ "ids": ids, "window": WINDOW, "strides": strides });
    std::fs::write(&asked, what.to_string()).unwrap();
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = root().join("tests/golden/make/perplexity.py");
    let made = Command::new(python).arg(script).arg(&folder).arg(&path).arg(&asked).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let theirs: Value = serde_json::from_slice(&made.stdout).unwrap();
    let compare = |name: &str, ours: &Perplexity, most: f64| {
        let (nll, tokens) = (theirs[name]["nll"].as_f64().unwrap(), &theirs[name]["tokens"]);
        assert_eq!(*tokens, ours.tokens, "{name}");
        let (ours, theirs) = (ours.loss(), nll / ours.tokens as f64);
        println!("{name}: loss {ours:.6}, theirs {theirs:.6}, {:.1e} off", ours / theirs - 1.0);
        assert!((ours / theirs - 1.0).abs() < most, "{name}: {ours} {theirs}");
    };
    for stride in strides {
        let found = perplexity(&folder, &ids, Windows::Sliding { length: WINDOW, stride });
        compare(&format!("sliding {stride}"), &found, MLX_MAX);
    }
    let found = perplexity(&path, &ids, Windows::Halves { length: WINDOW });
    compare("halves", &found, LLAMA_CPP_MAX);
}
