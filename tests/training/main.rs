//! Training: the losses of PyTorch from the same weights and batches, and hooks that watch each step.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ablation;
mod components;
mod crashes;
mod curricula;
mod datasets;
mod events;
mod experts;
mod files;
mod gguf;
mod hooks;
mod lora;
mod objectives;
mod rollouts;
mod swaps;

use std::sync::{Arc, Mutex};

use jackfield_engine::model::Architecture;
use jackfield_engine::train::{Checkpoints, Parameters, TextLoader, TokenBatch, Verdict};
use jackfield_engine::{TrainOptions, Trainer};
use jackfield_runtime::SystemClock;
use jackfield_tests::{Setup, golden, root};
use plugin_api::events::{Flow, Subscriptions};
use plugin_api::testing::machine::Machine;

const LENGTH: usize = 16;
const SEQUENCES: usize = 4;
const MICRO_BATCHES: usize = 2;
/// Of a loss in nats: F32 here, F64 in PyTorch.
const TOLERANCE: f64 = 1e-3;

fn text() -> Vec<u8> {
    std::fs::read(root().join("plugin-api/tests/training/text.txt")).unwrap()
}

fn loader() -> TextLoader {
    TextLoader::new(text(), LENGTH, 3).unwrap()
}

fn batches(loader: &mut TextLoader) -> Vec<TokenBatch> {
    (0..MICRO_BATCHES).map(|_| loader.batch(SEQUENCES)).collect()
}

fn architecture() -> Architecture {
    let json = std::fs::read_to_string(golden("tiny.config.json")).unwrap();
    Architecture::from_json(&serde_json::from_str(&json).unwrap()).unwrap()
}

fn parameters() -> Parameters {
    let bytes = std::fs::read(golden("tiny.safetensors")).unwrap();
    Parameters::from_safetensors(&bytes).unwrap()
}

fn setup(backend: &str) -> Setup {
    Setup::new(backend).set("cosine", "warmup_steps", 5).set("cosine", "floor", 0.1)
}

fn options() -> TrainOptions {
    let (tokens_max, num_seqs_max) = (SEQUENCES * LENGTH, SEQUENCES);
    TrainOptions { learning_rate: 3e-3, num_steps: 50, tokens_max, num_seqs_max }
}

fn trainer(setup: &Setup) -> Trainer {
    trainer_of(setup, parameters())
}

fn trainer_of(setup: &Setup, parameters: Parameters) -> Trainer {
    trainer_with(setup, parameters, options().learning_rate)
}

fn trainer_with(setup: &Setup, parameters: Parameters, learning_rate: f64) -> Trainer {
    let options = TrainOptions { learning_rate, ..options() };
    let (wiring, registry, bus) = (&setup.wiring, &setup.registry, &setup.bus);
    let clock = Arc::new(SystemClock::new());
    let made = Trainer::new(architecture(), parameters, wiring, registry, bus, clock, options);
    made.unwrap_or_else(|error| panic!("{error}"))
}

fn losses_are_those_of_pytorch(backend: &str) {
    let expected = std::fs::read_to_string(golden("trainer_losses.txt")).unwrap();
    let expected: Vec<f64> = expected.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(expected.len(), 50);
    let (mut trainer, mut loader) = (trainer(&setup(backend)), loader());
    for (step, expected) in expected.into_iter().enumerate() {
        let report = trainer.step(&batches(&mut loader)).unwrap();
        let found = report.loss;
        let is_near = (found - expected).abs() < TOLERANCE;
        assert!(is_near, "{backend}, step {step}: {found}, PyTorch: {expected}");
        assert_eq!((report.verdict, report.step), (Verdict::Done, step as u64));
    }
}

#[test]
fn losses_on_the_cpu_are_those_of_pytorch() {
    losses_are_those_of_pytorch("cpu");
}

#[test]
fn losses_on_the_reference_are_those_of_pytorch() {
    losses_are_those_of_pytorch("reference");
}

/// What happened, by the hooks of one plugin.
fn listen(
    setup: &Setup,
    answers: impl Fn(&str, u64) -> Flow + Send + Sync + 'static,
) -> Arc<Mutex<Vec<String>>> {
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let answers = Arc::new(answers);
    let mut on = Subscriptions::new();
    macro_rules! log {
        ($($method:ident),*) => {
            $({
                let (said, answers) = (Arc::clone(&said), Arc::clone(&answers));
                on.$method(move |event, _| {
                    let name = stringify!($method);
                    said.lock().unwrap().push(format!("{name} {}", event.step));
                    answers(name, event.step)
                });
            })*
        };
    }
    log!(train_before_step, train_after_backward, train_lr, train_after_step);
    setup.bus.subscribe(&Machine::new().host("test"), on);
    said
}

#[test]
fn hooks_see_the_steps_in_order_and_may_skip_them_or_end_the_run() {
    let setup = setup("reference");
    let said = listen(&setup, |name, step| match (name, step) {
        ("train_before_step", 1) | ("train_after_backward", 2) => Flow::SkipStep,
        ("train_after_step", 3) => Flow::StopRun,
        _ => Flow::Continue,
    });
    let (mut trainer, mut loader) = (trainer(&setup), loader());
    let mut verdicts = Vec::new();
    for step in 0..4 {
        let before = trainer.parameters().clone();
        let report = trainer.step(&batches(&mut loader)).unwrap();
        verdicts.push(report.verdict);
        let has_changed = before != *trainer.parameters();
        assert_eq!(has_changed, [0, 3].contains(&step), "step {step}");
        assert_eq!(report.learning_rate > 0.0, has_changed, "step {step}");
        assert_eq!(report.loss.is_nan(), step == 1, "step {step} computes unless it is vetoed");
    }
    let expected = [Verdict::Done, Verdict::Skipped, Verdict::Skipped, Verdict::Stopped];
    assert_eq!(verdicts, expected);
    let expected = "train_before_step 0, train_after_backward 0, train_lr 0, train_after_step 0, \
                    train_before_step 1, train_after_step 1, \
                    train_before_step 2, train_after_backward 2, train_after_step 2, \
                    train_before_step 3, train_after_backward 3, train_lr 3, train_after_step 3";
    assert_eq!(said.lock().unwrap().join(", "), expected);
}

#[test]
fn a_hook_may_change_the_learning_rate_and_scale_the_gradient() {
    let setup = setup("reference");
    let mut on = Subscriptions::new();
    on.train_lr(|event, _| {
        event.learning_rate = 0.0;
        Flow::Continue
    });
    setup.bus.subscribe(&Machine::new().host("freezes"), on);
    let (mut frozen, mut loader) = (trainer(&setup), loader());
    let report = frozen.step(&batches(&mut loader)).unwrap();
    assert_eq!((report.verdict, report.learning_rate), (Verdict::Done, 0.0));
    assert_eq!(*frozen.parameters(), parameters());
}

#[test]
fn a_broken_gradient_is_an_error_unless_a_hook_skips_it() {
    for is_skipped in [false, true] {
        let setup = setup("reference");
        if is_skipped {
            let mut on = Subscriptions::new();
            on.train_after_backward(|event, _| {
                if event.grad_norm.is_finite() { Flow::Continue } else { Flow::SkipStep }
            });
            setup.bus.subscribe(&Machine::new().host("skips"), on);
        }
        let (mut trainer, mut loader) = (trainer(&setup), loader());
        let mut broken = batches(&mut loader);
        broken[1].weights[3] = f32::NAN;
        let before = trainer.parameters().clone();
        match trainer.step(&broken) {
            Ok(report) => assert_eq!((is_skipped, report.verdict), (true, Verdict::Skipped)),
            Err(error) => {
                let error = error.to_string();
                let is_named = error.contains("step 0: loss and length of the gradient");
                assert!(is_named && !is_skipped, "{error}");
            }
        }
        assert_eq!(before, *trainer.parameters(), "parameters are as before");
        assert_eq!(trainer.step(&batches(&mut loader)).unwrap().verdict, Verdict::Done);
    }
}

const RUN: &str = "a run";

#[test]
fn a_resumed_run_has_the_bits_of_one_that_was_not_interrupted() {
    let (setup, folder) = (setup("reference"), tempfile::tempdir().unwrap());
    let checkpoints = Checkpoints::open(folder.path(), 2).unwrap();
    let (mut whole, mut text) = (trainer(&setup), loader());
    for step in 0..4 {
        let loss = whole.step(&batches(&mut text)).unwrap().loss;
        if step < 3 {
            checkpoints.save(&whole.checkpoint(text.position(), loss, RUN), "{}").unwrap();
        }
    }
    let (mut resumed, mut text) = (trainer(&setup), loader());
    let latest = checkpoints.load_latest(RUN, |path, error| panic!("{}: {error}", path.display()));
    let latest = latest.unwrap().unwrap();
    text.seek(latest.loader.clone()).unwrap();
    resumed.restore(latest).unwrap();
    assert_eq!(resumed.num_steps_done(), 3);
    resumed.step(&batches(&mut text)).unwrap();
    let run = |trainer: &mut Trainer| trainer.checkpoint(text.position(), 0.0, RUN);
    assert!(run(&mut resumed) == run(&mut whole), "parameters, states and place in the text");
    // Two are kept, and the one of the least loss, which is one of them or older.
    let count = std::fs::read_dir(folder.path()).unwrap().count();
    assert!((2..=3).contains(&count), "{count} checkpoints");
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let (setup, folder) = (setup("reference"), tempfile::tempdir().unwrap());
    let checkpoints = Checkpoints::open(folder.path(), 3).unwrap();
    let mut trainer = trainer(&setup);
    let mut checkpoint = trainer.checkpoint(loader().position(), 1.0, RUN);
    for step in 1..=3 {
        checkpoint.step = step;
        checkpoints.save(&checkpoint, "{}").unwrap();
    }
    let latest = || {
        let mut said = Vec::new();
        let latest = checkpoints.load_latest(RUN, |_, error| said.push(error.to_string())).unwrap();
        (latest.map(|checkpoint| checkpoint.step), said)
    };
    assert_eq!(latest(), (Some(3), Vec::new()));
    let file = |step: u64, name: &str| folder.path().join(format!("step-{step:08}")).join(name);
    // Cut short anywhere, or with one bit turned, it is passed over and said so.
    let whole = std::fs::read(file(3, "model.safetensors")).unwrap();
    for cut in (0..20).map(|i| i * whole.len() / 20) {
        std::fs::write(file(3, "model.safetensors"), &whole[..cut]).unwrap();
        let (step, said) = latest();
        assert_eq!((step, said.len()), (Some(2), 1), "{said:?}");
        assert!(said[0].contains("`model.safetensors` of"), "{said:?}");
    }
    let mut turned = whole.clone();
    turned[whole.len() / 2] ^= 1;
    std::fs::write(file(3, "model.safetensors"), turned).unwrap();
    std::fs::remove_file(file(2, "states.safetensors")).unwrap();
    let (step, said) = latest();
    assert_eq!((step, said.len()), (Some(1), 2), "{said:?}");
    std::fs::write(file(1, "manifest.json"), "{").unwrap();
    assert_eq!(latest().0, None);
    // What another run left is not taken, nor what was not finished.
    std::fs::write(file(3, "model.safetensors"), whole).unwrap();
    std::fs::create_dir(folder.path().join("step-00000009.new")).unwrap();
    assert_eq!(latest(), (Some(3), Vec::new()));
    let other = checkpoints.load_latest("another", |_, _| ()).unwrap();
    assert!(other.is_none());
}
