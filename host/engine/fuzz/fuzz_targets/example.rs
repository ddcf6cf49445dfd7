//! Lines of files of examples.
#![no_main]

#[path = "../exercise.rs"]
#[allow(dead_code, reason = "each target uses its own part")]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    exercise::example(bytes);
});
