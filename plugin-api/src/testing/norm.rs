//! Contract suite of norms.

pub use super::traced::run;

use super::traced::{Scene, check_instances, check_name, check_rows, check_trace, made};
use super::{Make, make};
use crate::config::Config;
use crate::error::Error;
use crate::kinds::norm::Norm;
use crate::kinds::{Capability, Traced};
use crate::plan::{Dim, Plan, Spec};

/// Runs the whole suite.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + Norm + 'static>() {
    check_name::<T>();
    suite_of(&make::<dyn Norm, T>);
}

/// The same for norms that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn Norm>) {
    let norm = check_instances(make);
    for width in [1, 7, 8, 63] {
        check_rows(&check_trace(&scene(width, &Config::new()), &*norm, &input(width)));
        let heads = [("x", Spec::f32([Dim::TOKENS, 3.into(), width.into()]))];
        check_rows(&check_trace(&scene(width, &Config::new()), &*norm, &heads));
    }
    let bare = Scene::new(&Config::new()).trace(&*norm, &input(8));
    let is_missing = matches!(bare, Ok(_) | Err(Error::MissingWeight { .. }));
    assert!(is_missing, "a missing weight is named, found {bare:?}");
}

/// The plan of the norm over `x [tokens, width]`, with the weights `weight` and `bias` to be had.
///
/// # Panics
///
/// If the norm cannot be traced.
pub fn trace<T: Capability + Traced>(width: u64, config: &Config) -> Plan {
    check_trace(&scene(width, config), &made::<T>(), &input(width))
}

fn scene(width: u64, config: &Config) -> Scene {
    Scene::new(config).weight("weight", &[width]).weight("bias", &[width])
}

fn input(width: u64) -> [(&'static str, Spec); 1] {
    [("x", Spec::f32([Dim::TOKENS, width.into()]))]
}
