//! Contract suite of rotary embeddings.

use super::interpreter::{Feed, FusedAs};
use super::random::Random;
use super::tolerance::TRACED;
use super::traced::{
    Scene, check_instances, check_name, check_rows, check_trace, first_output, made,
};
use super::{Make, make};
use crate::config::Config;
use crate::kinds::rotary_embedding::{Pairing, RotaryEmbedding, Rotation};
use crate::kinds::{Capability, Traced};
use crate::plan::{Dim, Plan, Spec};

/// Runs the whole suite with the hyperparameters in `config` and several sizes and pairings.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + RotaryEmbedding + 'static>(config: &Config) {
    check_name::<T>();
    suite_of(&make::<dyn RotaryEmbedding, T>, config);
}

/// The same for rotations that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn RotaryEmbedding>, config: &Config) {
    let part = check_instances(make);
    for pairing in [Pairing::HalfSplit, Pairing::Interleaved] {
        for (head_dim, share) in [(2, 1.0), (8, 1.0), (64, 1.0), (20, 0.5)] {
            let config = config
                .clone()
                .with("head_dim", head_dim)
                .with("partial_rotary_factor", share)
                .with("rope_pairing", pairing.name());
            let rotation = part.rotation(&config);
            let rotation = rotation.unwrap_or_else(|error| panic!("no rotation: {error}"));
            assert_eq!(rotation.pairing, pairing, "the pairing that was asked for");
            assert!(
                (1..=head_dim as usize / 2).contains(&rotation.inv_freq.len()),
                "at most one frequency for a pair"
            );
            let plan = trace_part(&*part, &config, 3, head_dim as u64);
            check_rows(&plan);
            check_numbers(&plan, &rotation, head_dim as usize);
        }
    }
    let missing = part.rotation(&Config::new());
    assert!(missing.is_err(), "without `head_dim` there is no rotation");
}

/// The plan over `x [tokens, heads, head_dim]` and `positions`.
///
/// # Panics
///
/// If the rotation cannot be traced.
pub fn trace<T: Capability + RotaryEmbedding>(config: &Config, heads: u64, head_dim: u64) -> Plan {
    trace_part(&made::<T>(), config, heads, head_dim)
}

fn trace_part(part: &dyn Traced, config: &Config, heads: u64, head_dim: u64) -> Plan {
    let x = Spec::f32([Dim::TOKENS, heads.into(), head_dim.into()]);
    let inputs = [("x", x), ("positions", Spec::u32([Dim::TOKENS]))];
    check_trace(&Scene::new(config), part, &inputs)
}

/// Each pair as a complex number, times `factor · e^(i · position · inv_freq)`.
fn check_numbers(plan: &Plan, rotation: &Rotation, head_dim: usize) {
    let positions = [0, 1, 5, 1_000];
    let mut random = Random::new(3);
    let x: Vec<f32> = (0..positions.len() * 3 * head_dim).map(|_| random.signed()).collect();
    let feed = Feed::new().size(Dim::TOKENS, positions.len());
    let feed = feed.reals("x", &x).indices("positions", &positions);
    let found = first_output::<f64>(plan, &feed, FusedAs::Expansion);
    let mut expected: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let pairs = rotation.inv_freq.len();
    let factor = f64::from(rotation.attention_factor);
    for (row, head) in expected.chunks_exact_mut(head_dim).enumerate() {
        for (i, &inv_freq) in rotation.inv_freq.iter().enumerate() {
            let (a, b) = match rotation.pairing {
                Pairing::HalfSplit => (i, i + pairs),
                Pairing::Interleaved => (2 * i, 2 * i + 1),
            };
            let angle = f64::from(positions[row / 3]) * f64::from(inv_freq);
            let (sin, cos) = angle.sin_cos();
            let (re, im) = (head[a], head[b]);
            head[a] = (re * cos - im * sin) * factor;
            head[b] = (im * cos + re * sin) * factor;
        }
    }
    TRACED.assert("against complex numbers", &found, &expected, 1.0);
}
