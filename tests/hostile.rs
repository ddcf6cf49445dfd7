//! Damaged model folders: a typed error or a model that answers, never a panic, and nothing half
//! loaded.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;

use jackfield_engine::Request;
use jackfield_tests::{Setup, tiny_model};

/// SplitMix64: the same damage on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % n as u64) as usize
    }
}

/// Loads what is in `folder`; whatever loads must be able to run.
fn try_model(setup: &Setup, folder: &Path) -> Result<(), String> {
    let mut engine = setup.load(folder).map_err(|e| e.to_string())?;
    let request = Request::new(vec![3, 7]).with("max_tokens", 2).with("ignore_eos", true);
    engine.submit(request).map_err(|e| e.to_string())?;
    engine.run_to_end(&mut |_| {}).map_err(|e| e.to_string())
}

fn small() -> Setup {
    let mut setup = Setup::new("reference");
    setup.options.num_seqs_max = 2;
    setup.options.context_length_max = 64;
    setup.options.threads = 1;
    setup
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    let (setup, mut random) = (small(), Random(1));
    let folder = tiny_model("tiny");
    assert_eq!(try_model(&setup, folder.path()), Ok(()));
    let mut refused = 0;
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let path = folder.path().join(file);
        let intact = fs::read(&path).unwrap();
        // The header of the weights is where damage is interesting.
        let reach = intact.len().min(4096);
        for round in 0..120 {
            let mut bytes = intact.clone();
            match round % 3 {
                0 => bytes.truncate(random.below(reach)),
                1 => bytes[random.below(reach)] ^= 1 << random.below(8),
                _ => {
                    let (from, to) = (random.below(reach), random.below(reach));
                    bytes[to] = intact[from];
                }
            }
            fs::write(&path, &bytes).unwrap();
            if let Err(message) = try_model(&setup, folder.path()) {
                assert!(!message.is_empty());
                refused += 1;
            }
        }
        fs::write(&path, &intact).unwrap();
    }
    assert!(refused > 100, "most damage is found: {refused}");
    assert_eq!(try_model(&setup, folder.path()), Ok(()));
}

#[test]
fn hostile_hyperparameters_are_refused_by_name() {
    let setup = small();
    let folder = tiny_model("tiny");
    let path = folder.path().join("config.json");
    let intact: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    #[rustfmt::skip]
    let cases = [
        ("hidden_size",             serde_json::json!(0),                  "hidden_size"),
        ("num_hidden_layers",       serde_json::json!(4_000_000_000_u64),  "num_hidden_layers"),
        ("num_hidden_layers",       serde_json::json!(3),                  "layers.2."),
        ("num_attention_heads",     serde_json::json!(-4),                 "num_attention_heads"),
        ("num_key_value_heads",     serde_json::json!(3),                  "num_key_value_heads"),
        ("head_dim",                serde_json::json!("sixteen"),          "head_dim"),
        ("head_dim",                serde_json::json!(32),                 "reshape"),
        ("rope_theta",              serde_json::json!(0),                  "rope_theta"),
        ("rms_norm_eps",            serde_json::json!(1e9),                "rms_norm_eps"),
        ("max_position_embeddings", serde_json::json!(0),                  "max_position_embeddings"),
        ("architectures",           serde_json::json!(["Perceptron"]),     "Perceptron"),
        ("rope_scaling",            serde_json::json!({"rope_type": "spiral"}), "spiral"),
    ];
    for (key, value, named) in cases {
        let mut config = intact.clone();
        config[key] = value.clone();
        fs::write(&path, config.to_string()).unwrap();
        let message = try_model(&setup, folder.path()).unwrap_err();
        assert!(message.contains(named), "{key} = {value}: {message}");
    }
}

#[test]
fn bad_requests_are_refused_and_lose_nothing() {
    let setup = small();
    let folder = tiny_model("tiny");
    let mut engine = setup.load(folder.path()).unwrap();
    #[rustfmt::skip]
    let cases = [
        (Request::new(Vec::new()),                                 "prompt: expected 1 to 63 tokens, found 0"),
        (Request::new(vec![1; 64]),                                "prompt: expected 1 to 63 tokens, found 64"),
        (Request::new(vec![512]),                                  "prompt: expected token ids below 512, found 512"),
        (Request::new(vec![1]).strategy("oracle"),                 "strategy: expected sample, greedy, prompt-lookup, speculative, beam, self-consistency, chain-of-thought, found oracle"),
        (Request::new(vec![1]).with("temperature", "hot"),         "temperature: expected"),
        (Request::new(vec![1]).with("top_p", 1.5),                 "top_p: expected"),
        (Request::new(vec![1]).with("max_tokens", -1),             "max_tokens: expected"),
    ];
    for (request, expected) in cases {
        let message = engine.submit(request).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert_eq!((engine.num_running(), engine.cache_usage().used), (0, 0));
    }
    engine.submit(Request::new(vec![1]).with("max_tokens", 2)).unwrap();
    engine.run_to_end(&mut |_| {}).unwrap();
}
