//! What a Jackfield plugin is written against: the only crate its author needs.
//!
//! A plugin is one type that implements [`Capability`] and the trait of its kind
//! ([`kinds`]), a `plugin.toml` that names the kind, and [`export_plugin!`]. Parts that shape the
//! model's computation describe themselves in a [`plan`]; everything else is called. What a plugin
//! needs of the machine it asks of its [`host::Host`].
//!
//! `docs/writing-a-plugin.md` is the way in; `docs/glossary.md` fixes the words.

// Lets `export_plugin!`, which names this crate, be used in the tests of this crate.
extern crate self as plugin_api;

pub mod config;
pub mod error;
pub mod events;
pub mod host;
pub mod kinds;
#[cfg(not(target_family = "wasm"))]
#[doc(hidden)]
pub mod native;
pub mod plan;
pub mod prelude;
pub mod registrar;
pub mod tensor;
#[cfg(feature = "testing")]
pub mod testing;
pub mod version;
mod vocabulary;
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod wasm;
#[doc(hidden)]
pub mod wire;
mod wit_errors;

pub use inventory;
pub use plugin_api_macros::export_plugin;

pub use config::{Config, Value};
pub use error::{Error, Result};
pub use host::Host;
pub use kinds::adapter::Adapter;
pub use kinds::backend::Backend;
pub use kinds::compressor::Compressor;
pub use kinds::curriculum::Curriculum;
pub use kinds::decoding_strategy::DecodingStrategy;
pub use kinds::encoder::Encoder;
pub use kinds::feed_forward::FeedForward;
pub use kinds::hook::Hook;
pub use kinds::kv_cache::KvCache;
pub use kinds::logits_processor::LogitsProcessor;
pub use kinds::lr_schedule::LrSchedule;
pub use kinds::memory::Memory;
pub use kinds::mixer::Mixer;
pub use kinds::model_source::ModelSource;
pub use kinds::moe_router::MoeRouter;
pub use kinds::norm::Norm;
pub use kinds::objective::Objective;
pub use kinds::optimizer::Optimizer;
pub use kinds::output_parser::OutputParser;
pub use kinds::quantizer::{FormatDesc, Lowering, Quantizer, Scales};
pub use kinds::residual::Residual;
pub use kinds::reward::Reward;
pub use kinds::rotary_embedding::RotaryEmbedding;
pub use kinds::scheduler::Scheduler;
pub use kinds::{Capability, Handover, Implements, Kind, LayerRef, Pin, SemanticId, Traced};
pub use registrar::{Builtin, Provided, Registrar, builtins};
pub use tensor::{DType, Shaped, ShapedMut, TensorMut, TensorRef};
pub use vocabulary::{Tokens, Vocabulary};

// The Rust in the documents compiles and runs as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/writing-a-plugin.md")]
struct WritingAPlugin;
#[cfg(doctest)]
#[doc = include_str!("../docs/abi.md")]
struct Abi;
#[cfg(doctest)]
#[doc = include_str!("../docs/errors.md")]
struct Errors;
