//! Contract suite of residuals.

use super::interpreter::{Feed, FusedAs};
use super::traced::{
    Scene, check_instances, check_name, check_rows, check_trace, first_output, made,
};
use super::{Make, make};
use crate::config::Config;
use crate::kinds::residual::Residual;
use crate::kinds::{Capability, Traced};
use crate::plan::{Dim, Plan, Spec};

/// Runs the whole suite.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + Residual + 'static>() {
    check_name::<T>();
    suite_of(&make::<dyn Residual, T>);
}

/// The same for residuals that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn Residual>) {
    let residual = check_instances(make);
    for width in [1, 7, 8, 63] {
        check_rows(&trace_part(&*residual, width));
    }
}

/// The plan over `stream` and `branch`, both `[tokens, width]`.
///
/// # Panics
///
/// If the residual cannot be traced.
pub fn trace<T: Capability + Residual>(width: u64) -> Plan {
    trace_part(&made::<T>(), width)
}

fn trace_part(part: &dyn Traced, width: u64) -> Plan {
    let spec = Spec::f32([Dim::TOKENS, width.into()]);
    let inputs = [("stream", spec.clone()), ("branch", spec)];
    check_trace(&Scene::new(&Config::new()), part, &inputs)
}

/// Runs a plan of [`trace`] with rows of one element, in `f64`.
///
/// # Panics
///
/// If the plan does not run.
pub fn run(plan: &Plan, stream: &[f32], branch: &[f32]) -> Vec<f64> {
    let feed = Feed::new().size(Dim::TOKENS, stream.len());
    let feed = feed.reals("stream", stream).reals("branch", branch);
    first_output::<f64>(plan, &feed, FusedAs::Expansion)
}
