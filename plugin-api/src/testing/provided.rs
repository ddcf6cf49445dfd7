//! The contract suites and random inputs for plugins that are known by their kind's name only, as
//! a host knows what it has loaded from a file.

use super::random::Random;
use super::{
    Make, adapter, backend, compressor, curriculum, decoding_strategy, encoder, feed_forward, fuzz,
    hook, kv_cache, logits_processor, lr_schedule, memory, mixer, model_source, moe_router, norm,
    objective, optimizer, output_parser, quantizer, residual, reward, rotary_embedding, scheduler,
};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kinds::Kind;
use crate::kinds::adapter::Adapter;
use crate::kinds::backend::Backend;
use crate::kinds::compressor::Compressor;
use crate::kinds::curriculum::Curriculum;
use crate::kinds::decoding_strategy::DecodingStrategy;
use crate::kinds::encoder::Encoder;
use crate::kinds::feed_forward::FeedForward;
use crate::kinds::hook::Hook;
use crate::kinds::kv_cache::KvCache;
use crate::kinds::logits_processor::LogitsProcessor;
use crate::kinds::lr_schedule::LrSchedule;
use crate::kinds::memory::Memory;
use crate::kinds::mixer::Mixer;
use crate::kinds::model_source::ModelSource;
use crate::kinds::moe_router::MoeRouter;
use crate::kinds::norm::Norm;
use crate::kinds::objective::Objective;
use crate::kinds::optimizer::Optimizer;
use crate::kinds::output_parser::OutputParser;
use crate::kinds::quantizer::{Lowering, Quantizer};
use crate::kinds::residual::Residual;
use crate::kinds::reward::Reward;
use crate::kinds::rotary_embedding::RotaryEmbedding;
use crate::kinds::scheduler::Scheduler;
use crate::registrar::Provided;

/// Runs the contract suite of a plugin's kind. `config` is its table; requests of a logits
/// processor carry it as well, and its own table is empty.
///
/// # Errors
///
/// [`Error::NotFound`] for a kind without a suite, and what the plugin says when it does not start.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn contract(plugin: &Provided, config: &Config) -> Result<()> {
    let row = row(plugin.kind)?;
    (plugin.make)(config)?;
    (row.contract)(plugin, config);
    Ok(())
}

/// Calls the plugin with random inputs of its kind, equal ones for equal seeds. Errors are
/// answers; what must not happen is a panic, a crash or a call that does not end. Returns the keys
/// of request parameters and hyperparameters that were tried most: those of `config`, and those
/// usual ones that it was found to read.
///
/// # Errors
///
/// As for [`contract`].
pub fn fuzz_inputs(plugin: &Provided, config: &Config, seed: u64) -> Result<Vec<String>> {
    let row = row(plugin.kind)?;
    (plugin.make)(config)?;
    Ok((row.fuzz)(plugin, config, &mut Random::new(seed)))
}

/// Starts the plugin with random tables. Errors are answers. Returns how many tables it took, and
/// the keys that it was found to read: the usual ones and those of `config` are tried.
pub fn fuzz_config(plugin: &Provided, config: &Config, seed: u64) -> (usize, Vec<String>) {
    let mut random = Random::new(seed);
    let keys = fuzz::keys_read(config, |table| drop((plugin.make)(table)));
    let tables = (0..TABLES).map(|_| fuzz::table(&mut random, config, &keys));
    let taken = tables.filter(|table| (plugin.make)(table).is_ok()).count();
    (taken, keys)
}

/// How many random tables a plugin is started with.
pub const TABLES: usize = 300;

/// What is done with a kind.
struct Row {
    kind: &'static str,
    contract: fn(&Provided, &Config),
    fuzz: fn(&Provided, &Config, &mut Random) -> Vec<String>,
}

/// An instance of a kind that the caller knows to be right.
fn open<K: Kind + ?Sized>(plugin: &Provided, config: &Config) -> Result<Box<K>> {
    let instance = (plugin.make)(config)?.downcast::<Box<K>>();
    instance.map(|instance| *instance).map_err(|_| Error::malformed("instance", K::NAME, "another"))
}

/// Calls `suite` with a way to make instances: an empty table means `config`.
fn over<K: Kind + ?Sized, R>(
    plugin: &Provided,
    config: &Config,
    suite: impl FnOnce(Make<'_, K>) -> R,
) -> R {
    suite(&|asked| open(plugin, if asked.keys().next().is_none() { config } else { asked }))
}

macro_rules! rows {
    ($($kind:ident: $fuzz:ident, |$plugin:ident, $config:ident| $contract:expr;)*) => {
        const ROWS: &[Row] = &[$(Row {
            kind: <dyn $kind>::NAME,
            contract: |$plugin, $config| $contract,
            fuzz: |plugin, config, random| {
                over::<dyn $kind, _>(plugin, config, |make| fuzz::$fuzz(make, config, random))
            },
        }),*];
    };
}
rows! {
    Adapter: adapter, |p, c| over(p, c, |make| adapter::suite_of(make));
    Backend: backend, |p, c| over::<dyn Backend, _>(p, c, |make| {
        backend::suite(&*make(c).expect("it has started before"));
    });
    Compressor: compressor, |p, c| over(p, c, |make| compressor::suite_of(make, c));
    Curriculum: curriculum, |p, c| over(p, c, |make| curriculum::suite_of(make, c));
    DecodingStrategy: decoding_strategy, |p, c| over(p, c, |m| decoding_strategy::suite_of(m, c));
    Encoder: encoder, |p, c| over(p, c, |make| encoder::suite_of(make));
    FeedForward: feed_forward, |p, c| over(p, c, |make| feed_forward::suite_of(make));
    Hook: hook, |p, c| over(p, c, |make| hook::suite_of(make, c));
    KvCache: kv_cache, |p, c| over(p, c, |make| kv_cache::suite_of(make, c));
    LogitsProcessor: logits_processor, |p, c| {
        logits_processor::suite_of(&|table| open(p, table), c);
    };
    LrSchedule: lr_schedule, |p, c| over(p, c, |make| lr_schedule::suite_of(make));
    Memory: memory, |p, c| over(p, c, |make| memory::suite_of(make, c));
    Mixer: mixer, |p, c| over(p, c, |make| mixer::suite_of(make));
    ModelSource: model_source, |p, c| over(p, c, |make| model_source::suite_of(make, c));
    MoeRouter: moe_router, |p, c| over(p, c, |make| moe_router::suite_of(make));
    Norm: norm, |p, c| over(p, c, |make| norm::suite_of(make));
    Objective: objective, |p, c| over(p, c, |make| objective::suite_of(make));
    Optimizer: optimizer, |p, c| over(p, c, |make| optimizer::suite_of(make));
    OutputParser: output_parser, |p, c| {
        over(p, c, |make| output_parser::suite_of(make, c, &[]));
    };
    Quantizer: quantizer, |p, c| over::<dyn Quantizer, _>(p, c, |make| {
        let steps = steps_of(&make(c).expect("it has started before").lowering());
        quantizer::suite_of(make, steps);
    });
    Residual: residual, |p, c| over(p, c, |make| residual::suite_of(make));
    Reward: reward, |p, c| over(p, c, |make| reward::suite_of(make, c));
    RotaryEmbedding: rotary_embedding, |p, c| {
        over(p, c, |make| rotary_embedding::suite_of(make, c));
    };
    Scheduler: scheduler, |p, c| over(p, c, |make| scheduler::suite_of(make, c));
}

/// How far an element may come back where nobody says so: a little more than a step of its codes.
fn steps_of(lowering: &Lowering) -> f32 {
    match lowering {
        Lowering::Affine { bits, .. } => 1.3 / (1_u32 << bits) as f32,
        Lowering::MiniFloat { mantissa, .. } => 0.5_f32.powi(*mantissa as i32 + 1),
        Lowering::Table { .. } => 0.25,
        Lowering::Opaque => 0.5,
    }
}

fn row(kind: &str) -> Result<&'static Row> {
    ROWS.iter().find(|row| row.kind == kind).ok_or_else(|| Error::NotFound {
        kind: "contract suite".to_owned(),
        name: kind.to_owned(),
        known: ROWS.iter().map(|row| row.kind).collect::<Vec<_>>().join(", "),
    })
}
