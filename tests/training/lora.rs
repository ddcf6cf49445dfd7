//! An adapter of low rank: trained on a frozen model, written as PEFT does, served, merged.

use std::path::Path;

use jackfield_engine::TrainOptions;
use jackfield_engine::model::ModelFiles;
use jackfield_engine::train::{Lora, Parameters, TextLoader, TokenBatch, Trainer};
use jackfield_tests::{Setup, real_model, root, tiny_model};
use plugin_api::testing::random::Random;
use serde_json::Value;

use crate::{LENGTH, architecture, batches, options, parameters, setup, text};

/// Of the largest logit: F32 sums in another order.
const TOLERANCE: f32 = 1e-4;
/// Where the part of the text begins that is not trained on.
const HELD_OUT: usize = 490;
const TARGETS: [&str; 3] = ["q_proj", "v_proj", "down_proj"];

fn fresh() -> Lora {
    Lora::random(&parameters(), &TARGETS, 4, 16.0, 1).unwrap()
}

fn trainer(setup: &Setup, lora: &Lora) -> Trainer {
    let mut architecture = architecture();
    lora.configure(&mut architecture.config);
    let (wiring, registry, bus) = (&setup.wiring, &setup.registry, &setup.bus);
    let clock = std::sync::Arc::new(jackfield_runtime::SystemClock::new());
    let adapted = lora.parameters.clone();
    let options = options();
    let made =
        Trainer::beside(architecture, adapted, parameters(), wiring, registry, bus, clock, options);
    made.unwrap_or_else(|error| panic!("{error}"))
}

/// After some steps, B is no longer zeros.
pub(crate) fn trained() -> (Lora, Vec<f64>) {
    let setup = setup("cpu").with("lr-schedule", "constant");
    let mut text = TextLoader::new(text()[..HELD_OUT].to_vec(), LENGTH, 3).unwrap();
    let mut lora = fresh();
    let mut trainer = trainer(&setup, &lora);
    let losses = (0..12).map(|_| trainer.step(&batches(&mut text)).unwrap().loss).collect();
    lora.parameters = trainer.parameters().clone();
    (lora, losses)
}

pub(crate) fn held_out() -> TokenBatch {
    let text = text();
    let mut batch = TokenBatch::default();
    for start in [HELD_OUT, HELD_OUT + 50, HELD_OUT + 100] {
        let tokens: Vec<u32> = text[start..start + 17].iter().map(|&byte| byte.into()).collect();
        batch.push(&tokens);
    }
    batch
}

pub(crate) fn assert_near(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= TOLERANCE * largest, "{what}: {a}, expected {b}");
    }
}

/// Logits after seven tokens of the model in a folder, with an adapter or without.
pub(crate) fn served(folder: &Path, adapter: Option<&Path>) -> Vec<f32> {
    let mut setup = Setup::new("cpu").set("paged", "dtype", "f32");
    setup.options.logit_rows_max = 8;
    setup.options.adapter = adapter.map(Path::to_path_buf);
    let mut engine = setup.load(folder).unwrap_or_else(|error| panic!("{error}"));
    let mut logits = Vec::new();
    let prompt = [70, 105, 114, 115, 116, 32, 67];
    engine.evaluate(&prompt, 6, 8, &mut |_, row| logits.extend_from_slice(row)).unwrap();
    logits
}

/// Minutes, and 2 GiB: a real model, its own tokenizer, the first words of this project's README.
#[test]
#[ignore = "a minute, and a model that has to be there: losses of SmolLM2-135M with an adapter"]
#[allow(clippy::print_stdout, reason = "the losses are what the run is for")]
fn an_adapter_lowers_the_loss_of_a_real_model_on_held_out_text() {
    let Some(path) = real_model("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct.Q4_1.gguf") else {
        return;
    };
    let setup = Setup::new("cpu").with("lr-schedule", "constant");
    let (wiring, registry, bus) = (&setup.wiring, &setup.registry, &setup.bus);
    let (mut architecture, base) = Parameters::of_model(&path, wiring, registry).unwrap();
    let tokenizer = ModelFiles::open(&path).unwrap().tokenizer().unwrap();
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut ids = tokenizer.encode(&text, false);
    ids.truncate(48 * 32);
    let lora = Lora::random(&base, &["q_proj", "v_proj"], 8, 16.0, 1).unwrap();
    lora.configure(&mut architecture.config);
    let options =
        TrainOptions { learning_rate: 1e-3, num_steps: 8, tokens_max: 128, num_seqs_max: 4 };
    let clock = std::sync::Arc::new(jackfield_runtime::SystemClock::new());
    let adapted = lora.parameters.clone();
    let made = Trainer::beside(architecture, adapted, base, wiring, registry, bus, clock, options);
    let mut trainer = made.unwrap();
    // Every fourth sequence is held out.
    let batch = |keep: &dyn Fn(usize) -> bool| {
        let mut batches = vec![TokenBatch::default()];
        let chunks = ids.chunks(32).enumerate().filter(|(n, chunk)| keep(*n) && chunk.len() == 32);
        for (_, chunk) in chunks {
            if batches.last().unwrap().num_seqs() == 4 {
                batches.push(TokenBatch::default());
            }
            batches.last_mut().unwrap().push(chunk);
        }
        batches
    };
    let (held_out, seen) = (batch(&|n| n % 4 == 3), batch(&|n| n % 4 != 3));
    let mut losses = vec![trainer.evaluate(&held_out).unwrap().0];
    for batch in seen.iter().cycle().take(8) {
        trainer.step(std::slice::from_ref(batch)).unwrap();
    }
    losses.push(trainer.evaluate(&held_out).unwrap().0);
    println!("{} tokens held out, losses before and after: {losses:?}", 12 * 31);
    assert!(losses[1] < losses[0] - 0.02, "{losses:?}");
}

fn with_weights(weights: &Parameters) -> tempfile::TempDir {
    let folder = tiny_model("tiny");
    let bytes = weights.to_safetensors().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    folder
}

#[test]
fn a_fresh_adapter_changes_nothing_and_a_trained_one_lowers_the_loss_of_held_out_text() {
    let (setup, batch) = (setup("cpu"), held_out());
    let mut plain = crate::trainer(&setup);
    let (before, _) = plain.evaluate(std::slice::from_ref(&batch)).unwrap();
    let mut fresh = trainer(&setup, &fresh());
    assert_eq!(fresh.logits(&batch).unwrap(), plain.logits(&batch).unwrap());
    let (lora, losses) = trained();
    let mut adapted = trainer(&setup, &lora);
    let (after, _) = adapted.evaluate(std::slice::from_ref(&batch)).unwrap();
    assert!(after < before - 0.1, "{before} {after}: {losses:?}");
}

#[test]
fn merged_weights_give_the_same_logits_and_so_does_serving_the_files() {
    let (lora, _) = trained();
    let mut merged = parameters();
    lora.merge(&mut merged).unwrap();
    let (setup, batch) = (setup("cpu"), held_out());
    let expected = trainer(&setup, &lora).logits(&batch).unwrap();
    let found = crate::trainer_of(&setup, merged.clone()).logits(&batch).unwrap();
    assert_near("merged", &found, &expected);

    let folder = tempfile::tempdir().unwrap();
    lora.save(folder.path(), "tiny").unwrap();
    assert_eq!(Lora::open(folder.path()).unwrap(), lora);
    let base = tiny_model("tiny");
    let expected = served(with_weights(&merged).path(), None);
    assert_near("served", &served(base.path(), Some(folder.path())), &expected);
    let plain = served(base.path(), None);
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>();
    assert!(distance(&plain, &expected) > 1.0, "the adapter says something");
}

#[test]
fn files_have_the_layout_of_peft() {
    let folder = tempfile::tempdir().unwrap();
    let mut lora = fresh();
    lora.is_stabilized = true;
    lora.save(folder.path(), "user/tiny").unwrap();
    let config = std::fs::read(folder.path().join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["peft_type"], "LORA");
    assert_eq!(config["base_model_name_or_path"], "user/tiny");
    assert_eq!((&config["r"], &config["lora_alpha"]), (&4.into(), &16.0.into()));
    assert_eq!(config["target_modules"], serde_json::json!(["down_proj", "q_proj", "v_proj"]));
    let bytes = std::fs::read(folder.path().join("adapter_model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), 2 * 2 * TARGETS.len());
    let name = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight";
    assert_eq!(file.tensor(name).unwrap().shape(), [32, 4]);
    assert_eq!(Lora::open(folder.path()).unwrap(), lora);
}

#[test]
fn what_cannot_be_adapted_is_named() {
    let base = parameters();
    let error = Lora::random(&base, &["x_proj"], 4, 8.0, 0).unwrap_err().to_string();
    assert!(error.contains("target `x_proj`"), "{error}");
    let error = Lora::random(&base, &TARGETS, 0, 8.0, 0).unwrap_err().to_string();
    assert!(error.contains("rank of the adapter"), "{error}");
    // A weight of another shape.
    let mut lora = fresh();
    let name = "layers.0.self_attn.q_proj.lora_B.weight";
    lora.parameters.0.get_mut(name).unwrap().dims = vec![32, 8];
    let mut merged = base.clone();
    let error = lora.merge(&mut merged).unwrap_err().to_string();
    assert!(error.contains("`layers.0.self_attn.q_proj.weight`"), "{error}");
    assert_eq!(merged, base);
    // Files that say what is not computed here, or that stand where nothing is.
    let (folder, model) = (tempfile::tempdir().unwrap(), tiny_model("tiny"));
    let refused = |change: &dyn Fn(&mut Value), lora: &Lora| {
        lora.save(folder.path(), "tiny").unwrap();
        let path = folder.path().join("adapter_config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
        let mut setup = Setup::new("cpu");
        setup.options.adapter = Some(folder.path().to_path_buf());
        setup.load(model.path()).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(refused(&|_| (), &fresh()), "");
    let error = refused(&|config| config["use_dora"] = true.into(), &fresh());
    assert!(error.contains("`use_dora`: expected false, found true"), "{error}");
    let error = refused(&|config| config["peft_type"] = "IA3".into(), &fresh());
    assert!(error.contains("`peft_type`"), "{error}");
    let mut lora = fresh();
    let mut random = Random::new(1);
    for part in ["lora_A", "lora_B"] {
        let name = format!("layers.0.self_attn.q_proj.{part}.weight");
        let mut parameter = lora.parameters.0[&name].clone();
        parameter.values.iter_mut().for_each(|x| *x = random.signed());
        lora.parameters.0.insert(format!("layers.7.self_attn.q_proj.{part}.weight"), parameter);
    }
    let error = refused(&|_| (), &lora);
    assert!(error.contains("`layers.7.self_attn.q_proj.lora_A.weight` of the adapter"), "{error}");
}

#[test]
fn damaged_files_are_errors_or_load_and_never_panic() {
    let (folder, model) = (tempfile::tempdir().unwrap(), tiny_model("tiny"));
    fresh().save(folder.path(), "tiny").unwrap();
    let mut random = Random::new(5);
    let mut setup = Setup::new("reference");
    setup.options.adapter = Some(folder.path().to_path_buf());
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let path = folder.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        for round in 0..40 {
            let mut bytes = whole.clone();
            if round % 2 == 0 {
                bytes.truncate(random.below(whole.len()));
            } else {
                // In the header, where names and shapes are.
                let at = random.below(whole.len().min(2048));
                bytes[at] = random.below(256) as u8;
            }
            std::fs::write(&path, bytes).unwrap();
            let loaded = setup.load(model.path());
            assert!(round % 2 != 0 || loaded.is_err(), "{name}, round {round}: cut short");
            let _ = Lora::open(folder.path());
        }
        std::fs::write(&path, whole).unwrap();
    }
    assert!(setup.load(model.path()).is_ok());
}
