//! What the WASM lane costs: calls, rows, instances and loading, beside the builtin lane.
//!
//! Compare within one run only: machines differ, ratios travel.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

#[path = "../tests/wasm/fixtures.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod fixtures;

use divan::{Bencher, black_box};
use plugin_api::kinds::Capability;
use plugin_api::kinds::logits_processor::{
    BatchChange, LogitsProcessor, LogitsRows, RowAccess, RowId,
};
use plugin_api::kinds::scheduler::{Limits, Scheduler};
use plugin_api::{Config, Provided};

use fixtures::{Lane, component, made, min_p};

fn main() {
    divan::main();
}

/// Rows that cost nothing: only the way to them is measured.
struct Rows(usize);

impl RowAccess for Rows {
    fn num_rows(&self) -> usize {
        self.0
    }
    fn id(&self, row: usize) -> RowId {
        RowId(row as u32)
    }
    fn vocab_size(&self) -> usize {
        128_000
    }
    fn max(&mut self, row: usize) -> f32 {
        black_box(row as f32)
    }
    fn log_sum_exp(&mut self, row: usize) -> f32 {
        black_box(row as f32)
    }
    fn logit(&mut self, row: usize, _: u32) -> f32 {
        black_box(row as f32)
    }
    fn top_k(&mut self, _: usize, _: usize) -> &[(u32, f32)] {
        &[]
    }
    fn scale(&mut self, row: usize, by: f32) {
        black_box((row, by));
    }
    fn set(&mut self, row: usize, token: u32, logit: f32) {
        black_box((row, token, logit));
    }
    fn keep_above(&mut self, row: usize, threshold: f32) {
        black_box((row, threshold));
    }
    fn keep_top_k(&mut self, row: usize, k: usize) {
        black_box((row, k));
    }
    fn keep_top_p(&mut self, row: usize, p: f32) {
        black_box((row, p));
    }
    fn mask(&mut self, row: usize, allowed: &[u32]) {
        black_box((row, allowed));
    }
    fn whole(&mut self, _: usize) -> &mut [f32] {
        &mut []
    }
}

const ROWS: [usize; 2] = [1, 64];

/// `apply` on rows whose requests ask for it, with a token more in each before.
fn apply(bencher: Bencher<'_, '_>, mut processor: Box<dyn LogitsProcessor>, num_rows: usize) {
    let params = Config::new().with("min_p", 0.1).with("temperature", 0.7);
    for row in 0..num_rows as u32 {
        let added = BatchChange::Added { row: RowId(row), params: &params, history: &[1, 2, 3] };
        processor.batch(&added).expect("fair parameters");
    }
    let mut rows = Rows(num_rows);
    bencher.bench_local(|| {
        for row in 0..num_rows as u32 {
            let advanced = BatchChange::Advanced { row: RowId(row), token: 7 };
            processor.batch(&advanced).expect("a fair change");
        }
        processor.apply(&mut LogitsRows::new(&mut rows)).expect("fair rows");
    });
}

fn opened(lane: &Lane, bytes: &[u8], is_trusted: bool) -> Provided {
    lane.open_as(bytes, is_trusted).expect("a fair component")
}

#[divan::bench(args = ROWS)]
fn min_p_builtin(bencher: Bencher<'_, '_>, num_rows: usize) {
    let processor = plugin_min_p::MinP::from_config(&Config::new()).expect("no keys are needed");
    apply(bencher, Box::new(processor), num_rows);
}

#[divan::bench(args = ROWS)]
fn min_p_wasm(bencher: Bencher<'_, '_>, num_rows: usize) {
    let lane = Lane::new();
    apply(bencher, made(&opened(&lane, min_p(), false), &Config::new()), num_rows);
}

#[divan::bench(args = ROWS)]
fn min_p_wasm_trusted(bencher: Bencher<'_, '_>, num_rows: usize) {
    let lane = Lane::new();
    apply(bencher, made(&opened(&lane, min_p(), true), &Config::new()), num_rows);
}

#[divan::bench(args = ROWS)]
fn temperature_builtin(bencher: Bencher<'_, '_>, num_rows: usize) {
    let processor = plugin_temperature::Temperature::from_config(&Config::new());
    apply(bencher, Box::new(processor.expect("no keys are needed")), num_rows);
}

#[divan::bench(args = ROWS)]
fn temperature_wasm(bencher: Bencher<'_, '_>, num_rows: usize) {
    let (lane, bytes) = (Lane::new(), component("temperature"));
    apply(bencher, made(&opened(&lane, &bytes, false), &Config::new()), num_rows);
}

/// The least a call costs: a scheduler with nothing to do.
#[divan::bench]
fn empty_call(bencher: Bencher<'_, '_>) {
    let (lane, bytes) = (Lane::new(), component("fcfs"));
    let provided = opened(&lane, &bytes, true);
    let mut scheduler = made::<dyn Scheduler>(&provided, &Config::new());
    let (limits, mut out) = (Limits { tokens: 1, seqs: 1 }, Vec::new());
    bencher.bench_local(|| scheduler.pick(black_box(&[]), &limits, &mut out));
}

#[divan::bench]
fn instantiate(bencher: Bencher<'_, '_>) {
    let lane = Lane::new();
    let provided = opened(&lane, min_p(), false);
    let config = Config::new();
    bencher.bench_local(|| made::<dyn LogitsProcessor>(&provided, &config));
}

#[divan::bench]
fn open_from_cache(bencher: Bencher<'_, '_>) {
    let lane = Lane::new();
    opened(&lane, min_p(), false);
    bencher.bench_local(|| opened(&lane, min_p(), false));
}

#[divan::bench(sample_count = 10)]
fn open_cold(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(Lane::new).bench_local_values(|lane| opened(&lane, min_p(), false));
}
