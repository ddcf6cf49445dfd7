//! Replays the fuzz corpus and thousands of mutations of it: a hostile file is an error, never a
//! panic, and never an allocation from a length that nobody checked.
//!
//! Deterministic: mutations come from a seed that is printed with every finding.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code outside #[test] functions")]

#[path = "../fuzz/exercise.rs"]
mod exercise;

use std::alloc::System;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations are counted for the whole process: one test at a time.
static COUNTING: Mutex<()> = Mutex::new(());

#[test]
fn gguf_headers_are_errors_or_fine() {
    // Names and tables are copied, values are not: some times the file, whatever it says.
    replay("gguf", 64, 64 << 10, |bytes| exercise::gguf_header(bytes).is_some());
}

#[test]
fn gguf_tokenizers_and_templates_are_errors_or_fine() {
    // Patterns are compiled, which takes megabytes but no length from the file.
    replay("gguf", 64, 64 << 20, exercise::gguf);
}

#[test]
fn safetensors_are_errors_or_fine() {
    replay("safetensors", 64, 64 << 10, exercise::safetensors);
}

#[test]
fn tokenizer_json_are_errors_or_fine() {
    replay("tokenizer_json", 64, 64 << 20, exercise::tokenizer_json);
}

#[test]
fn lines_of_examples_are_errors_or_fine() {
    replay("example", 64, 64 << 10, exercise::example);
}

/// Runs `exercise` on every file of a corpus and on its mutations; it may allocate at most
/// `per_byte` times the file plus `fixed` bytes, over its whole run.
fn replay(corpus: &str, per_byte: usize, fixed: usize, exercise: impl Fn(&[u8]) -> bool) {
    let _counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    // Panics inside the `tokenizers` crate are caught there; their messages would be noise.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let findings = run(corpus, per_byte, fixed, exercise);
    std::panic::set_hook(hook);
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

fn run(
    corpus: &str,
    per_byte: usize,
    fixed: usize,
    exercise: impl Fn(&[u8]) -> bool,
) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(corpus);
    let mut findings = Vec::new();
    let (mut accepted, mut count) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let seed = std::fs::read(&path).unwrap();
        if !exercise(&seed) {
            findings.push(format!("{}: the seed itself is refused", path.display()));
        }
        for (name, bytes) in mutations(&seed) {
            let region = Region::new(ALLOCATOR);
            let result = catch_unwind(AssertUnwindSafe(|| exercise(&bytes)));
            let change = region.change();
            let allocated = change.bytes_allocated + change.bytes_reallocated.max(0) as usize;
            let allowed = bytes.len() * per_byte + fixed;
            if result.is_err() || allocated > allowed {
                let what = if result.is_err() { "panicked" } else { "allocated" };
                findings.push(format!("{} {name}: {what}, {allocated} bytes", path.display()));
            }
            accepted += usize::from(result.unwrap_or(false));
            count += 1;
        }
    }
    println!("{corpus}: {count} mutations, {accepted} accepted");
    assert!(count > 2000, "{corpus}: expected thousands of mutations, found {count}");
    findings
}

/// Every truncation, huge values at every offset, numbers in JSON made huge, bits flipped.
fn mutations(seed: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut mutations = Vec::new();
    for len in 0..seed.len() {
        mutations.push((format!("cut to {len}"), seed[..len].to_vec()));
    }
    for at in 0..seed.len() {
        for value in [u64::MAX, i64::MAX as u64, 1 << 40, u64::from(u32::MAX), 0] {
            let mut bytes = seed.to_vec();
            let end = (at + 8).min(seed.len());
            bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            mutations.push((format!("{value:#x} at {at}"), bytes));
        }
        if seed[at].is_ascii_digit() && (at == 0 || !seed[at - 1].is_ascii_digit()) {
            for number in ["4294967295", "18446744073709551615", "-1", "1e308", "999999"] {
                let digits = seed[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                let bytes = [&seed[..at], number.as_bytes(), &seed[at + digits..]].concat();
                mutations.push((format!("{number} at {at}"), bytes));
            }
        }
    }
    let mut random = Random(SEED);
    for round in 0..FLIPS {
        let mut bytes = seed.to_vec();
        for _ in 0..=round % 4 {
            let bit = random.next() as usize % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        mutations.push((format!("flip {round} of seed {SEED}"), bytes));
    }
    mutations
}

/// SplitMix64: Steele et al., "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

const SEED: u64 = 42;
/// Random flips of each file.
const FLIPS: usize = 1000;
