//! Models, generation and training on plugins.
//!
//! The engine knows language models and plugin kinds; it never learns a plugin's lane.

pub mod encode;
pub mod error;
pub mod generate;
pub mod memory;
pub mod model;
pub mod quantize;
pub mod swap;
pub mod train;
pub mod wiring;

pub use encode::{Embedder, EncoderModel, EncoderOptions, EncoderSwapper};
pub use error::EngineError;
pub use generate::{
    Admitted, Encoded, Engine, Gauge, Load, Output, Prompt, PromptToken, Request, RequestId, Stats,
};
pub use memory::{Memories, MemorySwapper, Recalled};
pub use swap::Swapper;
pub use train::{TextLoader, TrainOptions, Trainer};
pub use wiring::Wiring;
