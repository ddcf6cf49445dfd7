//! For the tests of plugins: contract suites, an interpreter of plans, a host in memory.
//!
//! One file a kind: `testing::norm::suite::<RmsNorm>()` is the one line that a plugin's tests
//! need. A suite panics with a sentence when its contract is broken.

pub mod backend;
pub mod decoding_strategy;
pub mod feed_forward;
pub mod golden;
pub mod hook;
pub mod interpreter;
pub mod kv_cache;
pub mod logits_processor;
pub mod machine;
pub mod mixer;
pub mod model_source;
pub mod norm;
pub mod quantizer;
pub mod random;
pub mod residual;
pub mod rotary_embedding;
pub mod rows;
pub mod scheduler;
pub mod tolerance;
pub mod traced;
