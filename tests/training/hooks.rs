//! What hooks keep goes into checkpoints and comes back.

use std::path::Path;

use jackfield_engine::train::{Checkpoint, Checkpoints};
use jackfield_engine::{Trainer, Wiring};
use jackfield_loader::{Grants, Services};
use jackfield_tests::Setup;
use plugin_api::events::{Flow, Subscriptions};
use plugin_api::testing::machine::Machine;
use plugin_api::{Config, Value};

use crate::components::with_component;
use crate::{RUN, batches, loader, setup, trainer};

const STATEFUL: [&str; 4] = ["early-stop", "ema", "gradient-monitor", "skip-broken-steps"];

fn watched() -> Setup {
    let hooks = Value::List(STATEFUL.map(|hook| Value::Text(hook.to_owned())).to_vec());
    let config = Config::new().with("plugins", Config::at("plugins").with("hook", hooks));
    let mut setup = setup("cpu");
    setup.wiring = Wiring::from_config(&config).unwrap();
    setup.wiring.choose("backend", "cpu");
    setup
}

fn with_hooks(setup: &Setup) -> Trainer {
    setup.subscribe_hooks(|name| Services::new().host(name, Grants::none()));
    trainer(setup)
}

/// The checkpoint after three steps, through the disk, and the whole run after a fourth with its evaluation.
fn interrupted(folder: &Path) -> (Checkpoint, Checkpoint, f64) {
    let checkpoints = Checkpoints::open(folder, 2).unwrap();
    let (mut whole, mut text) = (with_hooks(&watched()), loader());
    for _ in 0..3 {
        whole.step(&batches(&mut text)).unwrap();
    }
    checkpoints.save(&whole.checkpoint(text.position(), 1.0, RUN), "{}").unwrap();
    whole.step(&batches(&mut text)).unwrap();
    let loss = whole.evaluate(&batches(&mut loader())).unwrap().0;
    let passed_over = |path: &Path, error: &_| panic!("{}: {error}", path.display());
    let latest = checkpoints.load_latest(RUN, passed_over).unwrap().unwrap();
    (latest, whole.checkpoint(text.position(), 1.0, RUN), loss)
}

/// Goes on with these hooks; the run after the fourth step, and its evaluation.
fn resumed(setup: &Setup, latest: Checkpoint) -> (Checkpoint, f64) {
    let (mut trainer, mut text) = (with_hooks(setup), loader());
    text.seek(latest.loader.clone()).unwrap();
    trainer.restore(latest).unwrap();
    trainer.step(&batches(&mut text)).unwrap();
    let loss = trainer.evaluate(&batches(&mut loader())).unwrap().0;
    (trainer.checkpoint(text.position(), 1.0, RUN), loss)
}

#[test]
fn a_resumed_run_has_the_hooks_of_one_that_was_not_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let (latest, whole, loss) = interrupted(folder.path());
    assert!(latest.hooks.keys().eq(&STATEFUL), "{:?}", latest.hooks.keys());
    assert!(latest.hooks != whole.hooks, "a step changes what hooks keep");
    let found = resumed(&watched(), latest.clone());
    assert!(found == (whole.clone(), loss), "{} {loss}", found.1);
    let component = with_component(folder.path(), "hook/ema", watched());
    assert!(resumed(&component, latest.clone()) == (whole, loss), "as a component");
    // Without what they kept, averages begin anew.
    let forgetful = Checkpoint { hooks: Default::default(), ..latest };
    assert!(resumed(&watched(), forgetful).1 != loss);
}

#[test]
fn a_hook_that_refuses_its_state_is_named_and_the_run_is_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let (mut latest, ..) = interrupted(folder.path());
    let setup = setup("cpu");
    let mut on = Subscriptions::new();
    on.train_after_restore(|event, _| match event.state.get("version") {
        Some([2.0]) => Flow::Continue,
        _ => Flow::Refuse,
    });
    setup.bus.subscribe(&Machine::new().host("careful"), on);
    let mut trainer = trainer(&setup);
    let before = trainer.checkpoint(loader().position(), 1.0, RUN);
    let error = trainer.restore(latest.clone()).unwrap_err().to_string();
    assert!(error.contains("state of the hook `careful` after step 3"), "{error}");
    assert!(trainer.checkpoint(loader().position(), 1.0, RUN) == before);
    latest.hooks.entry("careful".to_owned()).or_default().set("version", &[2.0]);
    trainer.restore(latest).unwrap();
    assert_eq!(trainer.num_steps_done(), 3);
}

#[test]
fn all_hooks_of_a_plugin_leave_one_state() {
    let setup = setup("cpu");
    for plugin in ["a", "b"] {
        let mut on = Subscriptions::new();
        for part in ["first", "second"] {
            on.train_before_checkpoint(move |event, host| {
                let name = format!("{}/{part}", host.plugin());
                event.state.set(&name, &[event.step as f64]);
                Flow::Continue
            });
        }
        on.train_before_checkpoint(|event, host| {
            assert!(host.plugin() != "b", "on purpose");
            event.state.set("third", &[]);
            Flow::Continue
        });
        setup.bus.subscribe(&Machine::new().host(plugin), on);
    }
    let checkpoint = trainer(&setup).checkpoint(loader().position(), 1.0, RUN);
    let names = |plugin: &str| -> Vec<String> {
        checkpoint.hooks[plugin].iter().map(|(name, _)| name.to_owned()).collect()
    };
    assert_eq!(names("a"), ["a/first", "a/second", "third"]);
    assert_eq!(names("b"), ["b/first", "b/second"], "a hook that panics is as none");
    assert_eq!(setup.bus.faults().len(), 1);
}
