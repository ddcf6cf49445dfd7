//! Random inputs for plugins, equal for equal seeds: one function a kind.
//!
//! Inputs are of the right type and order, as an engine's are, and otherwise unlikely: numbers that
//! are none, tables of the wrong types, sizes that do not fit. Whatever a plugin answers is fine.

mod called;
mod traced;

pub(super) use called::{
    backend, compressor, curriculum, decoding_strategy, hook, kv_cache, logits_processor, memory,
    model_source, output_parser, quantizer, reward, scheduler,
};
pub(super) use traced::{
    adapter, encoder, feed_forward, lr_schedule, mixer, moe_router, norm, objective, optimizer,
    residual, rotary_embedding,
};

use super::random::Random;
use crate::config::{Config, Value};

/// Which keys of the usual ones, and of `config`, `call` reads of the tables that it is given.
pub(super) fn keys_read(config: &Config, call: impl Fn(&Config)) -> Vec<String> {
    let mut table = Config::at(config.path());
    for key in KEYS.into_iter().chain(config.keys()) {
        table.set(key, 1);
    }
    // A plugin stops at the first value that it cannot take: each key is tried alone as well.
    call(&table);
    for key in KEYS.into_iter().chain(config.keys()) {
        let alone = config.fresh().with(key, "x");
        call(&alone);
        if alone.is_read(key) {
            table.mark(key);
        }
    }
    table.keys().filter(|key| table.is_read(key)).map(str::to_owned).collect()
}

/// What random request parameters and hyperparameters are made of.
pub(super) struct Asked<'a> {
    /// Those that do no harm.
    fair: &'a Config,
    /// Keys that the plugin reads, and those that somebody has named.
    pub(super) keys: Vec<String>,
}

impl<'a> Asked<'a> {
    /// Those around `fair`; `call` lets the plugin read a table as its kind does. Not every lane
    /// tells what was read.
    fn of(fair: &'a Config, named: &Config, call: impl Fn(&Config)) -> Self {
        let mut keys = keys_read(fair, call);
        keys.extend(named.keys().map(str::to_owned));
        keys.sort_unstable();
        keys.dedup();
        Self { fair, keys }
    }

    /// A random table: every other time one that starts with what is fair.
    fn params(&self, random: &mut Random) -> Config {
        match random.below(2) {
            0 => table(random, &Config::at("fuzz"), &self.keys),
            _ => table(random, self.fair, &self.keys),
        }
    }
}

/// A random table: most often of keys that are read, seldom of the usual ones.
pub(super) fn table(random: &mut Random, config: &Config, read: &[String]) -> Config {
    let mut table = config.fresh();
    for _ in 0..=random.below(4) {
        let key = match read.get(random.below(read.len() + 1)) {
            Some(key) => key.as_str(),
            None => KEYS[random.below(KEYS.len())],
        };
        table.set(key, value(random, 3));
    }
    table
}

fn value(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth == 0 { 7 } else { 9 }) {
        0 => Value::Bool(random.below(2) == 0),
        1 => Value::Int(random.bits() as i64),
        2 => Value::Int(INTS[random.below(INTS.len())]),
        3 => Value::Int(random.below(300) as i64),
        4 => Value::Float(FLOATS[random.below(FLOATS.len())]),
        5 => Value::Float(f64::from(random.signed())),
        6 => Value::Text(text(random)),
        7 => Value::List((0..random.below(4)).map(|_| value(random, depth - 1)).collect()),
        _ => {
            let (name, inner) = (text(random), value(random, depth - 1));
            Value::Table(Config::new().with(&name, inner))
        }
    }
}

fn text(random: &mut Random) -> String {
    const LETTERS: [&str; 9] = ["a", "0", "-", ".", "é", "日", "\u{0}", "\n", "🦊"];
    let long = random.below(40) == 0;
    let len = if long { 5_000 } else { random.below(9) };
    (0..len).map(|_| LETTERS[random.below(LETTERS.len())]).collect()
}

/// A logit, a weight, a probability: now and then one that is no number.
fn number(random: &mut Random) -> f32 {
    match random.below(12) {
        0 => f32::NEG_INFINITY,
        1 => [f32::NAN, f32::INFINITY, f32::MAX, -0.0][random.below(4)],
        _ => 20.0 * random.signed(),
    }
}

/// Names that configuration and requests of such plugins use.
const KEYS: [&str; 47] = [
    "alpha",
    "attention_bias",
    "beta",
    "bias",
    "block_size",
    "budget_us",
    "decay",
    "dtype",
    "eos_token_ids",
    "eps",
    "factor",
    "format",
    "head_dim",
    "hidden_act",
    "id",
    "ignore_eos",
    "k",
    "layer_norm_eps",
    "length_penalty",
    "logit_bias",
    "max_tokens",
    "min_p",
    "mode",
    "never",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "p",
    "path",
    "penalty",
    "pooling",
    "pooling_mode_cls_token",
    "position_embedding_type",
    "repetition_penalty",
    "rms_norm_eps",
    "rope_pairing",
    "rope_scaling",
    "rope_theta",
    "scale",
    "seed",
    "sliding_window",
    "stop",
    "temperature",
    "threads",
    "tokens",
    "top_k",
    "top_p",
];

const INTS: [i64; 9] = [i64::MIN, -1, 0, 1, 2, 255, u32::MAX as i64, u32::MAX as i64 + 1, i64::MAX];
const FLOATS: [f64; 8] =
    [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, -0.0, 1.0, -1e-9];
