//! Adapters beside models of either layout and merged into their weights: the same answers, or how far they are off.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};

use jackfield_engine::model::export::{ExportLayout, ExportOptions, Merged, export, merge};
use jackfield_engine::model::gguf::{Gguf, GgufValue, GgufWriter};
use jackfield_engine::train::{Lora, Parameters};
use jackfield_tests::{Setup, real_model, tiny_model};
use plugin_api::testing::random::Random;
use tempfile::TempDir;

const TARGETS: [&str; 4] = ["q_proj", "k_proj", "v_proj", "down_proj"];
/// Of the largest logit: F32 sums in another order.
const TOLERANCE: f64 = 1e-4;
const PROMPT: [u32; 12] = [70, 105, 114, 115, 116, 32, 67, 3, 400, 17, 17, 250];

/// An adapter of a model that says something.
fn adapter(model: &Path, size: f32) -> TempDir {
    let Setup { wiring, registry, .. } = Setup::new("cpu");
    let (_, base) = Parameters::of_model(model, &wiring, &registry).unwrap();
    let mut lora = Lora::random(&base, &TARGETS, 4, 16.0, 1).unwrap();
    let mut random = Random::new(2);
    for (name, parameter) in &mut lora.parameters.0 {
        if name.contains("lora_B") {
            parameter.values.iter_mut().for_each(|x| *x = size * random.signed());
        }
    }
    let folder = TempDir::new().unwrap();
    lora.save(folder.path(), "tiny").unwrap();
    folder
}

/// Logits after every token of the prompt.
fn logits(model: &Path, adapter: Option<&Path>) -> Vec<f32> {
    let mut setup = Setup::new("cpu").set("paged", "dtype", "f32");
    setup.options.logit_rows_max = 16;
    setup.options.adapter = adapter.map(Path::to_path_buf);
    let mut engine = setup.load(model).unwrap_or_else(|error| panic!("{error}"));
    let mut logits = Vec::new();
    engine.evaluate(&PROMPT, 0, 16, &mut |_, row| logits.extend_from_slice(row)).unwrap();
    logits
}

/// Largest distance, over the largest logit.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let pairs = found.iter().zip(expected);
    f64::from(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest)
}

fn gguf(model: &Path, to: PathBuf) -> PathBuf {
    let Setup { wiring, registry, .. } = Setup::new("cpu");
    let options = ExportOptions { layout: ExportLayout::Gguf, format: "F32", tokenizer: None };
    export(model, &to, &options, &wiring, &registry, &mut |_, _| ()).unwrap();
    to
}

fn merged(model: &Path, adapter: &Path, to: &Path) -> Merged {
    let Setup { wiring, registry, .. } = Setup::new("cpu");
    let merged = merge(model, adapter, to, &wiring, &registry, &mut |_, _| ());
    merged.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn an_adapter_says_the_same_beside_either_layout_and_merged_into_f32() {
    // In files of Llama rows of queries and keys lie in another order, which adapters do not have.
    for name in ["tiny", "tiny_qwen3"] {
        let (model, out) = (tiny_model(name), TempDir::new().unwrap());
        let adapter = adapter(model.path(), 0.05);
        let file = gguf(model.path(), out.path().join("m.gguf"));
        let plain = logits(model.path(), None);
        let expected = logits(model.path(), Some(adapter.path()));
        assert!(distance(&plain, &expected) > 0.01, "the adapter says something");
        let beside = distance(&logits(&file, Some(adapter.path())), &expected);
        assert!(beside < TOLERANCE, "{name}, beside a GGUF file: {beside}");
        for (model, to) in [(model.path(), "merged"), (&file, "merged.gguf")] {
            let to = out.path().join(to);
            let found = merged(model, adapter.path(), &to);
            assert!(!found.is_lossy());
            assert_eq!(found.weights.len(), 2 * TARGETS.len());
            assert!(found.weights.values().all(|w| w.bits_changed > 0 && w.change_rms > 0.0));
            let distance = distance(&logits(&to, None), &expected);
            println!("{name}, {}: {distance:e}", to.display());
            assert!(distance < TOLERANCE, "{name}, {}: {distance}", to.display());
        }
    }
}

/// A GGUF file whose matrices are encoded in a format by its quantizer, norms as they are.
fn quantized(file: &Path, format: &str, to: &Path) {
    let Setup { wiring, registry, .. } = Setup::new("cpu");
    let quantizers = wiring.quantizers(&registry).unwrap();
    let (_, quantizer) = &quantizers[format];
    let (gguf, mut writer) = (Gguf::open(file).unwrap(), GgufWriter::new());
    for key in gguf.metadata().keys() {
        writer.pair(key, &gguf.metadata().get(key).unwrap());
    }
    let mut all = Vec::new();
    for tensor in gguf.tensors() {
        let (chunks, _) = gguf.bytes(tensor).as_chunks::<4>();
        let values: Vec<f32> = chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let is_whole = tensor.dims.len() == 1 || !tensor.dims[1].is_multiple_of(32);
        let mut bytes = gguf.bytes(tensor).to_vec();
        if !is_whole {
            bytes = vec![0; quantizer.format().size_bytes(values.len()).unwrap()];
            quantizer.encode(&values, None, &mut bytes).unwrap();
        }
        let format = if is_whole { "F32" } else { format };
        writer.tensor(&tensor.name, &tensor.dims, format).unwrap();
        all.push(bytes);
    }
    writer.pair("general.quantization_version", &GgufValue::U32(2));
    writer.write(&mut std::fs::File::create(to).unwrap(), |index| Ok(all[index].clone())).unwrap();
}

#[test]
fn merging_into_formats_of_fewer_bits_says_what_it_loses() {
    let (model, out) = (tiny_model("tiny"), TempDir::new().unwrap());
    let file = gguf(model.path(), out.path().join("m.gguf"));
    let adapter = adapter(model.path(), 0.05);
    let mut before = f64::INFINITY;
    for (format, most) in [("Q4_1", 0.5), ("Q8_0", 0.05), ("BF16", 0.02)] {
        let base = out.path().join(format!("{format}.gguf"));
        quantized(&file, format, &base);
        let to = out.path().join(format!("{format}-merged.gguf"));
        let found = merged(&base, adapter.path(), &to);
        assert!(found.is_lossy());
        let expected = logits(&base, Some(adapter.path()));
        let distance = distance(&logits(&to, None), &expected);
        let worst = found.weights.values().map(|weight| weight.error_rms / weight.change_rms);
        let worst = worst.fold(0.0, f64::max);
        println!("{format}: logits off by {distance:.4}, errors up to {worst:.3} of the change");
        assert!(distance < most && distance < before, "{format}: {distance}");
        before = distance;
        for (name, weight) in &found.weights {
            let is_encoded = weight.format == format;
            assert!(is_encoded || weight.format == "F32", "{name}: {}", weight.format);
            assert_eq!(weight.error_max > 0.0, is_encoded, "{name}");
            assert!(weight.bits_changed > 0 && weight.bits_changed < weight.bits, "{name}");
        }
        // Everything else is as it was.
        let (old, new) = (Gguf::open(&base).unwrap(), Gguf::open(&to).unwrap());
        assert!(old.metadata().keys().eq(new.metadata().keys()));
        for (a, b) in old.tensors().iter().zip(new.tensors()) {
            let is_same = old.bytes(a) == new.bytes(b);
            let is_adapted =
                ["attn_q", "attn_k", "attn_v", "ffn_down"].iter().any(|part| a.name.contains(part));
            assert_eq!((&a.name, a.type_id, is_same), (&b.name, b.type_id, !is_adapted));
        }
    }
}

#[test]
fn what_cannot_be_merged_is_named_and_leaves_nothing() {
    let (model, out) = (tiny_model("tiny"), TempDir::new().unwrap());
    let folder = adapter(model.path(), 0.05);
    let mut lora = Lora::open(folder.path()).unwrap();
    let name = "layers.1.mlp.down_proj.lora_B.weight";
    let weight = lora.parameters.0.remove(name).unwrap();
    let refused = |lora: &Lora| {
        let (folder, Setup { wiring, registry, .. }) = (TempDir::new().unwrap(), Setup::new("cpu"));
        lora.save(folder.path(), "tiny").unwrap();
        let to = out.path().join("to");
        let done = merge(model.path(), folder.path(), &to, &wiring, &registry, &mut |_, _| ());
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
        done.unwrap_err().to_string()
    };
    let error = refused(&lora);
    assert!(error.contains("`layers.1.mlp.down_proj.weight`: expected a lora_A and"), "{error}");
    lora.parameters.0.insert(name.to_owned(), weight);
    let b = lora.parameters.0.get_mut(name).unwrap();
    (b.dims, b.values) = (vec![32, 4], vec![0.0; 128]);
    let error = refused(&lora);
    assert!(error.contains("`layers.1.mlp.down_proj.weight`: expected [64, 176]"), "{error}");
}

#[test]
#[ignore = "a minute, and a model that has to be there: SmolLM2-135M with an adapter merged, F32 and Q4_1"]
fn a_real_model_says_the_same_merged_in_f32_and_how_far_it_is_off_in_q4_1() {
    let Some(path) = real_model("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct.Q4_1.gguf") else {
        return;
    };
    let out = TempDir::new().unwrap();
    let adapter = adapter(&path, 0.02);
    let f32s = out.path().join("f32");
    let Setup { wiring, registry, .. } = Setup::new("cpu");
    let (_, base) = Parameters::of_model(&path, &wiring, &registry).unwrap();
    std::fs::create_dir(&f32s).unwrap();
    std::fs::write(f32s.join("model.safetensors"), base.to_safetensors().unwrap()).unwrap();
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "vocab_size": 49152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0, "tie_word_embeddings": true,
    });
    std::fs::write(f32s.join("config.json"), config.to_string()).unwrap();
    let tokenizer = jackfield_tests::golden("tiny.tokenizer.json");
    std::fs::copy(tokenizer, f32s.join("tokenizer.json")).unwrap();
    for (model, to, most) in [(&f32s, "merged", 1e-4), (&path, "merged.gguf", 1.0)] {
        let to = out.path().join(to);
        let found = merged(model, adapter.path(), &to);
        let plain = distance(&logits(model, None), &logits(model, Some(adapter.path())));
        let distance = distance(&logits(&to, None), &logits(model, Some(adapter.path())));
        println!(
            "lossy: {}, the adapter moves logits by {plain:.4}, merging by {distance:e}",
            found.is_lossy()
        );
        assert!(distance < most, "{distance}");
    }
}
