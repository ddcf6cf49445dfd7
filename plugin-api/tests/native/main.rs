//! The native lane in one process: what is exported and imported behaves as the original, and
//! panics, errors and lies stay what they are.

#![cfg(feature = "testing")]
#![allow(unsafe_code, reason = "tables are called through pointers")]
#![allow(clippy::unwrap_used, reason = "what is unwrapped is the test's own")]

mod allocations;
mod backend;
mod compressor;
mod hooks;
mod kv_cache;
mod lane;
mod liars;
mod memories;
mod quantizer;
mod rig;
mod sources;
mod stepwise;
mod subject;
mod traced;
mod wire;
