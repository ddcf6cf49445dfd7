//! One file = one kind = one trait of at most six required methods.
//!
//! A kind never names one of its implementations. How a kind may be swapped is part of it
//! ([`Kind::PIN`]); how a plugin of it runs (its lane) is not.

use std::fmt;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::plan::{OpSink, Val};
use crate::tensor::{Shaped, ShapedMut};

pub mod adapter;
pub mod backend;
pub mod compressor;
pub mod curriculum;
pub mod decoding_strategy;
pub mod encoder;
pub mod feed_forward;
pub mod hook;
pub mod kv_cache;
pub mod logits_processor;
pub mod lr_schedule;
pub mod memory;
pub mod mixer;
pub mod model_source;
pub mod moe_router;
pub mod norm;
pub mod objective;
pub mod optimizer;
pub mod output_parser;
pub mod quantizer;
pub mod residual;
pub mod reward;
pub mod rotary_embedding;
pub mod scheduler;

/// One kind provided under one name. Names and construction live apart from the kind's trait, so
/// that the trait stays object-safe.
pub trait Capability: Sized {
    /// The name that configuration uses, in kebab-case.
    const NAME: &'static str;

    /// Reads the plugin's table of `jackfield.toml`, once. [loading]
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for a value outside its range;
    /// [`Error::Unsupported`](crate::Error::Unsupported) with what is missing where this machine or
    /// build cannot run the plugin.
    fn from_config(config: &Config) -> Result<Self>;
}

/// What a plugin's numbers mean. Plugins with equal ids may replace each other between two tokens
/// of one sequence; with different ids a swap serves new requests only.
///
/// Write what would change the numbers: `rms-norm/1`, `paged f16/1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SemanticId(pub String);

impl SemanticId {
    /// An id from text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for SemanticId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where in a model a trace happens.
#[derive(Debug, Clone, Copy)]
pub struct LayerRef<'a> {
    /// Which decoder layer, from 0; the parts around the layers see 0.
    pub index: u32,
    /// Hyperparameters of this layer under their names in `config.json`: `hidden_size`,
    /// `num_attention_heads`, `head_dim`, `rms_norm_eps`, `rope_theta` …
    pub config: &'a Config,
}

/// A part of the model's computation: describes itself once, and runs only where it asked to be called.
pub trait Traced: Send + Sync {
    /// What the numbers of this part mean. [any thread]
    fn semantic_id(&self) -> SemanticId;

    /// Describes the part over the values `x`. [compile thread, never the step thread]
    ///
    /// # Errors
    ///
    /// Whatever the sink returns, and [`Error::Config`](crate::Error::Config) for hyperparameters
    /// that this part cannot work with.
    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>>;

    /// Computes what the trace left to a [`call`](OpSink::call): reads `inputs`, writes every element of
    /// `outputs`. Optional, for what no op can say. [step thread]
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) for a callback that the trace does not name. Any
    /// error fails the step, and with it, if it stays, the requests in it.
    fn call(
        &self,
        callback: &str,
        inputs: &[Shaped<'_>],
        outputs: &mut [ShapedMut<'_>],
    ) -> Result<()> {
        let _ = (inputs, outputs);
        Err(Error::unsupported(format!("callback `{callback}`"), "this part is described whole"))
    }
}

/// Optional for kinds that keep something between steps: carries what a generation has learnt into
/// the next one.
pub trait Handover {
    /// Appends the state, with a schema version first. [boundary]
    ///
    /// # Errors
    ///
    /// [`Error::Outside`](crate::Error::Outside) if the state cannot be read.
    fn save(&self, out: &mut Vec<u8>) -> Result<()>;

    /// Takes over what an older or newer generation saved; untouched on error. [boundary]
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`](crate::Error::Malformed) for an unknown schema version: the swap is
    /// then refused.
    fn restore(&mut self, bytes: &[u8]) -> Result<()>;
}

/// With what a running instance of a kind stays together when its slot is refilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// Swapped for the whole engine between two steps, its state handed over.
    EngineStep,
    /// A request keeps the generation that it started with.
    Request,
    /// Swapped between two calls.
    Call,
    /// Swapped between two steps of a training run, its state handed over.
    TrainingStep,
    /// A run keeps what it began with.
    Run,
}

/// A kind, as data. Implemented for `dyn Trait`, by the kinds here only.
pub trait Kind: 'static {
    /// The name in manifests and configuration, in kebab-case.
    const NAME: &'static str;
    /// How it may be swapped.
    const PIN: Pin;
    /// Whether its instances describe the computation instead of running.
    const IS_TRACED: bool;
}

/// Says that a type can stand behind the trait object `K`. Implemented for every type with the
/// trait; authors never write it.
pub trait Implements<K: ?Sized> {
    /// The instance as a trait object.
    fn boxed(self) -> Box<K>;
}

/// Makes `dyn $trait` a kind.
macro_rules! kind {
    ($trait:ident, $name:literal, $pin:ident, traced: $traced:literal) => {
        impl $crate::kinds::Kind for dyn $trait {
            const NAME: &'static str = $name;
            const PIN: $crate::kinds::Pin = $crate::kinds::Pin::$pin;
            const IS_TRACED: bool = $traced;
        }
        impl<T: $trait + 'static> $crate::kinds::Implements<dyn $trait> for T {
            fn boxed(self) -> Box<dyn $trait> {
                Box::new(self)
            }
        }
    };
}
use kind;
