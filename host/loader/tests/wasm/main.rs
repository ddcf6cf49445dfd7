//! The WASM lane on real components: plugins of this tree and a hostile one, built by the tests.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod cache;
mod faults;
mod fixtures;
mod hostile_bytes;
mod same_as_builtin;
