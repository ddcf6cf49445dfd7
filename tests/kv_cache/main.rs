//! Caches that keep less than 16 bits a number: what they keep, how far answers move, and that they
//! take over from others and give back while requests run.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails")]

mod golden;
mod quality;
mod takeover;
mod tiers;
