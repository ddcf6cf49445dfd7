//! Contract suite of schedules of the learning rate.

use super::interpreter::{Feed, FusedAs};
use super::tolerance::TRACED;
use super::traced::{Scene, check_instances, check_name, check_trace, first_output};
use super::{Make, make};
use crate::config::Config;
use crate::kinds::lr_schedule::LrSchedule;
use crate::kinds::{Capability, Traced};
use crate::plan::{Plan, Spec};

/// Updates of the suite's runs.
const RUNS: [u64; 5] = [1, 2, 7, 100, 100_000];

/// Runs the whole suite.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + LrSchedule + 'static>() {
    check_name::<T>();
    suite_of(&make::<dyn LrSchedule, T>);
}

/// The same for schedules that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn LrSchedule>) {
    let schedule = check_instances(make);
    let id = schedule.semantic_id();
    for num_steps in RUNS {
        let plan = trace(&*schedule, num_steps);
        let is_bare = plan.states.is_empty() && plan.weights.is_empty() && plan.inputs.len() == 1;
        assert!(is_bare, "{id}: a schedule depends on the step only\n{plan}");
        let mut peak = 0.0_f64;
        for step in [0, 1, num_steps / 2, num_steps - 1, num_steps, 3 * num_steps] {
            let exact = factor(&plan, step);
            let feed = Feed::new().reals("step", &[step as f32]);
            let single = first_output::<f32>(&plan, &feed, FusedAs::Whole);
            let what = format!("{id}: step {step} of {num_steps}");
            assert!((-1e-9..=1.0 + 1e-9).contains(&exact), "{what}: {exact} is not in 0..=1");
            TRACED.assert(&what, &single, &[exact], 1.0);
            peak = peak.max(exact);
        }
        assert!(peak > 0.0, "{id}: a run of {num_steps} learns something");
    }
}

/// The plan of a schedule for a run of `num_steps` updates.
///
/// # Panics
///
/// If the schedule cannot be traced.
pub fn trace(schedule: &dyn Traced, num_steps: u64) -> Plan {
    let scene = Scene::new(&Config::new().with("num_steps", num_steps as i64));
    check_trace(&scene, schedule, &[("step", Spec::f32([1.into(), 1.into()]))])
}

/// The factor of a step by a plan of [`trace`], in `f64`.
///
/// # Panics
///
/// If the plan does not run.
pub fn factor(plan: &Plan, step: u64) -> f64 {
    let feed = Feed::new().reals("step", &[step as f32]);
    first_output::<f64>(plan, &feed, FusedAs::Expansion)[0]
}
