//! What hooks see of a run, and what they may change.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use jackfield_engine::train::{Checkpoints, Verdict};
use jackfield_tests::Setup;
use plugin_api::events::{Flow, Subscriptions};
use plugin_api::testing::machine::Machine;

use crate::{RUN, batches, loader, parameters, setup, trainer};

/// Listens on every topic of training; one line for each event, equal ones counted.
fn trace(setup: &Setup) -> Arc<Mutex<Vec<(String, usize)>>> {
    let said: Arc<Mutex<Vec<(String, usize)>>> = Arc::default();
    let mut on = Subscriptions::new();
    macro_rules! log {
        ($($method:ident: $format:literal $(, $field:ident)*;)*) => {
            $({
                let said = Arc::clone(&said);
                on.$method(move |event, _| {
                    let line = format!(
                        concat!(stringify!($method), " {}", $format), event.step $(, event.$field)*
                    );
                    let mut said = said.lock().unwrap();
                    match said.last_mut() {
                        Some((last, count)) if *last == line => *count += 1,
                        _ => said.push((line, 1)),
                    }
                    Flow::Continue
                });
            })*
        };
    }
    log! {
        train_run_start: " of {}, {} elements", num_steps, num_elements;
        train_epoch: " epoch {}", epoch;
        train_before_step: " tokens {}", tokens;
        train_micro_batch: " micro-batch {}", micro_batch;
        train_loss: " micro-batch {}", micro_batch;
        train_gradient: "";
        train_after_backward: " scale {}", grad_scale;
        train_lr: " rate {:.6}", learning_rate;
        train_update: "";
        train_after_step: " tokens {}", tokens;
        train_weights: "";
        train_before_evaluate: " tokens {}", tokens;
        train_after_evaluate: "";
        train_before_checkpoint: "";
        train_after_checkpoint: "";
        train_after_restore: "";
        train_exception: " {}", error;
        train_run_end: "";
    }
    setup.bus.subscribe(&Machine::new().host("trace"), on);
    said
}

#[test]
fn a_run_of_two_steps_leaves_this_trace() {
    let (setup, folder) = (setup("reference"), tempfile::tempdir().unwrap());
    let checkpoints = Checkpoints::open(folder.path(), 1).unwrap();
    let said = trace(&setup);
    let (mut trainer, mut text) = (trainer(&setup), loader());
    trainer.begin();
    for _ in 0..2 {
        trainer.at_epoch(text.epoch());
        trainer.step(&batches(&mut text)).unwrap();
    }
    trainer.evaluate(&batches(&mut text)[..1]).unwrap();
    let checkpoint = trainer.checkpoint(text.position(), 1.0, RUN);
    let path = checkpoints.save(&checkpoint, "{}").unwrap();
    trainer.saved(checkpoint.step, &path.display().to_string());
    trainer.restore(checkpoint).unwrap();
    trainer.step(&[]).unwrap_err();
    trainer.end();
    let mut trace = String::new();
    for (line, count) in &*said.lock().unwrap() {
        let _ = match count {
            1 => writeln!(trace, "{}", line.trim_end()),
            n => writeln!(trace, "{} x {n}", line.trim_end()),
        };
    }
    assert_eq!(trace, TRACE, "{trace}");
}

/// Two micro-batches a step; the tiny model has 21 parameters.
const TRACE: &str = "\
train_run_start 0 of 50, 158016 elements
train_epoch 0 epoch 0
train_before_step 0 tokens 128
train_micro_batch 0 micro-batch 0
train_micro_batch 0 micro-batch 1
train_loss 0 micro-batch 0
train_loss 0 micro-batch 1
train_gradient 0 x 21
train_after_backward 0 scale 1
train_lr 0 rate 0.000600
train_update 0 x 21
train_after_step 0 tokens 128
train_before_step 1 tokens 128
train_micro_batch 1 micro-batch 0
train_micro_batch 1 micro-batch 1
train_loss 1 micro-batch 0
train_loss 1 micro-batch 1
train_gradient 1 x 21
train_after_backward 1 scale 1
train_lr 1 rate 0.001200
train_update 1 x 21
train_after_step 1 tokens 128
train_weights 2 x 21
train_before_evaluate 2 tokens 64
train_after_evaluate 2
train_before_checkpoint 2
train_after_checkpoint 2
train_after_restore 2
train_before_step 2 tokens 0
train_exception 2 step 2: batch: expected tokens that count, found none
train_run_end 2
";

#[test]
fn hooks_edit_data_gradients_and_parameters() {
    let setup = setup("reference");
    let name = "layers.0.mlp.up_proj.weight";
    let mut on = Subscriptions::new();
    on.train_micro_batch(|event, _| {
        event.weights[1..].fill(0.0);
        Flow::Continue
    });
    on.train_gradient(move |event, _| {
        event.scale = if event.name == name { 1.0 } else { 0.0 };
        Flow::Continue
    });
    on.train_update(|event, _| {
        if event.name == "norm.weight" {
            event.values.fill(0.25);
        }
        Flow::Continue
    });
    setup.bus.subscribe(&Machine::new().host("edits"), on);
    let setup = setup.with("optimizer", "sgd");
    let (mut trainer, mut text) = (trainer(&setup), loader());
    let given = batches(&mut text);
    let found = trainer.step(&given).unwrap();
    let first = parameters();
    for (other, parameter) in &trainer.parameters().0 {
        let has_changed = *parameter != first.0[other];
        assert_eq!(has_changed, other == name || other == "norm.weight", "{other}");
    }
    assert!(trainer.parameters().0["norm.weight"].values.iter().all(|x| *x == 0.25));
    // The loss is that of the two tokens that count: each micro-batch's first.
    let plain = crate::setup("reference");
    let mut expected = given;
    expected.iter_mut().for_each(|batch| batch.weights[1..].fill(0.0));
    let loss = crate::trainer(&plain).step(&expected).unwrap().loss;
    assert_eq!(found.loss, loss);
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error_that_hooks_see() {
    let setup = setup("reference");
    let said = trace(&setup);
    let mut on = Subscriptions::new();
    on.train_micro_batch(|event, _| {
        event.targets[0] = 512;
        Flow::Continue
    });
    setup.bus.subscribe(&Machine::new().host("edits"), on);
    let mut trainer = trainer(&setup);
    let error = trainer.step(&batches(&mut loader())).unwrap_err().to_string();
    assert!(error.contains("tokens below 512"), "{error}");
    assert_eq!(*trainer.parameters(), parameters());
    let (last, _) = said.lock().unwrap().last().cloned().unwrap();
    assert!(last.starts_with("train_exception 0") && last.contains("tokens below 512"), "{last}");
}

#[test]
fn a_veto_after_a_micro_batch_or_a_gradient_leaves_the_step_without_effect() {
    for flow in [Flow::SkipStep, Flow::StopRun] {
        for is_loss in [true, false] {
            let setup = setup("reference");
            let mut on = Subscriptions::new();
            match is_loss {
                true => on.train_loss(move |_, _| flow),
                false => on.train_gradient(
                    move |event, _| {
                        if event.index == 3 { flow } else { Flow::Continue }
                    },
                ),
            }
            setup.bus.subscribe(&Machine::new().host("vetoes"), on);
            let mut trainer = trainer(&setup);
            let report = trainer.step(&batches(&mut loader())).unwrap();
            let expected = if flow == Flow::SkipStep { Verdict::Skipped } else { Verdict::Stopped };
            assert_eq!(report.verdict, expected);
            assert_eq!(*trainer.parameters(), parameters());
        }
    }
}

#[test]
fn averages_are_evaluated_and_the_run_goes_on_as_without_them() {
    let setup = setup("reference");
    let (mut plain, mut text) = (trainer(&setup), loader());
    let held_out = text.clone().batch(4);
    let ema = crate::setup("reference").with("hook", "ema").set("ema", "decay", 0.5);
    ema.subscribe_hooks(|name| Machine::new().host(name));
    let (mut averaged, mut same) = (trainer(&ema), loader());
    let mut expected = parameters();
    let mut last = 0.0;
    for step in 0..4_i32 {
        plain.step(&batches(&mut text)).unwrap();
        averaged.step(&batches(&mut same)).unwrap();
        assert_eq!(plain.parameters(), averaged.parameters());
        let decay = 0.5_f64.min(f64::from(1 + step) / f64::from(10 + step)) as f32;
        for (name, parameter) in &mut expected.0 {
            let values = &plain.parameters().0[name].values;
            for (average, &value) in parameter.values.iter_mut().zip(values) {
                *average = if step == 0 { value } else { decay * *average + (1.0 - decay) * value };
            }
        }
        let weights = averaged.weights().into_owned();
        for (name, parameter) in &expected.0 {
            let pairs = parameter.values.iter().zip(&weights.0[name].values);
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-6), "step {step}, {name}");
        }
        let (raw, _) = plain.evaluate(std::slice::from_ref(&held_out)).unwrap();
        (last, _) = averaged.evaluate(std::slice::from_ref(&held_out)).unwrap();
        assert_eq!(raw == last, step == 0, "step {step}: {raw} {last}");
    }
    assert!(last.is_finite() && last > 0.0);
}
