//! Texts to vectors: a model of its own beside the one that generates, on a thread of its own.
//!
//! [`EncoderModel`] is the model in memory, [`Embedder`] the thread that runs it: it batches what
//! waits and shares nothing with the engine that generates. [`EncoderSwapper`] replaces the plugin
//! that describes the model, for requests that come after.

mod batch;
mod embedder;
mod model;
mod swapper;

pub use embedder::{Embedder, Reply};
pub use model::{EncoderModel, EncoderOptions};
pub use swapper::EncoderSwapper;
