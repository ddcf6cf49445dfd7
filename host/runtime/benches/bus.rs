//! What a hook point costs: a topic without subscribers, and twenty hooks on every token.
//!
//! Compare within one run only: machines differ, ratios travel.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use divan::{Bencher, black_box};
use jackfield_runtime::{Bus, Topic};
use plugin_api::events::{AfterToken, Flow, Subscriptions};
use plugin_api::host::{Command, Ended, HostServices, HttpPiece, Level, ReadSeek};
use plugin_api::{Config, Error, Host, Result};

fn main() {
    divan::main();
}

/// The floor: a call through a table of functions.
#[divan::bench]
fn dyn_call(bencher: Bencher<'_, '_>) {
    let mut hook: Box<dyn FnMut(u32) -> Flow> = Box::new(|token| {
        black_box(token);
        Flow::Continue
    });
    bencher.bench_local(|| black_box(&mut hook)(black_box(7)));
}

#[divan::bench]
fn empty_topic(bencher: Bencher<'_, '_>) {
    emit(bencher, 0);
}

#[divan::bench]
fn one_hook(bencher: Bencher<'_, '_>) {
    emit(bencher, 1);
}

#[divan::bench]
fn twenty_hooks(bencher: Bencher<'_, '_>) {
    emit(bencher, 20);
}

fn emit(bencher: Bencher<'_, '_>, num_hooks: usize) {
    let bus = Bus::new();
    let host = Host::new("bench", Arc::new(Nothing));
    for _ in 0..num_hooks {
        let mut on = Subscriptions::new();
        on.after_token(|event, _| {
            black_box(event.token);
            Flow::Continue
        });
        bus.subscribe(&host, on);
    }
    let mut topic: Topic<AfterToken<'static>> = bus.topic();
    topic.refresh();
    let params = Config::new();
    let mut event = AfterToken {
        request: 1,
        index: 0,
        token: 7,
        logprob: 0.0,
        text: "",
        keep_bytes: 0,
        hold_bytes: 0,
        params: &params,
        lent: PhantomData,
    };
    bencher.bench_local(|| topic.emit(black_box(&mut event)));
}

/// A host without services.
struct Nothing;

impl HostServices for Nothing {
    fn log(&self, _: &str, _: Level, _: fmt::Arguments<'_>) {}
    fn monotonic_us(&self) -> u64 {
        0
    }
    fn unix_seconds(&self) -> Result<f64> {
        none()
    }
    fn open(&self, _: &Path) -> Result<Box<dyn ReadSeek>> {
        none()
    }
    fn list(&self, _: &Path) -> Result<Vec<String>> {
        none()
    }
    fn size_bytes(&self, _: &Path) -> Result<Option<u64>> {
        none()
    }
    fn append(&self, _: &Path, _: &[u8]) -> Result<()> {
        none()
    }
    fn rename(&self, _: &Path, _: &Path) -> Result<()> {
        none()
    }
    fn remove(&self, _: &Path) -> Result<()> {
        none()
    }
    fn run(&self, _: &Command, _: &mut dyn FnMut()) -> Result<Ended> {
        none()
    }
    fn http_get(
        &self,
        _: &str,
        _: u64,
        _: &mut dyn FnMut(HttpPiece<'_>) -> Result<()>,
    ) -> Result<()> {
        none()
    }
}

fn none<T>() -> Result<T> {
    Err(Error::unsupported("host service", "a bench has none"))
}
