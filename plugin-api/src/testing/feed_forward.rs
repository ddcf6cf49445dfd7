//! Contract suite of feed-forward parts.

pub use super::traced::run;

use super::traced::{Scene, check_instances, check_name, check_rows, check_trace, made};
use super::{Make, make};
use crate::config::Config;
use crate::kinds::feed_forward::FeedForward;
use crate::kinds::{Capability, Traced};
use crate::plan::{Dim, Plan, Spec};

/// Runs the whole suite, with the weights of a gated part, with and without biases.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + FeedForward + 'static>() {
    check_name::<T>();
    suite_of(&make::<dyn FeedForward, T>);
}

/// The same for parts that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn FeedForward>) {
    let part = check_instances(make);
    for (hidden, intermediate) in [(1, 1), (8, 7), (7, 20)] {
        check_rows(&trace_part(&*part, hidden, intermediate, false));
        check_rows(&trace_part(&*part, hidden, intermediate, true));
    }
}

/// The plan over `x [tokens, hidden]`, with the weights `gate_proj`, `up_proj` and `down_proj`.
///
/// # Panics
///
/// If the part cannot be traced.
pub fn trace<T: Capability + FeedForward>(hidden: u64, intermediate: u64, biases: bool) -> Plan {
    trace_part(&made::<T>(), hidden, intermediate, biases)
}

/// The plan of a mixture over `x [tokens, hidden]`, with the weights `router`, `experts.gate_proj`,
/// `experts.up_proj` and `experts.down_proj`. The two experts of the largest logits count as their
/// softmax says.
///
/// # Panics
///
/// If the part cannot be traced.
pub fn trace_experts<T: Capability + FeedForward>(hidden: u64, inner: u64, experts: u64) -> Plan {
    trace_experts_with::<T>(hidden, inner, experts, 0)
}

/// The same with shared experts of `shared` rows, called `shared_experts.gate_proj` and so on.
///
/// # Panics
///
/// If the part cannot be traced.
pub fn trace_experts_with<T: Capability + FeedForward>(
    hidden: u64,
    inner: u64,
    experts: u64,
    shared: u64,
) -> Plan {
    let mut scene = experts_scene(&Config::new(), hidden, inner, experts);
    if shared > 0 {
        for (name, dims) in [
            ("gate_proj", [shared, hidden]),
            ("up_proj", [shared, hidden]),
            ("down_proj", [hidden, shared]),
        ] {
            scene = scene.weight(&format!("shared_experts.{name}.weight"), &dims);
        }
    }
    let x = Spec::f32([Dim::TOKENS, hidden.into()]);
    check_trace(&scene, &made::<T>(), &[("x", x)])
}

/// The plan of [`trace_experts`] with other hyperparameters.
///
/// # Panics
///
/// If the part cannot be traced.
pub fn trace_experts_of<T: Capability + FeedForward>(
    config: &Config,
    hidden: u64,
    inner: u64,
    experts: u64,
) -> Plan {
    let x = Spec::f32([Dim::TOKENS, hidden.into()]);
    check_trace(&experts_scene(config, hidden, inner, experts), &made::<T>(), &[("x", x)])
}

/// The same with the biases `experts.gate_proj.bias` and so on, `[experts, rows, 1]`.
///
/// # Panics
///
/// If the part cannot be traced.
pub fn trace_biased_experts<T: Capability + FeedForward>(
    config: &Config,
    hidden: u64,
    inner: u64,
    experts: u64,
) -> Plan {
    let mut scene = experts_scene(config, hidden, inner, experts);
    for (name, rows) in [("gate_proj", inner), ("up_proj", inner), ("down_proj", hidden)] {
        scene = scene.weight(&format!("experts.{name}.bias"), &[experts, rows, 1]);
    }
    let x = Spec::f32([Dim::TOKENS, hidden.into()]);
    check_trace(&scene, &made::<T>(), &[("x", x)])
}

fn experts_scene(config: &Config, hidden: u64, inner: u64, experts: u64) -> Scene {
    let config = config.clone().with("hidden_size", hidden as i64);
    let mut scene = Scene::new(&config).weight("router.weight", &[experts, hidden]);
    for (name, [rows, cols]) in [
        ("gate_proj", [inner, hidden]),
        ("up_proj", [inner, hidden]),
        ("down_proj", [hidden, inner]),
    ] {
        scene = scene.weight(&format!("experts.{name}.weight"), &[experts, rows, cols]);
    }
    scene
}

fn trace_part(part: &dyn Traced, hidden: u64, intermediate: u64, biases: bool) -> Plan {
    let config = Config::new()
        .with("hidden_size", hidden as i64)
        .with("intermediate_size", intermediate as i64);
    let mut scene = Scene::new(&config);
    for (name, rows, cols) in [
        ("gate_proj", intermediate, hidden),
        ("up_proj", intermediate, hidden),
        ("down_proj", hidden, intermediate),
    ] {
        scene = scene.weight(&format!("{name}.weight"), &[rows, cols]);
        if biases {
            scene = scene.weight(&format!("{name}.bias"), &[rows]);
        }
    }
    let x = Spec::f32([Dim::TOKENS, hidden.into()]);
    check_trace(&scene, part, &[("x", x)])
}
