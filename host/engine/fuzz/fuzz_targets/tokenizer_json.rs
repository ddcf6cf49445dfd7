//! `tokenizer.json` files.
//!
//! The `tokenizers` crate panics on some of them and the engine turns that into an error; the
//! silent hook keeps libFuzzer from aborting before it can. A panic that escapes still aborts.
#![no_main]

#[path = "../exercise.rs"]
#[allow(dead_code, reason = "each target uses its own part")]
mod exercise;

libfuzzer_sys::fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| ())),
    |bytes: &[u8]| {
        exercise::tokenizer_json(bytes);
    }
);
