//! Parts of a run that are replaced between two of its steps.

use std::any::Any;
use std::time::Duration;

use jackfield_runtime::{Reach, SwapError, SwapTarget};
use plugin_api::{Config, Kind, LrSchedule, Optimizer};

use super::{batches, loader, setup, trainer};

/// An instance as a loader makes it.
fn instance(
    setup: &jackfield_tests::Setup,
    kind: &str,
    name: &str,
    config: &Config,
) -> Box<dyn Any + Send> {
    (setup.registry.find(kind, name).unwrap().make)(config).unwrap()
}

/// Before this step something is swapped: in the warm-up, where the factors of schedules differ.
const AT: usize = 2;

/// The losses of ten steps; before step [`AT`] `change` may swap.
fn losses(change: impl FnOnce(&jackfield_tests::Setup, &dyn SwapTarget)) -> Vec<f64> {
    let setup = setup("cpu");
    let (mut trainer, mut text) = (trainer(&setup), loader());
    let swapper = trainer.swapper(&setup.bus);
    let mut change = Some(change);
    let step = |step| {
        if step == AT
            && let Some(change) = change.take()
        {
            change(&setup, &swapper);
        }
        trainer.step(&batches(&mut text)).unwrap().loss
    };
    (0..10).map(step).collect()
}

#[test]
fn a_swap_is_seen_from_the_next_step_on_and_states_are_handed_over() {
    let (optimizer, schedule) = (<dyn Optimizer>::NAME, <dyn LrSchedule>::NAME);
    let whole = losses(|_, _| ());
    let swap = |kind: &'static str, name: &'static str, config: Config| {
        losses(|setup, swapper| {
            let instance = instance(setup, kind, name, &config);
            let swapped = swapper.swap(kind, name, instance, Duration::ZERO).unwrap();
            assert_eq!(swapped.active.to_string(), format!("{name}#2"));
            assert_eq!(swapped.reach, Reach::NextBoundary, "the next step takes it in");
            assert!(swapper.slots().iter().all(|slot| slot.is_swapping));
        })
    };
    // The same optimizer again: not a bit changes, though its averages are in the middle of something.
    assert_eq!(swap(optimizer, "adamw", Config::new()), whole);
    // The update of that step is another, which the loss of the next one shows.
    for (kind, name, config) in [
        (optimizer, "adamw", Config::new().with("weight_decay", 0.9)),
        (schedule, "constant", Config::new()),
    ] {
        let found = swap(kind, name, config);
        assert_eq!(found[..=AT], whole[..=AT], "{name}");
        let mut later = found[AT + 1..].iter().zip(&whole[AT + 1..]);
        assert!(later.all(|(a, b)| a != b), "{name}: {found:?}");
    }
}

#[test]
fn an_optimizer_that_keeps_something_else_is_refused_and_the_run_goes_on() {
    let whole = losses(|_, _| ());
    let found = losses(|setup, swapper| {
        let (kind, config) = (<dyn Optimizer>::NAME, Config::new());
        let lion = instance(setup, kind, "lion", &config);
        let error = swapper.swap(kind, "lion", lion, Duration::ZERO).unwrap_err();
        assert!(matches!(&error, SwapError::Differs { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("states of the optimizer: expected {\"state.mean\""), "{said}");
        let adamw = instance(setup, kind, "adamw", &config);
        let error = swapper.swap("objective", "adamw", adamw, Duration::ZERO).unwrap_err();
        assert!(matches!(error, SwapError::WrongInstance { .. }), "{error}");
        let adamw = instance(setup, kind, "adamw", &config);
        let error = swapper.swap("kv-cache", "paged", adamw, Duration::ZERO).unwrap_err();
        assert!(matches!(error, SwapError::UnknownSlot { .. }), "{error}");
    });
    assert_eq!(found, whole);
}

#[test]
fn a_swap_from_another_thread_waits_for_the_boundary() {
    let setup = setup("cpu");
    let (mut trainer, mut text) = (trainer(&setup), loader());
    let swapper = trainer.swapper(&setup.bus);
    let kind = <dyn LrSchedule>::NAME;
    let constant = instance(&setup, kind, "constant", &Config::new());
    std::thread::scope(|scope| {
        let limit = Duration::from_secs(600);
        let swapper = &swapper;
        let asked = scope.spawn(move || swapper.swap(kind, "constant", constant, limit));
        while !asked.is_finished() {
            trainer.step(&batches(&mut text)).unwrap();
        }
        let swapped = asked.join().unwrap().unwrap();
        assert_eq!(swapped.reach, Reach::MidStream);
        assert_eq!(swapped.retired.unwrap().to_string(), "cosine#1");
    });
    drop(trainer);
    let constant = instance(&setup, kind, "constant", &Config::new());
    let error = swapper.swap(kind, "constant", constant, Duration::ZERO).unwrap_err();
    assert!(matches!(error, SwapError::Ended { .. }), "{error}");
}
