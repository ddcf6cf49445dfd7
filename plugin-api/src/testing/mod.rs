//! For the tests of plugins: contract suites, an interpreter of plans, a host in memory.
//!
//! One file a kind: `testing::norm::suite::<RmsNorm>()` is the one line that a plugin's tests
//! need. A suite panics with a sentence when its contract is broken. `suite_of` is the same for
//! whoever has a way to make instances and no type, as a host has of a plugin in a file.

pub mod adapter;
pub mod backend;
mod called;
pub mod compressor;
pub mod curriculum;
pub mod decoding_strategy;
pub mod encoder;
pub mod feed_forward;
mod fuzz;
pub mod golden;
pub mod gradient;
pub mod hook;
pub mod interpreter;
pub mod kv_cache;
pub mod logits_processor;
pub mod lr_schedule;
pub mod machine;
pub mod memory;
pub mod mixer;
pub mod model_source;
pub mod moe_router;
pub mod norm;
pub mod objective;
pub mod optimizer;
pub mod output_parser;
pub mod provided;
pub mod quantizer;
pub mod random;
pub mod residual;
pub mod reward;
pub mod rotary_embedding;
pub mod rows;
pub mod scheduler;
pub mod tolerance;
pub mod traced;

use crate::config::Config;
use crate::error::Result;
use crate::kinds::{Capability, Implements};

/// Makes the instances that a suite is run on.
pub type Make<'a, K> = &'a dyn Fn(&Config) -> Result<Box<K>>;

/// Makes instances of a type.
///
/// # Errors
///
/// What the type's own constructor returns.
pub fn make<K: ?Sized, T: Capability + Implements<K>>(config: &Config) -> Result<Box<K>> {
    Ok(T::from_config(config)?.boxed())
}
