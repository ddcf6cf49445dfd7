//! Compressors on a model that was just trained, whole: at equal bits they lose less than rounding; scaling by itself changes nothing;
//! what was interrupted comes out the same.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use jackfield_engine::generate::divergence::{Divergence, diverge};
use jackfield_engine::generate::perplexity::Windows;
use jackfield_engine::model::Architecture;
use jackfield_engine::quantize::{
    Calibrated, Quantized, Recipe, SensitiveLayers, Weighed, quantize, scan,
};
use jackfield_engine::train::{
    Checkpoint, Checkpoints, LoaderPosition, Parameters, States, TextLoader,
};
use jackfield_engine::{EngineError, TrainOptions, Trainer};
use jackfield_runtime::SystemClock;
use jackfield_tests::{Setup, golden, real_model, tiny_model};
use serde_json::{Value, json};
use tempfile::TempDir;

const LENGTH: usize = 64;
const SEQUENCES: usize = 8;
const STEPS: u64 = 300;

fn config() -> Value {
    json!({
        "model_type": "llama", "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 256,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": false,
    })
}

/// What the model learns, what compressors learn on, and what nobody has seen.
fn texts() -> [String; 2] {
    let mut text = fs::read_to_string(golden("text.txt")).unwrap();
    let held_out = text.split_off(text.len() - 4000);
    [text, held_out]
}

/// A checkpoint of a run of some steps, in a folder that stays for all tests.
fn model() -> &'static Path {
    static FOLDER: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = FOLDER.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let architecture = Architecture::from_json(&config()).unwrap();
        let parameters = Parameters::random(&architecture, 5).unwrap();
        let setup = Setup::new("cpu").with("lr-schedule", "constant");
        let (tokens_max, num_seqs_max) = (SEQUENCES * LENGTH, SEQUENCES);
        let options =
            TrainOptions { learning_rate: 3e-3, num_steps: STEPS, tokens_max, num_seqs_max };
        let (wiring, registry, bus) = (&setup.wiring, &setup.registry, &setup.bus);
        let clock = Arc::new(SystemClock::new());
        let trainer = Trainer::new(architecture, parameters, wiring, registry, bus, clock, options);
        let mut trainer = trainer.unwrap();
        let [text, _] = texts();
        let mut loader = TextLoader::new(text.into_bytes(), LENGTH, 3).unwrap();
        let mut loss = f64::NAN;
        for _ in 0..STEPS {
            loss = trainer.step(&[loader.batch(SEQUENCES)]).unwrap().loss;
        }
        assert!(loss < 2.6, "{loss}");
        let checkpoint = Checkpoint {
            step: STEPS,
            parameters: trainer.parameters().clone(),
            states: States::new(),
            hooks: BTreeMap::new(),
            loader: LoaderPosition { epoch: 0, sequences: 0, dataset: None },
            loss,
            evaluation: None,
            run: "a run".to_owned(),
        };
        let checkpoints = Checkpoints::open(folder.path(), 2).unwrap();
        let path = checkpoints.save(&checkpoint, &config().to_string()).unwrap();
        (folder, path)
    });
    path
}

fn setup() -> Setup {
    let mut setup = Setup::new("cpu").set("paged", "dtype", "f32");
    setup.options.logit_rows_max = 64;
    setup
}

/// Embedding and head have the same format for all, so that layers alone differ.
fn others() -> [(String, String); 2] {
    ["embed_tokens.weight", "lm_head.weight"].map(|name| (name.to_owned(), "Q8_0".to_owned()))
}

fn write(
    setup: &Setup,
    to: &Path,
    method: &str,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Quantized, EngineError> {
    let (format, compressor) = match method.split_once('+') {
        Some((format, compressor)) => (format, Some(compressor)),
        None => (method, None),
    };
    let ([text, _], others) = (texts(), others());
    let by = |compressor| Calibrated { compressor, text: &text, window: 64, windows_max: 40 };
    let calibrated = compressor.map(by);
    let recipe = Recipe { format, others: &others, tokenizer: None, calibrated, threads: 2 };
    quantize(model(), to, &recipe, &setup.wiring, &setup.registry, progress)
}

/// How far a model is from the one that was trained, on the text that nobody has seen.
fn distance(found: &Path) -> Divergence {
    let setup = setup();
    let [mut reference, mut found] = [model(), found].map(|path| setup.load(path).unwrap());
    let [_, text] = texts();
    let ids = reference.model().tokenizer.encode(&text, false);
    let windows = Windows::Sliding { length: 64, stride: 64 };
    diverge([&mut reference, &mut found], &ids, windows, &|| 0.0, &mut |_, _| true).unwrap()
}

fn made(out: &Path, method: &str) -> (Divergence, f64) {
    let to = out.join(format!("{method}.gguf"));
    write(&setup(), &to, method, &mut |_, _| true).unwrap_or_else(|error| panic!("{error}"));
    let (found, bits) = (distance(&to), Weighed::of(&to).unwrap().bits_per_weight());
    let (kl, perplexity) = (found.kl_mean(), found.found.perplexity());
    println!("{method:10} {bits:.3} bits, KL {kl:.6}, perplexity {perplexity:.4}");
    (found, bits)
}

#[test]
fn compressors_lose_less_than_rounding_at_equal_bits() {
    let out = TempDir::new().unwrap();
    println!("original   perplexity {:.4}", distance(model()).found.perplexity());
    // What of the divergence of rounding is left at most by each. Few channels of a model this small stand out, which is what
    // awq lives on: with a minimum for each group it gains nothing here.
    for (format, compressors) in
        [("Q4_0", &[("gptq", 0.5), ("awq", 0.9)][..]), ("Q4_1", &[("gptq", 0.5)])]
    {
        let (plain, bits) = made(out.path(), format);
        for (compressor, most) in compressors {
            let (found, same) = made(out.path(), &format!("{format}+{compressor}"));
            assert!((bits - same).abs() < 0.02, "{format}+{compressor}: {same} bits, not {bits}");
            let left = found.kl_mean() / plain.kl_mean();
            assert!(left < *most, "{format}+{compressor}: {left} of the divergence of rounding");
        }
    }
}

#[test]
fn what_is_moved_into_weights_is_taken_out_of_what_makes_their_inputs() {
    let out = TempDir::new().unwrap();
    let (plain, _) = made(out.path(), "Q8_0");
    let (found, _) = made(out.path(), "Q8_0+smoothquant");
    // Anything else than the same model would be some nats away.
    assert!(found.kl_mean() < 3.0 * plain.kl_mean() && found.kl_mean() < 1e-2, "{found:?}");
    let moved = Parameters::of_model(
        &out.path().join("Q8_0+smoothquant.gguf"),
        &setup().wiring,
        &setup().registry,
    );
    let norm = "layers.1.input_layernorm.weight";
    let before = Parameters::of_model(model(), &setup().wiring, &setup().registry).unwrap().1;
    assert_ne!(moved.unwrap().1.0[norm].values, before.0[norm].values);
}

#[test]
fn weights_that_predictions_need_keep_more_bits() {
    let out = TempDir::new().unwrap();
    let ([text, _], Setup { wiring, registry, .. }) = (texts(), setup());
    let calibrated = Some(Calibrated { compressor: "", text: &text, window: 64, windows_max: 8 });
    let recipe = Recipe { format: "Q4_0", others: &[], tokenizer: None, calibrated, threads: 2 };
    let found = scan(model(), &recipe, &wiring, &registry, &mut |_, _| true).unwrap();
    assert_eq!(found.len(), 4 * 7 + 2);
    for weight in &found {
        assert!(
            weight.divergence > 0.0 && weight.energy > 0.0 && weight.energy < 1.0,
            "{weight:?}"
        );
        assert!(weight.dispersion > 2.0 && weight.skewness.is_finite(), "{weight:?}");
        let is_looked_up = weight.name == "embed_tokens.weight";
        assert_eq!(weight.kl.is_none(), is_looked_up, "{weight:?}");
    }
    let original = Weighed::of(model()).unwrap();
    let layers = SensitiveLayers::choose(&original, "Q4_0", 0.1, found);
    let kept: u64 = layers
        .weights
        .iter()
        .filter(|weight| layers.chosen.contains(&weight.name))
        .map(|weight| weight.elements)
        .sum();
    assert!(kept > 0 && kept as f64 <= 0.1 * original.elements as f64, "{kept}");
    let more = |format: &str| -> Vec<(String, String)> {
        layers.chosen.iter().map(|name| (name.clone(), format.to_owned())).collect()
    };
    let measured = |name: &str, others: &[(String, String)]| {
        let to = out.path().join(name);
        let recipe =
            Recipe { format: "Q4_0", others, tokenizer: None, calibrated: None, threads: 2 };
        quantize(model(), &to, &recipe, &wiring, &registry, &mut |_, _| true).unwrap();
        let (found, weighed) = (distance(&to), Weighed::of(&to).unwrap());
        println!("{name} {:.3} bits, KL {:.6}", weighed.bits_per_weight(), found.kl_mean());
        (found.kl_mean(), weighed.weight_bytes as f64)
    };
    let (plain, plain_bytes) = measured("plain.gguf", &[]);
    let (mixed, mixed_bytes) = measured("mixed.gguf", &more("Q8_0"));
    println!("{:?}: {} of the loss comes back", layers.chosen, 1.0 - mixed / plain);
    assert!(mixed < 0.5 * plain, "{mixed} {plain}");
    assert!(mixed_bytes <= 1.1 * plain_bytes, "{mixed_bytes} {plain_bytes}");
    let error = scan(model(), &recipe, &wiring, &registry, &mut |done, _| done < 3).unwrap_err();
    assert!(error.to_string().contains("an order to stop after 3 of 30"), "{error}");
}

#[test]
fn interrupted_compression_goes_on_and_comes_out_the_same() {
    let out = TempDir::new().unwrap();
    for method in ["Q4_0+awq", "Q4_1+gptq"] {
        let [whole, parted] = ["a.gguf", "b.gguf"].map(|name| out.path().join(method).join(name));
        fs::create_dir(out.path().join(method)).unwrap();
        write(&setup(), &whole, method, &mut |_, _| true).unwrap();
        // Somewhere in the second layer.
        let error = write(&setup(), &parted, method, &mut |done, _| done < 10).unwrap_err();
        assert!(error.to_string().contains("an order to stop after 10"), "{error}");
        assert!(!parted.exists());
        let again = write(&setup(), &parted, method, &mut |_, _| true).unwrap();
        assert!(again.reused >= 10, "{method}: {}", again.reused);
        assert!(fs::read(&whole).unwrap() == fs::read(&parted).unwrap(), "{method}");
        // With another configuration it is other work.
        fs::remove_file(&parted).unwrap();
        write(&setup(), &parted, method, &mut |done, _| done < 10).unwrap_err();
        let other = setup().set("gptq", "damping", 0.1).set("awq", "steps", 3);
        assert_eq!(write(&other, &parted, method, &mut |_, _| true).unwrap().reused, 0);
        assert!(fs::read(&whole).unwrap() != fs::read(&parted).unwrap(), "{method}");
    }
}

#[test]
fn what_cannot_be_compressed_is_named() {
    let out = TempDir::new().unwrap();
    let to = out.path().join("m.gguf");
    let refused = |setup: &Setup, method: &str, expected: &str| {
        let error = write(setup, &to, method, &mut |_, _| true).unwrap_err().to_string();
        assert!(error.contains(expected), "{method}: {error}");
        assert!(!to.exists());
    };
    refused(&setup(), "Q4_0+squeeze", "squeeze");
    refused(&setup(), "MXFP4+gptq", "compressor `gptq`, `layers.0.");
    refused(&setup(), "MXFP4+gptq", "a format of codes with a scale for each group");
    refused(&setup().set("gptq", "static_groups", false), "Q4_0+gptq", "static_groups");
    let text = "short";
    let calibrated = Some(Calibrated { compressor: "gptq", text, window: 64, windows_max: 4 });
    let recipe = Recipe { format: "Q4_0", others: &[], tokenizer: None, calibrated, threads: 1 };
    let Setup { wiring, registry, .. } = setup();
    let made = quantize(model(), &to, &recipe, &wiring, &registry, &mut |_, _| true);
    let error = made.unwrap_err().to_string();
    assert!(error.contains("text to calibrate on: expected at least"), "{error}");
}

/// Logits of the last of some tokens, whose text is not looked at.
fn logits(model: &Path) -> Vec<f32> {
    let mut engine = setup().load(model).unwrap();
    let (mut logits, prompt) = (Vec::new(), [72, 101, 32, 115, 97, 105, 100, 58, 32, 116]);
    let each = &mut |_: usize, row: &[f32]| logits.extend_from_slice(row);
    engine.evaluate(&prompt, prompt.len() - 1, 512, each).unwrap();
    logits
}

/// Writes a model turned by `quarot`, in F32.
fn turned(from: &Path, to: &Path) -> Result<Quantized, EngineError> {
    let [text, _] = texts();
    let calibrated =
        Some(Calibrated { compressor: "quarot", text: &text, window: 64, windows_max: 2 });
    let recipe = Recipe { format: "F32", others: &[], tokenizer: None, calibrated, threads: 2 };
    let Setup { wiring, registry, .. } = setup();
    quantize(from, to, &recipe, &wiring, &registry, &mut |_, _| true)
}

#[test]
fn a_model_in_turned_channels_says_the_same() {
    let out = TempDir::new().unwrap();
    let folders = ["tiny", "tiny_qwen2", "tiny_qwen3"].map(tiny_model);
    let mut models = vec![("trained", model())];
    models.extend(
        ["plain", "biases", "norms of heads"].into_iter().zip(folders.iter().map(TempDir::path)),
    );
    for (name, from) in models {
        for to in [format!("{name}.gguf"), format!("{name} folder")] {
            let to = out.path().join(to);
            turned(from, &to).unwrap_or_else(|error| panic!("{name}: {error}"));
            let (expected, found) = (logits(from), logits(&to));
            let peak = expected.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
            let most = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            println!("{name}: largest distance {:e} of the largest logit", most / peak);
            assert!(
                expected.len() == found.len() && most < 1e-4 * peak,
                "{name}: {most} of {peak}"
            );
            let Setup { wiring, registry, .. } = setup();
            let [before, after] =
                [from, &to].map(|path| Parameters::of_model(path, &wiring, &registry).unwrap().1);
            for name in
                ["embed_tokens", "lm_head", "layers.0.self_attn.v_proj", "layers.1.mlp.down_proj"]
            {
                let name = format!("{name}.weight");
                let values = |model: &Parameters| model.0.get(&name).map(|p| p.values.clone());
                let before = values(&before).or_else(|| values(&before_of(&before)));
                assert!(values(&after).is_some() && values(&after) != before, "{name}");
            }
            assert!(after.0["norm.weight"].values.iter().all(|gain| *gain == 1.0));
        }
    }
}

/// A model whose head is its table of tokens, with a head.
fn before_of(model: &Parameters) -> Parameters {
    let table = model.0["embed_tokens.weight"].clone();
    Parameters(BTreeMap::from([("lm_head.weight".to_owned(), table)]))
}

/// The model that was trained, some channels of whose products are much larger, as those of large models are.
fn with_outliers(folder: &Path) -> PathBuf {
    let Setup { wiring, registry, .. } = setup();
    let (_, mut parameters) = Parameters::of_model(model(), &wiring, &registry).unwrap();
    for (name, parameter) in &mut parameters.0 {
        let is_reader = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "o_proj"]
            .iter()
            .any(|part| name.ends_with(&format!("{part}.weight")));
        if let (true, [_, width]) = (is_reader, &parameter.dims[..]) {
            for row in parameter.values.chunks_mut(*width as usize) {
                for channel in [3, 40, 77, 101] {
                    row[channel] *= 6.0;
                }
            }
        }
    }
    let path = folder.join("outliers");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("model.safetensors"), parameters.to_safetensors().unwrap()).unwrap();
    for entry in fs::read_dir(model()).unwrap() {
        let file = entry.unwrap();
        if file.file_name() != "model.safetensors" {
            fs::copy(file.path(), path.join(file.file_name())).unwrap();
        }
    }
    path
}

#[test]
fn channels_that_stand_out_cost_less_where_they_are_turned() {
    let out = TempDir::new().unwrap();
    let outliers = with_outliers(out.path());
    let ([text, held_out], others) = (texts(), others());
    let measured = |from: &Path, name: &str, format: &str, compressor: Option<&str>| {
        let to = out.path().join(format!("{name}.gguf"));
        let by = |compressor| Calibrated { compressor, text: &text, window: 64, windows_max: 2 };
        let calibrated = compressor.map(by);
        let recipe = Recipe { format, others: &others, tokenizer: None, calibrated, threads: 2 };
        let Setup { wiring, registry, .. } = setup();
        quantize(from, &to, &recipe, &wiring, &registry, &mut |_, _| true).unwrap();
        let setup = setup();
        let [mut reference, mut found] = [from, &to].map(|path| setup.load(path).unwrap());
        let ids = reference.model().tokenizer.encode(&held_out, false);
        let windows = Windows::Sliding { length: 64, stride: 64 };
        let found = diverge([&mut reference, &mut found], &ids, windows, &|| 0.0, &mut |_, _| true);
        let kl = found.unwrap().kl_mean();
        println!("{name}: KL {kl:.6}");
        kl
    };
    let plain = measured(&outliers, "outliers Q4_0", "Q4_0", None);
    let turned = measured(&outliers, "outliers Q4_0+quarot", "Q4_0", Some("quarot"));
    assert!(turned < 0.7 * plain, "{turned} of {plain} is left");
    measured(model(), "trained Q4_0", "Q4_0", None);
    measured(model(), "trained Q4_0+quarot", "Q4_0", Some("quarot"));
}

#[test]
fn streams_that_meet_more_than_norms_and_products_are_not_turned() {
    let out = TempDir::new().unwrap();
    let to = out.path().join("m.gguf");
    let error = turned(tiny_model("tiny_mixtral").path(), &to).unwrap_err().to_string();
    let expected = "whose weight is no matrix of its own";
    assert!(error.contains("compressor `quarot`") && error.contains(expected), "{error}");
    assert!(!to.exists());
}

/// What turning does to a real model, whose file has 4 bits already.
#[test]
#[ignore = "some minutes"]
fn a_real_model_in_turned_channels_says_the_same() {
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(path) = real_model("SmolLM2-135M-Instruct", file) else { return };
    let out = TempDir::new().unwrap();
    let [text, held_out] = texts();
    // The head becomes a weight of its own.
    let kept = ["embed_tokens.weight", "lm_head.weight"];
    let made = |format: &str, compressor: Option<&str>, kept: &[&str]| {
        let name = format!("{format}{}", compressor.map(|c| format!("+{c}")).unwrap_or_default());
        let to = out.path().join(format!("{name}.gguf"));
        let by = |compressor| Calibrated { compressor, text: &text, window: 64, windows_max: 1 };
        let others: Vec<(String, String)> =
            kept.iter().map(|name| ((*name).to_owned(), "Q8_0".to_owned())).collect();
        let calibrated = compressor.map(by);
        let recipe = Recipe { format, others: &others, tokenizer: None, calibrated, threads: 2 };
        let setup = setup();
        quantize(&path, &to, &recipe, &setup.wiring, &setup.registry, &mut |_, _| true)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let [mut reference, mut found] = [&path, &to].map(|path| setup.load(path).unwrap());
        let ids = reference.model().tokenizer.encode(&held_out, false);
        let windows = Windows::Sliding { length: 128, stride: 128 };
        let found = diverge([&mut reference, &mut found], &ids, windows, &|| 0.0, &mut |_, _| true);
        let found = found.unwrap();
        println!("{name}: KL {:.6}, perplexity {:.4}", found.kl_mean(), found.found.perplexity());
        fs::remove_file(&to).unwrap();
        found.kl_mean()
    };
    // Activations are rounded beside weights of 4 bits, and not beside whole ones.
    let whole = made("F32", None, &[]);
    let turned = made("F32", Some("quarot"), &[]);
    assert!(turned < 1.5 * whole + 1e-3, "{turned}, and {whole} as it is");
    for compressor in [None, Some("quarot")] {
        let kept = if compressor.is_some() { &kept[..] } else { &kept[..1] };
        assert!(made("Q4_0", compressor, kept) < 1.0);
    }
}
