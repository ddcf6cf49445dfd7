//! Mixtures of experts in training: the served model learns, routers stay even, experts take so much and no more.

use jackfield_engine::train::Checkpoint;
use jackfield_tests::tiny_model;
use serde_json::{Value, json};

use super::*;

/// The tiny Mixtral of the golden vectors with changes to its hyperparameters.
fn mixture(changes: &Value) -> (Architecture, Parameters) {
    let folder = tiny_model("tiny_mixtral");
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    std::fs::write(&path, config.to_string()).unwrap();
    let Setup { wiring, registry, .. } = Setup::new("cpu");
    Parameters::of_model(folder.path(), &wiring, &registry).unwrap()
}

/// A router of the tiny one that likes the first expert most: what comes in has a part that is the same for all.
fn uneven(parameters: &mut Parameters) {
    for (name, parameter) in &mut parameters.0 {
        if name.ends_with("router.weight") {
            let width = parameter.dims[1] as usize;
            let other = parameter.values[width..2 * width].to_vec();
            // The first two always score alike but for a part, and higher than others.
            parameter.values[..width].copy_from_slice(&other);
            parameter.values[..width].iter_mut().for_each(|x| *x *= 3.0);
        }
    }
}

fn made(setup: &Setup, model: (Architecture, Parameters)) -> Trainer {
    let (architecture, parameters) = model;
    let clock = Arc::new(SystemClock::new());
    let (wiring, registry, bus) = (&setup.wiring, &setup.registry, &setup.bus);
    let made = Trainer::new(architecture, parameters, wiring, registry, bus, clock, options());
    made.unwrap_or_else(|error| panic!("{error}"))
}

/// Losses of some steps.
fn losses(trainer: &mut Trainer, steps: usize) -> Vec<f64> {
    let mut loader = loader();
    (0..steps).map(|_| trainer.step(&batches(&mut loader)).unwrap().loss).collect()
}

#[test]
fn a_mixture_learns_and_serves_what_it_learnt() {
    let [mut on_cpu, mut on_reference] =
        ["cpu", "reference"].map(|backend| made(&setup(backend), mixture(&json!({}))));
    let (found, expected) = (losses(&mut on_cpu, 30), losses(&mut on_reference, 5));
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-3, "{found}, and {expected} on the reference");
    }
    assert!(found[29] < found[0] - 1.0, "{found:?}");
    let (_, golden_ones) = mixture(&json!({}));
    for ((name, now), (_, before)) in on_cpu.parameters().0.iter().zip(&golden_ones.0) {
        assert_ne!(now.values, before.values, "{name} learns");
    }

    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path(), 1).unwrap();
    let loader = loader();
    let checkpoint: Checkpoint = on_cpu.checkpoint(loader.position(), found[29], "a run");
    let config = std::fs::read_to_string(golden("tiny_mixtral.config.json")).unwrap();
    let path = checkpoints.save(&checkpoint, &config).unwrap();
    let setup = Setup::new("cpu").set("paged", "dtype", "f32");
    let mut engine = setup.load(&path).unwrap();
    let mut batch = TokenBatch::default();
    let prompt = [5, 17, 300, 42, 7, 99];
    batch.push(&[&prompt[..], &[3]].concat());
    let expected = on_cpu.logits(&batch).unwrap();
    let mut served = Vec::new();
    let each = &mut |_: usize, row: &[f32]| served.extend_from_slice(row);
    engine.evaluate(&prompt, prompt.len() - 1, 512, each).unwrap();
    let last = &expected[expected.len() - served.len()..];
    let peak = last.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
    for (found, expected) in served.iter().zip(last) {
        assert!((found - expected).abs() < 1e-4 * peak, "{found}, not {expected}");
    }
}

/// The largest load of an expert in the last step, over the mean, for each router.
fn peaks(trainer: &Trainer) -> Vec<f32> {
    let peak = |(_, load): (String, &[f32])| {
        let mean = load.iter().sum::<f32>() / load.len() as f32;
        load.iter().copied().fold(0.0, f32::max) / mean
    };
    trainer.expert_loads().map(peak).collect()
}

#[test]
fn a_balance_loss_and_biases_that_follow_the_load_keep_routers_even() {
    let train = |setup: &Setup, changes: Value, has_biases: bool| {
        let (architecture, mut parameters) = mixture(&changes);
        uneven(&mut parameters);
        if has_biases {
            for layer in 0..2 {
                let name = format!("layers.{layer}.mlp.router.e_score_correction_bias");
                let bias =
                    jackfield_engine::train::Parameter { dims: vec![4], values: vec![0.0; 4] };
                parameters.0.insert(name, bias);
            }
        }
        let mut trainer = made(setup, (architecture, parameters));
        let first = losses(&mut trainer, 1)[0];
        let before = peaks(&trainer);
        losses(&mut trainer, 40);
        let biases = trainer.parameters().0.iter().filter(|(name, _)| name.ends_with("_bias"));
        let biases: Vec<Vec<f32>> = biases.map(|(_, p)| p.values.clone()).collect();
        (first, before, peaks(&trainer), biases)
    };
    let plain = train(&setup("cpu"), json!({}), false);
    let balanced = json!({ "output_router_logits": true, "router_aux_loss_coef": 5.0,
        "router_z_loss_coef": 0.001 });
    let balanced = train(&setup("cpu"), balanced, false);
    // One for each of two routers at least, and what the logits of the routers are.
    assert!(balanced.0 > plain.0 + 0.2, "{} {}", balanced.0, plain.0);
    assert_eq!(plain.1, balanced.1, "the first step counts before it changes anything");
    let worst = |peaks: &[f32]| peaks.iter().copied().fold(0.0, f32::max);
    println!("plain {:?}, with a balance loss {:?}", plain.2, balanced.2);
    assert!(worst(&balanced.2) < 1.0 + 0.6 * (worst(&plain.2) - 1.0), "{plain:?} {balanced:?}");

    let sigmoid = setup("cpu").with("moe-router", "deepseek-v3");
    let without = train(&sigmoid, json!({ "router_bias_update_rate": 0.0 }), true);
    assert_eq!(without.3, [[0.0; 4]; 2], "no optimizer touches them");
    let steered = train(&sigmoid, json!({ "router_bias_update_rate": 0.02 }), true);
    println!("without biases {:?}, with {:?}", without.2, steered.2);
    assert_eq!(without.1, steered.1);
    assert!(steered.3.iter().flatten().all(|bias| bias.abs() <= 41.0 * 0.02 + 1e-6));
    assert!(worst(&steered.2) < 1.0 + 0.6 * (worst(&without.2) - 1.0), "{without:?} {steered:?}");
}

#[test]
fn what_an_expert_has_no_room_for_goes_past_it() {
    let loss = |changes: Value| losses(&mut made(&setup("cpu"), mixture(&changes)), 1)[0];
    let (whole, wide) = (loss(json!({})), loss(json!({ "expert_capacity_factor": 4.0 })));
    let (narrow, none) = (
        loss(json!({ "expert_capacity_factor": 1.0 })),
        loss(json!({ "expert_capacity_factor": 0.01 })),
    );
    assert!((whole - wide).abs() < 1e-5, "with room for all: {wide}, not {whole}");
    assert!(
        (whole - narrow).abs() > 1e-4 && (narrow - none).abs() > 1e-4,
        "{whole} {narrow} {none}"
    );
    // Capacity is of training: what is measured is what serves.
    let measured = |changes: Value| {
        let mut trainer = made(&setup("cpu"), mixture(&changes));
        trainer.evaluate(&batches(&mut loader())).unwrap().0
    };
    let capped = measured(json!({ "expert_capacity_factor": 1.0 }));
    assert_eq!(capped.to_bits(), measured(json!({})).to_bits());
    let (architecture, parameters) = mixture(&json!({ "expert_capacity_factor": -1.0 }));
    let Setup { wiring, registry, bus, .. } = setup("cpu");
    let clock = Arc::new(SystemClock::new());
    let made = Trainer::new(architecture, parameters, &wiring, &registry, &bus, clock, options());
    let error = made.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("expert_capacity_factor"), "{error}");
}

#[test]
fn a_mixture_from_nothing_has_experts() {
    let (architecture, _) = mixture(&json!({}));
    let parameters = Parameters::random(&architecture, 3).unwrap();
    let (_, golden) = mixture(&json!({}));
    let shapes = |p: &Parameters| -> Vec<(String, Vec<u64>)> {
        p.0.iter().map(|(name, p)| (name.clone(), p.dims.clone())).collect()
    };
    assert_eq!(shapes(&parameters), shapes(&golden));
    let mut trainer = made(&setup("cpu"), (architecture, parameters));
    let found = losses(&mut trainer, 20);
    assert!(found[19] < found[0] - 0.5, "{found:?}");
}
