//! The server over loopback: statuses, streams, limits, ends.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a test that cannot go on fails"
)]

mod browser;
mod caches;
mod client;
mod clients;
mod embeddings;
mod limits;
mod masks;
mod operators;
mod page;
mod service;
mod sessions;
mod statuses;
mod streams;
mod training;
