//! What twenty hooks cost a step of training: the plugin `gradient-monitor`, which listens on each
//! parameter's gradient, linked in, as a shared library and as a component.
//!
//! Run as `cargo bench -p jackfield-tests --bench train_hooks`. The model has 2.4 million parameters, a step
//! 1,024 tokens. Time in hooks is measured by itself, over the events of a step, and put beside the median of steps
//! without hooks: a difference of two runs would drown in their noise.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, or fails")]

use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use jackfield::BuildLane;
use jackfield_engine::model::Architecture;
use jackfield_engine::train::{Parameters, TextLoader};
use jackfield_engine::{TrainOptions, Trainer};
use jackfield_loader::{Grants, Loader, LoaderOptions, Services};
use jackfield_runtime::{Bus, SystemClock};
use jackfield_tests::{Setup, quantile, root};
use plugin_api::events::{
    Subscriptions, TrainAfterBackward, TrainAfterStep, TrainBeforeStep, TrainGradient, TrainLoss,
    TrainLr,
};
use plugin_api::kinds::hook::Hook;
use plugin_api::{Config, Provided};

const HOOKS: usize = 20;
const STEPS: usize = 12;
/// Emissions of all events of a step that are timed.
const ROUNDS: usize = 200;

const MODEL: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256,
"intermediate_size": 683, "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 8,
"head_dim": 32, "vocab_size": 256, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
"rope_theta": 10000.0, "tie_word_embeddings": false}"#;

fn main() {
    let setup = Setup::new("cpu");
    let mut trainer = trainer(&setup);
    let mut text = TextLoader::new((0..=255).cycle().take(1 << 16).collect(), 128, 0).unwrap();
    let mut step = || trainer.step(&[text.batch(8)]).unwrap().step_us as f64;
    step();
    let steps: Vec<f64> = (0..STEPS).map(|_| step()).collect();
    let step_us = quantile(&steps, 0.5);
    let names: Vec<String> = trainer.parameters().0.keys().cloned().collect();
    println!("a step without hooks: {:.1} ms; {} parameters", step_us / 1e3, names.len());
    println!("{HOOKS} hooks       calls a step   ns a call   us a step   of a step");
    let folder = tempfile::tempdir().unwrap();
    for (lane, provided) in lanes(&setup, folder.path()) {
        let (calls, us) = emissions(&provided, &names);
        let (ns, share) = (us * 1e3 / calls as f64, 100.0 * us / step_us);
        println!("{lane:<14} {calls:>9} {ns:>11.0} {us:>11.1} {share:>9.3} %");
    }
}

fn trainer(setup: &Setup) -> Trainer {
    let architecture = Architecture::from_json(&serde_json::from_str(MODEL).unwrap()).unwrap();
    let parameters = Parameters::random(&architecture, 0).unwrap();
    let options =
        TrainOptions { learning_rate: 1e-3, num_steps: 1000, tokens_max: 1024, num_seqs_max: 8 };
    let (wiring, registry, bus) = (&setup.wiring, &setup.registry, &setup.bus);
    let clock = Arc::new(SystemClock::new());
    Trainer::new(architecture, parameters, wiring, registry, bus, clock, options).unwrap()
}

/// The plugin in each lane.
fn lanes(setup: &Setup, folder: &Path) -> Vec<(&'static str, Provided)> {
    let services = Services::new();
    let loader = Loader::new(LoaderOptions {
        folder: folder.join("state"),
        trial: None,
        native_quota: 2,
        wasm: None,
        hashes: Default::default(),
        trusted: Vec::new(),
        unload: Vec::new(),
        host: Arc::new(move |manifest| services.host(&manifest.name, Grants::none())),
        on_fault: Arc::new(|generation, error| panic!("{}: {error}", generation.label())),
    })
    .unwrap();
    let source = root().join("plugins/hook/gradient-monitor");
    let builtin = setup.registry.find("hook", "gradient-monitor").unwrap().clone();
    let mut lanes = vec![("linked in", builtin)];
    for (name, lane, file) in
        [("shared library", BuildLane::Native, "a.so"), ("component", BuildLane::Wasm, "a.wasm")]
    {
        let file = folder.join(file);
        jackfield::build_plugin(&source, lane, Some(&file)).unwrap();
        lanes.push((name, loader.load(&file, &Config::new()).unwrap().provided.remove(0)));
    }
    lanes
}

/// Calls of hooks in a step, and their time in microseconds.
fn emissions(provided: &Provided, names: &[String]) -> (usize, f64) {
    let (bus, services) = (Bus::new(), Services::new());
    let mut calls = 0;
    for i in 0..HOOKS {
        let hook = (provided.make)(&Config::new()).unwrap();
        let mut on = Subscriptions::new();
        hook.downcast::<Box<dyn Hook>>().unwrap().subscribe(&mut on).unwrap();
        for entry in &on.hooks {
            calls += match entry.topic {
                "train-gradient" => names.len(),
                "train-before-checkpoint" | "train-after-restore" => 0,
                _ => 1,
            };
        }
        bus.subscribe(&services.host(&format!("hook-{i}"), Grants::none()), on);
    }
    let mut topics = (
        bus.topic::<TrainBeforeStep<'static>>(),
        bus.topic::<TrainLoss<'static>>(),
        bus.topic::<TrainGradient<'static>>(),
        bus.topic::<TrainAfterBackward<'static>>(),
        bus.topic::<TrainLr<'static>>(),
        bus.topic::<TrainAfterStep<'static>>(),
    );
    let lent = PhantomData;
    let mut round = |step: u64| {
        let start = Instant::now();
        topics.0.refresh();
        let _ = topics.0.emit(&mut TrainBeforeStep { step, tokens: 1024, lent });
        topics.1.refresh();
        let _ = topics.1.emit(&mut TrainLoss { step, micro_batch: 0, loss: 2.0, lent });
        topics.2.refresh();
        for (index, name) in names.iter().enumerate() {
            let mut event = TrainGradient { step, index, name, norm: 0.5, scale: 1.0, lent };
            let _ = topics.2.emit(&mut event);
        }
        topics.3.refresh();
        let mut event =
            TrainAfterBackward { step, loss: 2.0, grad_norm: 1.0, grad_scale: 1.0, lent };
        let _ = topics.3.emit(&mut event);
        topics.4.refresh();
        let _ = topics.4.emit(&mut TrainLr { step, learning_rate: 1e-3, lent });
        topics.5.refresh();
        let (loss, grad_norm, learning_rate, tokens, step_us) = (2.0, 1.0, 1e-3, 1024, 1);
        let mut event =
            TrainAfterStep { step, loss, grad_norm, learning_rate, tokens, step_us, lent };
        let _ = topics.5.emit(&mut event);
        start.elapsed().as_secs_f64() * 1e6
    };
    for step in 0..20 {
        round(step);
    }
    let times: Vec<f64> = (20..20 + ROUNDS as u64).map(round).collect();
    (calls, quantile(&times, 0.5))
}
