//! Random scenes for parts that are traced: shapes, hyperparameters, weights that are not there.

use super::{params, value};
use crate::config::Config;
use crate::kinds::feed_forward::FeedForward;
use crate::kinds::mixer::Mixer;
use crate::kinds::norm::Norm;
use crate::kinds::residual::Residual;
use crate::kinds::rotary_embedding::RotaryEmbedding;
use crate::kinds::{LayerRef, Traced};
use crate::plan::{Dim, Spec};
use crate::testing::Make;
use crate::testing::random::Random;
use crate::testing::traced::Scene;

const ROUNDS: usize = 300;

pub(in crate::testing) fn norm(make: Make<'_, dyn Norm>, config: &Config, random: &mut Random) {
    let Ok(part) = make(config) else { return };
    trace(&*part, &["x"], random);
}

pub(in crate::testing) fn residual(
    make: Make<'_, dyn Residual>,
    config: &Config,
    random: &mut Random,
) {
    let Ok(part) = make(config) else { return };
    trace(&*part, &["stream", "branch"], random);
}

pub(in crate::testing) fn feed_forward(
    make: Make<'_, dyn FeedForward>,
    config: &Config,
    random: &mut Random,
) {
    let Ok(part) = make(config) else { return };
    trace(&*part, &["x"], random);
}

pub(in crate::testing) fn mixer(make: Make<'_, dyn Mixer>, config: &Config, random: &mut Random) {
    let Ok(part) = make(config) else { return };
    trace(&*part, &["x"], random);
    for _ in 0..ROUNDS {
        let hyperparameters = hyperparameters(random);
        let _ = part.state(&LayerRef { index: random.bits() as u32, config: &hyperparameters });
    }
}

pub(in crate::testing) fn rotary_embedding(
    make: Make<'_, dyn RotaryEmbedding>,
    config: &Config,
    random: &mut Random,
) {
    let Ok(part) = make(config) else { return };
    trace(&*part, &["x", "positions"], random);
    for _ in 0..ROUNDS {
        let _ = part.rotation(&hyperparameters(random));
    }
}

/// As many inputs as the kind has, of any shape.
fn trace(part: &dyn Traced, inputs: &[&str], random: &mut Random) {
    for _ in 0..ROUNDS {
        let mut scene = Scene::new(&hyperparameters(random));
        for name in WEIGHTS {
            let dims: Vec<u64> = (0..random.below(4)).map(|_| size(random)).collect();
            if random.below(4) > 0 {
                scene = scene.weight(name, &dims);
            }
        }
        let specs: Vec<_> = inputs.iter().map(|name| (*name, spec(random))).collect();
        let _ = (part.semantic_id(), scene.trace(part, &specs));
    }
}

fn spec(random: &mut Random) -> Spec {
    let dims = (0..random.below(4)).map(|_| Dim::Fixed(size(random)));
    let dims: Vec<Dim> = [Dim::TOKENS].into_iter().chain(dims).collect();
    if random.below(8) == 0 { Spec::u32(dims) } else { Spec::f32(dims) }
}

fn size(random: &mut Random) -> u64 {
    [0, 1, 2, 4, 6, 8, 63, 1 << 20][random.below(8)]
}

/// Most often those of a small model, with one of them replaced.
fn hyperparameters(random: &mut Random) -> Config {
    if random.below(4) == 0 {
        return params(random);
    }
    let mut config = Config::at("fuzz");
    for (key, usual) in USUAL {
        let replaced = random.below(USUAL.len()) == 0;
        config.set(key, if replaced { value(random, 2) } else { usual.into() });
    }
    config
}

const USUAL: [(&str, i64); 8] = [
    ("hidden_size", 8),
    ("intermediate_size", 6),
    ("num_attention_heads", 2),
    ("num_key_value_heads", 1),
    ("head_dim", 4),
    ("sliding_window", 0),
    ("rope_theta", 10_000),
    ("partial_rotary_factor", 1),
];

const WEIGHTS: [&str; 11] = [
    "weight",
    "bias",
    "gate_proj.weight",
    "up_proj.weight",
    "down_proj.weight",
    "q_proj.weight",
    "k_proj.weight",
    "v_proj.weight",
    "o_proj.weight",
    "q_proj.bias",
    "q_norm.weight",
];
