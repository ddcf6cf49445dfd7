//! Models written for other programs: read back they say the same, to the bit where nothing is turned over; llama.cpp and
//! mlx-lm read them, too.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use jackfield_engine::model::export::{ExportLayout, ExportOptions, Exported, export};
use jackfield_engine::model::{Architecture, ModelFiles};
use jackfield_engine::train::{
    Checkpoint, Checkpoints, LoaderPosition, Parameters, States, inspect_checkpoint,
};
use jackfield_engine::{EngineError, Request};
use jackfield_tests::{Setup, answer, golden, root, tiny_model};
use plugin_api::events::HookState;
use serde_json::{Value, json};
use tempfile::TempDir;

const MODELS: [&str; 4] = ["tiny", "tiny_qwen2", "tiny_qwen3", "tiny_gemma3"];
/// Distance of a logit, over the largest: F32 sums in another order, here and in llama.cpp and mlx-lm.
const TOLERANCE: f64 = 1e-4;
/// The same where llama.cpp looks GELU up in a table of 16-bit numbers.
const LLAMA_CPP_GELU: f64 = 2e-3;
const PROMPT: [u32; 7] = [70, 105, 114, 115, 116, 32, 67];
const GREEDY: i64 = 24;

fn change_config(folder: &Path, change: impl Fn(&mut Value)) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
}

/// A tiny model that GGUF has keys for.
fn model(name: &str) -> TempDir {
    let folder = tiny_model(name);
    if name == "tiny_gemma3" {
        change_config(folder.path(), |config| {
            config["query_pre_attn_scalar"] = 32.into();
            config["sliding_window_pattern"] = 6.into();
            config["layer_types"] = json!(["sliding_attention", "sliding_attention"]);
        });
    }
    folder
}

/// A checkpoint of a run on plain text, of which no step was made.
fn checkpoint(folder: &Path) -> PathBuf {
    let config = json!({
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 260,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    });
    let architecture = Architecture::from_json(&config).unwrap();
    let mut parameters = Parameters::random(&architecture, 7).unwrap();
    // Far enough from nothing that some token is clearly the likeliest.
    let all = parameters.0.values_mut().flat_map(|parameter| &mut parameter.values);
    all.filter(|value| **value != 1.0).for_each(|value| *value *= 20.0);
    let mut keeps = HookState::new();
    keeps.set("losses", &[1.0]);
    let checkpoint = Checkpoint {
        step: 3,
        parameters,
        states: States::new(),
        hooks: BTreeMap::from([("early-stop".to_owned(), keeps)]),
        loader: LoaderPosition { epoch: 0, sequences: 0, dataset: None },
        loss: 5.5,
        evaluation: Some(5.25),
        run: "a run".to_owned(),
    };
    Checkpoints::open(folder, 2).unwrap().save(&checkpoint, &config.to_string()).unwrap()
}

fn write(
    from: &Path,
    to: &Path,
    layout: ExportLayout,
    format: &str,
) -> Result<Exported, EngineError> {
    let Setup { wiring, registry, .. } = Setup::new("cpu");
    let options = ExportOptions { layout, format, tokenizer: None };
    export(from, to, &options, &wiring, &registry, &mut |_, _| ())
}

fn setup() -> Setup {
    let mut setup = Setup::new("cpu").set("paged", "dtype", "f32");
    setup.options.logit_rows_max = 16;
    setup
}

/// Logits after every token of the prompt, and greedy tokens after the last.
fn said(path: &Path) -> (Vec<f32>, Vec<u32>) {
    let mut engine = setup().load(path).unwrap_or_else(|error| panic!("{error}"));
    let mut logits = Vec::new();
    engine.evaluate(&PROMPT, 0, 16, &mut |_, row| logits.extend_from_slice(row)).unwrap();
    let request = Request::new(PROMPT.to_vec()).strategy("greedy").with("max_tokens", GREEDY);
    (logits, answer(&mut engine, request.with("ignore_eos", true)).1)
}

/// Largest distance, over the largest logit.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let pairs = found.iter().zip(expected);
    f64::from(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest)
}

fn ids(path: &Path, text: &str) -> Vec<u32> {
    ModelFiles::open(path).unwrap().tokenizer().unwrap().encode(text, true)
}

const TEXT: &str = "The 12 cats' 3rd  hat\n\n is<|eos|> über 東京!";

#[test]
fn a_folder_reads_back_to_the_bit_and_so_does_a_file_but_for_turned_channels() {
    for name in MODELS {
        let (from, out) = (model(name), TempDir::new().unwrap());
        let (logits, tokens) = said(from.path());
        for (layout, file) in [(ExportLayout::HuggingFace, "hf"), (ExportLayout::Gguf, "m.gguf")] {
            let to = out.path().join(file);
            let written = write(from.path(), &to, layout, "F32").unwrap();
            assert!(written.tensors > 10 && written.size_bytes > 100_000, "{written:?}");
            let (found, greedy) = said(&to);
            assert_eq!(greedy, tokens, "{name}, {file}");
            assert_eq!(ids(&to, TEXT), ids(from.path(), TEXT), "{name}, {file}");
            // Llama's file has the channels of queries and keys in another order: sums are too.
            let is_turned = name == "tiny" && layout == ExportLayout::Gguf;
            if is_turned {
                let distance = distance(&found, &logits);
                assert!(distance > 0.0 && distance < 1e-5, "{name}, {file}: {distance}");
            } else {
                assert!(found == logits, "{name}, {file}: {}", distance(&found, &logits));
            }
        }
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 2, "nothing else is left");
    }
}

#[test]
fn half_as_many_bits_say_nearly_the_same_in_both_layouts() {
    let (from, out) = (model("tiny_qwen3"), TempDir::new().unwrap());
    let (logits, _) = said(from.path());
    let size = |format: &str, layout: ExportLayout, name: &str| {
        let to = out.path().join(format!("{format}-{name}"));
        write(from.path(), &to, layout, format).unwrap();
        (said(&to).0, to)
    };
    for (format, near) in [("BF16", 3e-2), ("F16", 3e-3)] {
        let (folder, to) = size(format, ExportLayout::HuggingFace, "hf");
        let (file, _) = size(format, ExportLayout::Gguf, "m.gguf");
        for found in [&folder, &file] {
            let distance = distance(found, &logits);
            assert!(distance > 0.0 && distance < near, "{format}: {distance}");
        }
        let config = std::fs::read(to.join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        let expected = if format == "F16" { "float16" } else { "bfloat16" };
        assert_eq!(config["torch_dtype"], expected);
        let files = ModelFiles::open(&to).unwrap();
        assert!(files.tensors().all(|tensor| tensor.format == Some(format)));
    }
}

#[test]
fn a_checkpoint_of_a_run_on_plain_text_takes_its_bytes_along() {
    let (folder, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let from = checkpoint(folder.path());
    let (logits, tokens) = said(&from);
    for (layout, file) in [(ExportLayout::HuggingFace, "hf"), (ExportLayout::Gguf, "m.gguf")] {
        let to = out.path().join(file);
        write(&from, &to, layout, "F32").unwrap();
        let (found, greedy) = said(&to);
        assert!(distance(&found, &logits) < 1e-5, "{file}");
        assert_eq!(greedy, tokens, "{file}");
        let bytes: Vec<u32> = TEXT.bytes().map(u32::from).collect();
        assert_eq!(ids(&to, TEXT), bytes, "{file}");
    }
    let config = std::fs::read(out.path().join("hf/config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["architectures"][0], "LlamaForCausalLM");
    assert_eq!((&config["head_dim"], &config["tie_word_embeddings"]), (&16.into(), &false.into()));
}

#[test]
fn what_cannot_be_told_in_the_layout_is_named_and_leaves_nothing() {
    let out = TempDir::new().unwrap();
    let to = out.path().join("m.gguf");
    let refused = |name: &str, change: &dyn Fn(&Path)| {
        let from = tiny_model(name);
        change(from.path());
        let error = write(from.path(), &to, ExportLayout::Gguf, "F32").unwrap_err().to_string();
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0, "{error}");
        error
    };
    let config = |change: fn(&mut Value)| move |folder: &Path| change_config(folder, change);
    let error = refused("tiny_gemma3", &|_| ());
    assert!(error.contains("`query_pre_attn_scalar`: expected 32"), "{error}");
    let error = refused("tiny_gemma3", &config(|c| c["query_pre_attn_scalar"] = 32.into()));
    assert!(error.contains("`layer_types`"), "{error}");
    let error = refused("tiny_yarn", &|_| ());
    assert!(
        error.contains("`rope_scaling`: expected none, or a linear one, found yarn"),
        "{error}"
    );
    let error = refused("tiny_mixtral", &|_| ());
    assert!(error.contains("`architectures`: expected one of llama"), "{error}");
    let error = refused("tiny", &|folder| {
        let path = folder.join("tokenizer.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(
            path,
            text.replace(r#""type":"ByteLevel""#, r#""type":"Metaspace""#)
                .replace(r#""type": "ByteLevel""#, r#""type": "Metaspace""#),
        )
        .unwrap();
    });
    assert!(error.contains("tokenizer"), "{error}");
    let error =
        refused("tiny", &|folder| std::fs::remove_file(folder.join("tokenizer.json")).unwrap());
    assert!(error.contains("tokenizer.json"), "{error}");
    // A folder may be there already: it stays as it is.
    std::fs::create_dir(&to).unwrap();
    let from = tiny_model("tiny");
    let error = write(from.path(), &to, ExportLayout::HuggingFace, "F32").unwrap_err().to_string();
    assert!(error.contains("expected a path at which nothing is"), "{error}");
    let error = write(from.path(), &out.path().join("x"), ExportLayout::HuggingFace, "Q4_1");
    assert!(error.unwrap_err().to_string().contains("F32, BF16 or F16, found Q4_1"));
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 1);
}

#[test]
fn a_tokenizer_from_elsewhere_is_taken_along() {
    let (from, out) = (model("tiny_qwen3"), TempDir::new().unwrap());
    let beside = model("tiny");
    std::fs::remove_file(from.path().join("tokenizer.json")).unwrap();
    let Setup { wiring, registry, .. } = Setup::new("cpu");
    let write = |layout, tokenizer: &Path, name: &str| {
        let options = ExportOptions { layout, format: "F32", tokenizer: Some(tokenizer) };
        let to = out.path().join(name);
        export(from.path(), &to, &options, &wiring, &registry, &mut |_, _| ()).map(|_| to)
    };
    for (layout, name) in [(ExportLayout::HuggingFace, "hf"), (ExportLayout::Gguf, "m.gguf")] {
        let to = write(layout, beside.path(), name).unwrap();
        assert_eq!(ids(&to, TEXT), ids(beside.path(), TEXT), "{name}");
        let error = write(layout, from.path(), "none").unwrap_err().to_string();
        assert!(error.contains("expected a folder with `tokenizer.json`"), "{error}");
    }
}

#[test]
fn a_damaged_file_is_named() {
    let folder = TempDir::new().unwrap();
    let path = checkpoint(folder.path());
    let found = inspect_checkpoint(&path).unwrap();
    assert_eq!((found.step, found.loss, &found.damaged[..]), (3, 5.5, &[][..]));
    assert_eq!((found.evaluation, &found.hooks[..]), (Some(5.25), &["early-stop".to_owned()][..]));
    let file = path.join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    std::fs::remove_file(path.join("config.json")).unwrap();
    let found = inspect_checkpoint(&path).unwrap();
    let names: Vec<&str> = found.damaged.iter().map(|damage| damage.file.as_str()).collect();
    assert_eq!(names, ["config.json", "model.safetensors"]);
    std::fs::write(path.join("manifest.json"), "{").unwrap();
    assert!(inspect_checkpoint(&path).unwrap_err().to_string().contains("a manifest"));
}

/// Every model in both layouts, in one folder.
fn write_all(out: &Path) {
    let write = |from: &Path, name: &str, layout| {
        write(from, &out.join(name), layout, "F32").unwrap();
    };
    for name in MODELS {
        // A folder tells everything; mlx-lm wants a layer without a window.
        write(tiny_model(name).path(), name, ExportLayout::HuggingFace);
        write(model(name).path(), &format!("{name}.gguf"), ExportLayout::Gguf);
    }
    let run = TempDir::new().unwrap();
    let bytes = checkpoint(run.path());
    write(&bytes, "bytes", ExportLayout::HuggingFace);
    write(&bytes, "bytes.gguf", ExportLayout::Gguf);
}

/// What peers say of files that are written here: `golden/exported.json`, made by the test below.
#[test]
fn logits_and_tokens_are_those_of_llama_cpp_and_mlx() {
    let expected = std::fs::read(golden("exported.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let out = TempDir::new().unwrap();
    write_all(out.path());
    compare(&expected, out.path());
}

fn compare(expected: &Value, out: &Path) {
    assert_eq!(expected.as_object().unwrap().len(), 2 * (MODELS.len() + 1));
    for (name, theirs) in expected.as_object().unwrap() {
        let (logits, tokens) = said(&out.join(name));
        let last = &logits[logits.len() - logits.len() / PROMPT.len()..];
        let numbers = |key: &str| {
            let list = theirs[key].as_array().unwrap().iter();
            list.map(|x| x.as_f64().unwrap() as f32).collect::<Vec<f32>>()
        };
        let distance = distance(last, &numbers("logits"));
        println!("{name}: {distance:e} of the largest logit");
        let is_coarse = name == "tiny_gemma3.gguf";
        let most = if is_coarse { LLAMA_CPP_GELU } else { TOLERANCE };
        assert!(distance < most, "{name}: {distance}");
        let greedy: Vec<f32> = tokens.iter().map(|&id| id as f32).collect();
        assert_eq!(greedy, numbers("greedy"), "{name}");
        let own: Vec<f32> = ids(&out.join(name), TEXT).iter().map(|&id| id as f32).collect();
        assert_eq!(own, numbers("ids"), "{name}");
    }
}

/// Needs `PYTHON`, an interpreter with the packages that the script names.
#[test]
#[ignore = "peers that have to be there: llama.cpp and mlx-lm read what is written"]
fn llama_cpp_and_mlx_read_what_is_written() {
    let out = TempDir::new().unwrap();
    write_all(out.path());
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let asked = json!({ "prompt": PROMPT, "greedy": GREEDY, "text": TEXT });
    let script = root().join("tests/golden/make/exported.py");
    let mut peers = Command::new(python);
    let made = peers.arg(script).arg(out.path()).arg(asked.to_string()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let found: Value = serde_json::from_slice(&made.stdout).unwrap();
    compare(&found, out.path());
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(golden("exported.json"), made.stdout).unwrap();
    }
}
