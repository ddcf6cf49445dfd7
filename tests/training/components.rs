//! Parts of training as components: what they compute is what they compute builtin, to the bit.

use jackfield_engine::train::{Column, TokenBatch, Verdict};
use jackfield_loader::{Grants, Services};
use jackfield_tests::{Setup, component};

use crate::{batches, loader, setup, trainer};

/// The setup with a plugin of the tree as a component in the place of the builtin one.
pub(crate) fn with_component(state: &std::path::Path, plugin: &str, mut setup: Setup) -> Setup {
    let component = component(state, plugin);
    setup.registry.replace(component.info(), component.provided.clone()).unwrap();
    setup
}

#[test]
fn an_objective_has_the_same_losses() {
    let state = tempfile::tempdir().unwrap();
    let plain = || setup("cpu").with("objective", "dpo").set("dpo", "label_smoothing", 0.1);
    let losses = |setup: &Setup| -> Vec<f64> {
        let mut batch = TokenBatch::default();
        batch.push_pair(&[1, 2, 3], &[4, 5], &[6, 7, 8]);
        batch.push_pair(&[9, 10], &[11, 12], &[13]);
        let mut trainer = trainer(setup);
        let reference = trainer.logprobs(&batch).unwrap();
        batch.set_column("reference_logprobs", Column::F32(reference));
        (0..3).map(|_| trainer.step(std::slice::from_ref(&batch)).unwrap().loss).collect()
    };
    let expected = losses(&plain());
    assert!(expected[2] < expected[0], "{expected:?}");
    assert_eq!(losses(&with_component(state.path(), "objective/dpo", plain())), expected);
}

#[test]
fn early_stop_ends_a_run_where_it_ends_builtin() {
    let state = tempfile::tempdir().unwrap();
    // Nothing gets better by more than this: it ends as soon as it may.
    let plain = || {
        let setup = setup("cpu").with("hook", "early-stop").set("early-stop", "patience", 3);
        setup.set("early-stop", "min_delta", 100.0)
    };
    let steps = |setup: &Setup| {
        setup.subscribe_hooks(|name| Services::new().host(name, Grants::none()));
        let (mut trainer, mut text) = (trainer(setup), loader());
        let verdicts = (0..8).map(|_| trainer.step(&batches(&mut text)).unwrap().verdict);
        verdicts.take_while(|verdict| *verdict == Verdict::Done).count()
    };
    assert_eq!(steps(&plain()), 3);
    assert_eq!(steps(&with_component(state.path(), "hook/early-stop", plain())), 3);
}

#[test]
fn ema_evaluates_with_the_same_averages() {
    let state = tempfile::tempdir().unwrap();
    let plain = || setup("cpu").with("hook", "ema").set("ema", "decay", 0.5);
    let loss = |setup: &Setup| {
        setup.subscribe_hooks(|name| Services::new().host(name, Grants::none()));
        let (mut trainer, mut text) = (trainer(setup), loader());
        for _ in 0..3 {
            trainer.step(&batches(&mut text)).unwrap();
        }
        trainer.evaluate(&batches(&mut text)).unwrap().0
    };
    let expected = loss(&plain());
    assert_eq!(loss(&with_component(state.path(), "hook/ema", plain())), expected);
    let raw = setup("cpu").with("hook", "early-stop");
    assert!(loss(&raw) != expected, "averages are others than the last parameters");
}
