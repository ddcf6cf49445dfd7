//! Parts are replaced while requests run: nothing is lost, and every token says what made it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails")]

mod adapters;
mod conversion;
mod files;
mod generations;
mod matrix;
mod mid_stream;
mod parts;
mod refused;
#[path = "../../host/loader/tests/guests/round-robin/src/round_robin.rs"]
mod round_robin;
mod schedulers;
mod sets;
mod threads;
mod under_fire;
mod wasm_faults;

use std::any::Any;
use std::time::Duration;

use jackfield_engine::model::PlanDigest;
use jackfield_engine::{Engine, Output, Request, RequestId};
use jackfield_runtime::{Replacement, SlotStatus, SwapError, SwapTarget, Swapped};
use jackfield_tests::Setup;
use plugin_api::Config;

/// What a swapper takes: an instance as a registered plugin makes it.
fn instance(setup: &Setup, kind: &str, name: &str, config: &Config) -> Box<dyn Any + Send> {
    (setup.registry.find(kind, name).unwrap().make)(config).unwrap()
}

/// Prepares and offers on this thread, which also runs the steps: no boundary is waited for.
fn swap(engine: &Engine, setup: &Setup, kind: &str, name: &str) -> Result<Swapped, SwapError> {
    swap_with(engine, setup, kind, name, &Config::new())
}

fn swap_with(
    engine: &Engine,
    setup: &Setup,
    kind: &str,
    name: &str,
    config: &Config,
) -> Result<Swapped, SwapError> {
    let instance = instance(setup, kind, name, config);
    engine.swapper().swap(kind, name, instance, Duration::ZERO)
}

/// A member of a set.
fn member(setup: &Setup, kind: &str, name: &str, config: &Config) -> Replacement {
    let (slot, name) = (kind.to_owned(), name.to_owned());
    Replacement { instance: instance(setup, kind, &name, config), slot, name }
}

/// What fills each slot, in words: `kv-cache: paged#2`, with requests that hold earlier ones.
fn slots(engine: &Engine) -> Vec<String> {
    let describe = |s: SlotStatus| {
        let draining = s.draining.iter().map(|(label, n)| format!(", {label} with {n}"));
        format!("{}: {}{}", s.kind, s.active, draining.collect::<String>())
    };
    engine.swapper().slots().into_iter().map(describe).collect()
}

fn slot(engine: &Engine, kind: &str) -> String {
    slots(engine).into_iter().find(|s| s.starts_with(&format!("{kind}:"))).unwrap()
}

/// A request of `max_tokens` tokens that are drawn.
fn request(max_tokens: i64) -> Request {
    let request = Request::new(vec![510, 3, 7, 31]).with("max_tokens", max_tokens);
    request.with("ignore_eos", true).with("temperature", 0.8).with("seed", 5)
}

/// One token of an answer.
type Token = (RequestId, u32, PlanDigest);

/// One step, which may give tokens of several requests.
fn step(engine: &mut Engine, tokens: &mut Vec<Token>) {
    let sink = &mut |output: Output<'_>| match output {
        Output::Token { request, token, digest, .. } => tokens.push((request, token, *digest)),
        Output::Finished { error, .. } => assert_eq!(error, None),
    };
    engine.step(sink).unwrap();
}

/// The tokens of one request.
fn of(tokens: &[Token], request: RequestId) -> Vec<u32> {
    tokens.iter().filter(|(id, ..)| *id == request).map(|(_, token, _)| *token).collect()
}
