//! Token ids of awkward texts equal llama.cpp's, and those of the tiny model Hugging Face's.
//!
//! `JACKFIELD_MODELS` names the folder that holds the model files; without one of them its part is
//! skipped, with the reason printed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code outside #[test] functions")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jackfield_engine::model::{ModelFiles, StreamDecoder, Tokenizer};
use serde_json::Value;

const MODELS: [(&str, &str); 3] = [
    ("smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    ("gemma3", "gemma-3-270m-q4_k_m.gguf"),
    ("qwen2", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"),
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn json(path: &Path) -> Option<Value> {
    match std::fs::read(path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        Err(error) => {
            println!("SKIP {}: {error}", path.display());
            None
        }
    }
}

/// The tokenizer of a model in `JACKFIELD_MODELS`, and how long opening and building took.
fn open(file: &str) -> Option<(Tokenizer, Duration, Duration)> {
    let Some(folder) = std::env::var_os("JACKFIELD_MODELS") else {
        println!("SKIP {file}: JACKFIELD_MODELS is not set");
        return None;
    };
    let path = PathBuf::from(folder).join(file);
    if !path.exists() {
        println!("SKIP {}: no such file", path.display());
        return None;
    }
    let start = Instant::now();
    let model = ModelFiles::open(&path).unwrap();
    let opened = start.elapsed();
    let tokenizer = model.tokenizer().unwrap();
    Some((tokenizer, opened, start.elapsed() - opened))
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn ids_equal_those_of_llama_cpp() {
    let Some(cases) = json(&golden("llama_cpp/tokenizers.json")) else { return };
    for (name, file) in MODELS {
        let Some((tokenizer, opened, built)) = open(file) else { continue };
        println!("{name}: opened in {opened:?}, tokenizer built in {built:?}");
        let mut wrong = Vec::new();
        for case in cases.as_array().unwrap() {
            let (text, expected) = (case["text"].as_str().unwrap(), ids(&case[name]));
            let found = tokenizer.encode(text, case["parse_special"].as_bool().unwrap());
            if found != expected {
                wrong.push(format!("{text:?}: expected {expected:?}, found {found:?}"));
            }
        }
        assert!(wrong.is_empty(), "{name}: {} wrong:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[test]
fn decoding_gives_the_text_back() {
    let Some(cases) = json(&golden("llama_cpp/tokenizers.json")) else { return };
    for (name, file) in MODELS {
        let Some((tokenizer, ..)) = open(file) else { continue };
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            // Gemma says `▁` as a space, and SmolLM2 has no token for some bytes.
            if text.contains('▁') && name == "gemma3" {
                continue;
            }
            let ids = tokenizer.encode(text, true);
            let mut stream = StreamDecoder::new();
            let mut streamed = String::new();
            for id in &ids {
                streamed.push_str(stream.push(tokenizer.decode_bytes(*id)));
            }
            streamed.push_str(stream.finish());
            assert_eq!(streamed, text, "{name}");
            assert_eq!(tokenizer.decode(&ids, true), text, "{name}");
        }
    }
}

#[test]
fn special_ids_are_those_of_the_models() {
    let facts = [
        ("smollm2", Some(1), Some(2), Some(2), false, 49_152),
        ("gemma3", Some(2), Some(1), Some(106), true, 262_144),
        ("qwen2", Some(151_643), Some(151_645), Some(151_645), false, 151_936),
    ];
    for ((name, file), (_, bos, eos, eot, add_bos, vocab_size)) in MODELS.into_iter().zip(facts) {
        let Some((tokenizer, ..)) = open(file) else { continue };
        let found = (tokenizer.bos(), tokenizer.eos(), tokenizer.eot(), tokenizer.add_bos());
        assert_eq!(found, (bos, eos, eot, add_bos), "{name}");
        assert_eq!(tokenizer.vocab_size(), vocab_size, "{name}");
        assert!(tokenizer.is_special(eos.unwrap()) && tokenizer.is_end(eos.unwrap()), "{name}");
    }
}

#[test]
fn ids_of_the_tiny_model_equal_those_of_hugging_face() {
    let path = golden("tiny.tokenizer.json");
    let Some(expected) = json(&golden("tiny_expected.json")) else { return };
    let bytes = std::fs::read(&path).unwrap();
    let tokenizer = Tokenizer::from_tokenizer_json(&path, &bytes, &Value::Null, &[]).unwrap();
    for case in expected["tokenizer"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text, true), ids(&case["ids"]), "{text:?}");
        assert_eq!(tokenizer.decode(&ids(&case["ids"]), true), text);
    }
}
