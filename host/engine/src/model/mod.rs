//! Models: what is in their files, how plugins describe them, and where their weights lie.

pub mod adapter;
pub mod blueprint;
pub(crate) mod callback;
pub mod chat_template;
pub mod error;
pub mod export;
pub mod files;
pub mod gguf;
pub mod hyperparameters;
pub mod interleaved;
pub(crate) mod lent_tokens;
pub mod loaded;
pub mod memory;
pub mod mmap;
pub mod precise;
pub mod safetensors;
pub mod tokenizer;
pub mod trace;
pub mod views;
pub mod weights;

pub use chat_template::{ChatTemplate, Message};
pub use error::ModelError;
pub use files::{Metadata, ModelFiles, TensorDesc, TensorView};
pub use hyperparameters::Architecture;
pub use interleaved::InterleavedRows;
pub use loaded::{FirstParts, LoadOptions, LoadedModel, PlanDigest};
pub use tokenizer::{StreamDecoder, Tokenizer};
