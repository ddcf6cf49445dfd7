//! What golden vectors say of a plugin holds in every lane of its kind: as a shared library and as a component it gives
//! the bytes that it gives linked in.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::sync::Arc;

use jackfield::BuildLane;
use jackfield_engine::Request;
use jackfield_engine::model::trace::trace_decoder;
use jackfield_engine::model::weights::WeightTable;
use jackfield_engine::model::{Architecture, ModelFiles};
use jackfield_loader::Generation;
use jackfield_tests::{Setup, answer, built, golden, tiny_model};
use plugin_api::kinds::quantizer::Quantizer;
use plugin_api::{Config, testing};
use tempfile::TempDir;

const LANES: [BuildLane; 2] = [BuildLane::Native, BuildLane::Wasm];

/// The default plugins, and `plugin` (`kind/name`) from a file.
fn with_file(state: &TempDir, plugin: &str, lane: BuildLane) -> (Setup, Arc<Generation>) {
    let mut setup = Setup::new("cpu");
    let loaded = built(state.path(), plugin, lane);
    setup.registry.replace(loaded.info(), loaded.provided).unwrap();
    (setup, loaded.generation.unwrap())
}

#[test]
fn quantizers_write_and_read_what_gguf_does() {
    let vectors = fs::read_to_string(golden("vectors.json")).unwrap();
    #[rustfmt::skip]
    let cases = [
        // name    entry          has one way to encode
        ("q4-0",  "gguf_Q4_0",   true),
        ("q4-1",  "gguf_Q4_1",   true),
        ("q5-0",  "gguf_Q5_0",   true),
        ("q8-0",  "gguf_Q8_0",   true),
        ("q4-k",  "gguf_Q4_K",   false),
        ("q6-k",  "gguf_Q6_K",   false),
        ("mxfp4", "gguf_mxfp4",  true),
    ];
    let state = TempDir::new().unwrap();
    for (name, entry, encodes) in cases {
        for lane in LANES {
            let (setup, _) = with_file(&state, &format!("quantizer/{name}"), lane);
            let made = setup.registry.make::<dyn Quantizer>(name, &Config::new()).unwrap();
            testing::golden::check_quantizer(&*made, &vectors, entry, encodes);
        }
    }
}

/// The models are those whose logits are compared with other implementations.
#[test]
fn models_are_traced_to_the_same_bytes() {
    #[rustfmt::skip]
    let cases = [
        ("rotary-embedding/yarn",     "tiny_yarn"),
        ("rotary-embedding/longrope", "tiny_longrope"),
        ("rotary-embedding/linear",   "tiny_linear"),
        ("rotary-embedding/irope",    "tiny_llama4"),
        ("mixer/chunked",             "tiny_llama4"),
        ("mixer/mla",                 "tiny_deepseek_v3"),
        ("mixer/mamba",               "tiny_mamba"),
        ("moe-router/mixtral",        "tiny_mixtral"),
        ("moe-router/deepseek-v3",    "tiny_deepseek_v3"),
        ("moe-router/llama4",         "tiny_llama4"),
        ("feed-forward/moe",          "tiny_gpt_oss"),
    ];
    let state = TempDir::new().unwrap();
    for (plugin, model) in cases {
        let folder = tiny_model(model);
        let files = ModelFiles::open(folder.path()).unwrap();
        let plan = |setup: &Setup| {
            let architecture = Architecture::of(&files).unwrap();
            let parts = setup.wiring.traced(&setup.registry, &architecture).unwrap();
            let weights = WeightTable::of(&files, &architecture).unwrap();
            trace_decoder(&architecture, &parts, &weights).unwrap().to_bytes()
        };
        let expected = plan(&Setup::new("cpu"));
        for lane in LANES {
            let (setup, generation) = with_file(&state, plugin, lane);
            assert!(plan(&setup) == expected, "{plugin} as {lane:?}: another plan");
            // Nobody counts the calls of a library.
            let is_used = lane == BuildLane::Native || generation.calls() > 0;
            assert!(is_used, "{plugin} as {lane:?}: never called");
        }
    }
}

/// Libraries below the plugin export functions for other languages, which a shared library of ours may not.
#[test]
fn grammars_hold_in_a_shared_library_and_components_say_what_they_lack() {
    let (state, model) = (TempDir::new().unwrap(), tiny_model("tiny"));
    let request = || {
        let request = Request::new("Hello").with("max_tokens", 40).with("temperature", 1.0);
        request.with("guided_regex", "(one|two|three)( (one|two|three)){3}").with("seed", 5)
    };
    let expected = answer(&mut Setup::new("cpu").load(model.path()).unwrap(), request()).0;
    assert_eq!(expected.split(' ').count(), 4, "{expected}");
    let engine = |lane| {
        let (setup, generation) = with_file(&state, "logits-processor/guided", lane);
        (setup.load(model.path()).unwrap(), generation)
    };
    let (mut native, _library) = engine(BuildLane::Native);
    assert_eq!(answer(&mut native, request()).0, expected);
    let (mut component, _guest) = engine(BuildLane::Wasm);
    let refused = component.submit(request()).unwrap_err().to_string();
    assert!(refused.contains("the host has lent no vocabulary"), "{refused}");
}
