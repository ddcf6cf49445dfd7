//! What the lanes cost: calls, rows, instances and loading, native and WASM beside builtin.
//!
//! Compare within one run only: machines differ, ratios travel.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

#[path = "../tests/wasm/fixtures.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod fixtures;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use divan::{Bencher, black_box};
use jackfield_loader::{Format, Grants, Loader, LoaderOptions, Services, seal};
use plugin_api::kinds::Capability;
use plugin_api::kinds::decoding_strategy::{DecodingStrategy, GroupId};
use plugin_api::kinds::kv_cache::SeqId;
use plugin_api::kinds::logits_processor::{
    BatchChange, LogitsProcessor, LogitsRows, RowAccess, RowId,
};
use plugin_api::kinds::scheduler::{Limits, Scheduler, Waiting};
use plugin_api::{Config, Provided};
use tempfile::TempDir;
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

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

#[divan::bench(args = ROWS)]
fn min_p_native(bencher: Bencher<'_, '_>, num_rows: usize) {
    let (loader, path, _folder) = native();
    apply(bencher, made(&loaded(&loader, &path), &Config::new()), num_rows);
}

/// One call that does next to nothing, through the trait object alone.
#[divan::bench]
fn advance_builtin(bencher: Bencher<'_, '_>) {
    let processor = plugin_min_p::MinP::from_config(&Config::new()).expect("no keys are needed");
    advance(bencher, black_box(Box::new(processor)));
}

/// The same through the table of a library, panics guarded.
#[divan::bench]
fn advance_native(bencher: Bencher<'_, '_>) {
    let (loader, path, _folder) = native();
    advance(bencher, made(&loaded(&loader, &path), &Config::new()));
}

fn advance(bencher: Bencher<'_, '_>, mut processor: Box<dyn LogitsProcessor>) {
    let advanced = BatchChange::Advanced { row: RowId(0), token: 7 };
    bencher.bench_local(|| processor.batch(black_box(&advanced)));
}

/// From a file to a started library, its seal, copy and judgement included, its trial not.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn load_native(bencher: Bencher<'_, '_>) {
    let (loader, path, _folder) = native();
    bencher.bench_local(|| loaded(&loader, &path));
}

fn loaded(loader: &Loader, path: &Path) -> Provided {
    loader.load(path, &Config::new()).expect("a fair library").provided.remove(0)
}

/// A loader without trials, and the library of `min-p`.
fn native() -> (Loader, PathBuf, TempDir) {
    let folder = TempDir::new().expect("a temporary folder");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("native-fixtures");
    let cargo = Command::new(env!("CARGO"))
        .args(["rustc", "--quiet", "--lib", "--crate-type", "cdylib", "--release"])
        .args(["--package", "plugin-min-p", "--target-dir"])
        .arg(&target)
        .args(["--", "-C", "strip=symbols"])
        .status();
    assert!(cargo.expect("cargo runs").success(), "min-p has to build");
    let library = std::fs::read(target.join("release/libplugin_min_p.so")).expect("a library");
    let path = folder.path().join("min-p.so");
    std::fs::write(&path, seal::seal(Format::Elf, library)).expect("room in the folder");
    let services = Services::new();
    let options = LoaderOptions {
        folder: folder.path().to_owned(),
        trial: None,
        native_quota: 1000,
        wasm: None,
        hashes: Default::default(),
        trusted: Vec::new(),
        unload: Vec::new(),
        host: Arc::new(move |manifest| services.host(&manifest.name, Grants::none())),
        on_fault: Arc::new(|_, _| ()),
    };
    (Loader::new(options).expect("a loader"), path, folder)
}

/// Without deadlines and with them.
const IS_TRUSTED: [bool; 2] = [true, false];

/// What wasmtime takes for a call with one number in and one out: the floor of the next.
#[divan::bench(args = IS_TRUSTED, sample_size = 1_000)]
fn call_floor(bencher: Bencher<'_, '_>, is_trusted: bool) {
    let mut config = wasmtime::Config::new();
    config.epoch_interruption(!is_trusted).concurrency_support(false);
    let engine = Engine::new(&config).expect("an engine");
    let component = Component::from_binary(&engine, IDENTITY).expect("a fair component");
    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(1);
    let linker = Linker::<()>::new(&engine);
    let instance = linker.instantiate(&mut store, &component).expect("it imports nothing");
    let f = instance.get_typed_func::<(u32,), (u32,)>(&mut store, "f").expect("its one function");
    bencher.bench_local(|| f.call(&mut store, black_box((7,))).expect("it cannot fail"));
}

/// The least that a call of a plugin costs, its guards included: one number in, nothing out. The
/// strategy is told of the end of a request that it does not know.
#[divan::bench(args = IS_TRUSTED, sample_size = 1_000)]
fn call_scalar(bencher: Bencher<'_, '_>, is_trusted: bool) {
    let (lane, bytes) = (Lane::new(), component("greedy"));
    let provided = opened(&lane, &bytes, is_trusted);
    let mut strategy = made::<dyn DecodingStrategy>(&provided, &Config::new());
    bencher.bench_local(|| strategy.close(black_box(GroupId(7))));
}

/// A call with a list in and a list out: a scheduler with a queue of this length.
#[divan::bench(args = [0, 1, 64], sample_size = 1_000)]
fn call_lists(bencher: Bencher<'_, '_>, len: u32) {
    let (lane, bytes) = (Lane::new(), component("fcfs"));
    let provided = opened(&lane, &bytes, false);
    let mut scheduler = made::<dyn Scheduler>(&provided, &Config::new());
    let waiting =
        |i| Waiting { seq: SeqId(i), pending: 1, is_running: true, is_atomic: false, priority: 0 };
    let queue: Vec<Waiting> = (0..len).map(waiting).collect();
    let (limits, mut out) = (Limits { tokens: 64, seqs: 64 }, Vec::new());
    bencher.bench_local(|| {
        out.clear();
        scheduler.pick(black_box(&queue), &limits, &mut out).expect("a fair queue");
    });
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

/// A component whose one function answers what it is given.
#[rustfmt::skip]
const IDENTITY: &[u8] = &[
    0x00, b'a', b's', b'm', 0x0d, 0, 1, 0,
    // A core module with a function of type i32 -> i32, exported as `f`.
    0x01, 35, 0x00, b'a', b's', b'm', 1, 0, 0, 0,
    0x01, 6, 1, 0x60, 1, 0x7f, 1, 0x7f, 0x03, 2, 1, 0,
    0x07, 5, 1, 1, b'f', 0, 0, 0x0a, 6, 1, 4, 0, 0x20, 0, 0x0b,
    // Its instance, the type u32 -> u32, and the function lifted and exported as `f`.
    0x02, 4, 1, 0, 0, 0,
    0x07, 8, 1, 0x40, 1, 1, b'x', 0x79, 0, 0x79,
    0x06, 7, 1, 0, 0, 1, 0, 1, b'f',
    0x08, 6, 1, 0, 0, 0, 0, 0,
    0x0b, 7, 1, 0, 1, b'f', 1, 0, 0,
];
