//! The native lane: shims between the traits of [`kinds`](crate::kinds) and the tables of
//! `plugin-api-abi`, one file or folder for each kind with both directions in it.
//!
//! Only translation, and the one place of this crate with `unsafe`. On the plugin's side functions
//! of a table work on a trait object behind a pointer, each inside [`guard`]: a panic becomes a
//! status, since each library has its own std and only a guard inside it can catch. On the host's
//! side an adapter implements the trait by calling the table; after a panic it calls no more.

#![allow(unsafe_code, reason = "what crosses a library boundary is pointers")]

mod backend;
mod cached;
mod call;
mod compressor;
mod curriculum;
mod decoding_strategy;
mod digest;
mod entry;
mod guard;
mod handover;
mod hook;
mod host;
mod kv_cache;
mod logits_processor;
mod memory;
mod model_source;
mod op_sink;
mod output_parser;
mod owner;
mod piece;
mod quantizer;
mod reward;
mod rows;
mod scheduler;
mod shaped;
mod traced;

pub use abi::{Entry, MAGIC, SYMBOL_PREFIX};
pub use digest::DIGEST;
#[cfg(feature = "testing")]
pub use entry::across;
pub use entry::{Crosses, Foreign, entry_of, open_of};
pub use owner::Owner;
pub use plugin_api_abi as abi;
