//! What a hook point costs: a topic without subscribers, and twenty hooks on every token.
//!
//! Compare within one run only: machines differ, ratios travel.

use std::marker::PhantomData;

use divan::{Bencher, black_box};
use jackfield_runtime::{Bus, Lane, PluginInfo, Registry, Slot, Topic};
use plugin_api::events::{AfterToken, Flow, Subscriptions};
use plugin_api::kinds::scheduler::{Limits, Picked, Waiting};
use plugin_api::testing::machine::Machine;
use plugin_api::{Capability, Config, Registrar, Result, Scheduler};

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

/// A plugin of the builtin lane, made by the registry and called through its slot.
#[divan::bench]
fn builtin_call(bencher: Bencher<'_, '_>) {
    let mut registrar = Registrar::new();
    registrar.provide::<dyn Scheduler, Idle>();
    let (name, description, api) = ("idle".to_owned(), String::new(), "0.0".to_owned());
    let info = PluginInfo { name, description, api, lane: Lane::Builtin, origin: None };
    let mut registry = Registry::new();
    registry.add(info, registrar.into_provided()).expect("the registry is empty");
    let idle = registry.make::<dyn Scheduler>("idle", &Config::new()).expect("it is there");
    let mut slot = Slot::new("idle", idle);
    let (limits, mut out) = (Limits { tokens: 1, seqs: 1 }, Vec::new());
    bencher.bench_local(|| slot.get_mut().pick(black_box(&[]), &limits, &mut out));
}

/// Schedules nothing.
struct Idle;

impl Capability for Idle {
    const NAME: &'static str = "idle";

    fn from_config(_: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Scheduler for Idle {
    fn pick(&mut self, queue: &[Waiting], _: &Limits, _: &mut Vec<Picked>) -> Result<()> {
        black_box(queue);
        Ok(())
    }
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
    let host = Machine::new().host("bench");
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
