//! Random scenes for parts that are traced: shapes, hyperparameters, weights that are not there.

use super::{Asked, value};
use crate::config::Config;
use crate::kinds::adapter::Adapter;
use crate::kinds::encoder::Encoder;
use crate::kinds::feed_forward::FeedForward;
use crate::kinds::lr_schedule::LrSchedule;
use crate::kinds::mixer::Mixer;
use crate::kinds::moe_router::MoeRouter;
use crate::kinds::norm::Norm;
use crate::kinds::objective::Objective;
use crate::kinds::optimizer::Optimizer;
use crate::kinds::residual::Residual;
use crate::kinds::rotary_embedding::RotaryEmbedding;
use crate::kinds::{LayerRef, Traced};
use crate::plan::{Dim, Spec};
use crate::testing::Make;
use crate::testing::random::Random;
use crate::testing::traced::Scene;

const ROUNDS: usize = 300;

/// Returns the hyperparameters that it reads, as the others here do.
pub(in crate::testing) fn norm(
    make: Make<'_, dyn Norm>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(part) = make(config) else { return Vec::new() };
    trace(&*part, &["x"], config, random, |_| ())
}

pub(in crate::testing) fn residual(
    make: Make<'_, dyn Residual>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(part) = make(config) else { return Vec::new() };
    trace(&*part, &["stream", "branch"], config, random, |_| ())
}

pub(in crate::testing) fn feed_forward(
    make: Make<'_, dyn FeedForward>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(part) = make(config) else { return Vec::new() };
    trace(&*part, &["x"], config, random, |_| ())
}

pub(in crate::testing) fn moe_router(
    make: Make<'_, dyn MoeRouter>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(part) = make(config) else { return Vec::new() };
    trace(&*part, &["x"], config, random, |_| ())
}

pub(in crate::testing) fn encoder(
    make: Make<'_, dyn Encoder>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(part) = make(config) else { return Vec::new() };
    trace(&*part, &["token_ids"], config, random, |_| ())
}

pub(in crate::testing) fn objective(
    make: Make<'_, dyn Objective>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(part) = make(config) else { return Vec::new() };
    trace(&*part, &["logits"], config, random, |_| ())
}

pub(in crate::testing) fn optimizer(
    make: Make<'_, dyn Optimizer>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(part) = make(config) else { return Vec::new() };
    trace(&*part, &["parameter", "gradient"], config, random, |_| ())
}

pub(in crate::testing) fn lr_schedule(
    make: Make<'_, dyn LrSchedule>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(part) = make(config) else { return Vec::new() };
    trace(&*part, &["step"], config, random, |_| ())
}

pub(in crate::testing) fn adapter(
    make: Make<'_, dyn Adapter>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(part) = make(config) else { return Vec::new() };
    trace(&*part, &["x", "y"], config, random, |_| ())
}

pub(in crate::testing) fn mixer(
    make: Make<'_, dyn Mixer>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(part) = make(config) else { return Vec::new() };
    trace(&*part, &["x"], config, random, |config| {
        let _ = part.state(&LayerRef { index: config.keys().count() as u32, config });
    })
}

pub(in crate::testing) fn rotary_embedding(
    make: Make<'_, dyn RotaryEmbedding>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(part) = make(config) else { return Vec::new() };
    trace(&*part, &["x", "positions"], config, random, |config| drop(part.rotation(config)))
}

/// As many inputs as the kind has, of any shape; `also` calls what else reads hyperparameters.
fn trace(
    part: &dyn Traced,
    inputs: &[&str],
    config: &Config,
    random: &mut Random,
    also: impl Fn(&Config),
) -> Vec<String> {
    let mut fair = Config::at("fuzz");
    USUAL.iter().for_each(|(key, usual)| fair.set(key, *usual));
    config.unmarked().for_each(|(key, named)| fair.set(key, named.clone()));
    let asked = Asked::of(&fair, config, |hyperparameters| {
        also(hyperparameters);
        for dims in [&[8][..], &[8, 8]] {
            let scene = Scene::new(hyperparameters);
            let scene = WEIGHTS.iter().fold(scene, |scene, name| scene.weight(name, dims));
            let spec = Spec::f32([Dim::TOKENS, Dim::Fixed(8)]);
            let specs: Vec<_> = inputs.iter().map(|name| (*name, spec.clone())).collect();
            let _ = scene.trace(part, &specs);
        }
    });
    for _ in 0..ROUNDS {
        let hyperparameters = hyperparameters(&asked, random);
        also(&hyperparameters);
        let mut scene = Scene::new(&hyperparameters);
        for name in WEIGHTS {
            let dims: Vec<u64> = (0..random.below(4)).map(|_| size(random)).collect();
            if random.below(4) > 0 {
                scene = scene.weight(name, &dims);
            }
        }
        let specs: Vec<_> = inputs.iter().map(|name| (*name, spec(random))).collect();
        let _ = (part.semantic_id(), scene.trace(part, &specs));
    }
    asked.keys
}

fn spec(random: &mut Random) -> Spec {
    let dims = (0..random.below(4)).map(|_| Dim::Fixed(size(random)));
    let dims: Vec<Dim> = [Dim::TOKENS].into_iter().chain(dims).collect();
    if random.below(8) == 0 { Spec::u32(dims) } else { Spec::f32(dims) }
}

fn size(random: &mut Random) -> u64 {
    [0, 1, 2, 4, 6, 8, 63, 1 << 20][random.below(8)]
}

/// Most often those of a small model, with some of them replaced.
fn hyperparameters(asked: &Asked<'_>, random: &mut Random) -> Config {
    if random.below(4) == 0 {
        return asked.params(random);
    }
    let mut config = asked.fair.fresh();
    for (key, _) in asked.fair.unmarked() {
        if random.below(USUAL.len()) == 0 {
            config.set(key, value(random, 2));
        }
    }
    config
}

const USUAL: [(&str, i64); 9] = [
    ("hidden_size", 8),
    ("intermediate_size", 6),
    ("num_attention_heads", 2),
    ("num_hidden_layers", 1),
    ("num_key_value_heads", 1),
    ("head_dim", 4),
    ("sliding_window", 0),
    ("rope_theta", 10_000),
    ("partial_rotary_factor", 1),
];

const WEIGHTS: [&str; 20] = [
    "lora_A.weight",
    "lora_B.weight",
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
    "embeddings.word_embeddings.weight",
    "embeddings.position_embeddings.weight",
    "embeddings.token_type_embeddings.weight",
    "embeddings.LayerNorm.weight",
    "embeddings.LayerNorm.bias",
    "encoder.layer.0.attention.self.query.weight",
    "encoder.layer.0.attention.self.query.bias",
];
