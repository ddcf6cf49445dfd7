//! Parts that are called at run time: the plan is cut where they are, in every lane, on every backend, and under swaps.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jackfield::BuildLane;
use jackfield_engine::{Engine, EngineError, Output, Request};
use jackfield_loader::{Grants, Services};
use jackfield_runtime::{Lane, PluginInfo, SwapTarget};
use jackfield_tests::{Setup, answer, built, golden, tiny_model};
use plugin_api::Registrar;
use plugin_api::events::{Flow, Subscriptions};
use plugin_api::prelude::*;
use plugin_api::testing::machine::Machine;
use serde_json::Value as Json;

/// As for the other models that mlx-lm computes: F32 sums in another order.
const TOLERANCE: f64 = 1e-4;

/// Routers of tests stand beside the others in each layer of the model.
const LAYERS: u64 = 2;

fn setup(backend: &str) -> Setup {
    Setup::new(backend).set("paged", "dtype", "f32").with("moe-router", "hash")
}

fn request() -> Request {
    let request = Request::new(vec![510, 3, 7, 42, 99]).strategy("greedy");
    request.with("max_tokens", 24).with("ignore_eos", true)
}

fn tokens(setup: &Setup) -> Vec<u32> {
    let folder = tiny_model("tiny_mixtral");
    answer(&mut setup.load(folder.path()).unwrap(), request()).1
}

fn ids(value: &Json) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn logits_are_those_of_mlx_lm_however_steps_are_cut() {
    let text = std::fs::read_to_string(golden("hash_router.json")).unwrap();
    let cases: Json = serde_json::from_str(&text).unwrap();
    let folder = tiny_model("tiny_mixtral");
    // The other backends have no kernel for the op that picks logits by choice.
    for (backend, per_step) in [("reference", 512), ("cpu", 512), ("cpu", 5)] {
        for case in cases.as_array().unwrap() {
            let mut setup = setup(backend).set("hash", "seed", case["seed"].as_i64().unwrap());
            setup.options.tokens_per_step_max = per_step;
            let mut engine = setup.load(folder.path()).unwrap();
            let (prompt, mut logits) = (ids(&case["ids"]), Vec::new());
            let each = &mut |_: usize, row: &[f32]| logits.extend_from_slice(row);
            engine.evaluate(&prompt, prompt.len() - 1, per_step, each).unwrap();
            let theirs = case["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap());
            let theirs: Vec<f64> = theirs.collect();
            let largest = theirs.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
            assert_eq!(logits.len(), theirs.len());
            for (ours, theirs) in logits.iter().zip(&theirs) {
                let distance = (f64::from(*ours) - theirs).abs() / largest;
                assert!(distance <= TOLERANCE, "{backend}, {per_step}: {ours} against {theirs}");
            }
            let request = Request::new(prompt).strategy("greedy");
            let request = request.with("max_tokens", 24).with("ignore_eos", true);
            let found = answer(&mut engine, request).1;
            assert_eq!(found, ids(&case["greedy"]), "{backend}, {per_step}");
        }
    }
}

#[test]
fn shared_libraries_and_components_are_called_for_each_layer_of_each_step() {
    let (state, expected) = (tempfile::tempdir().unwrap(), tokens(&setup("cpu")));
    let folder = tiny_model("tiny_mixtral");
    for lane in [BuildLane::Native, BuildLane::Wasm] {
        let mut setup = setup("cpu");
        let plugin = built(state.path(), "moe-router/hash", lane);
        setup.registry.replace(plugin.info(), plugin.provided.clone()).unwrap();
        let mut engine = setup.load(folder.path()).unwrap();
        let generation = plugin.generation.unwrap();
        let traced = generation.calls();
        assert_eq!(answer(&mut engine, request()).1, expected, "{lane:?}");
        if lane == BuildLane::Wasm {
            // A step for the prompt, which gives the first token, and one for each of the others.
            assert_eq!(generation.calls(), traced + LAYERS * 24);
        }
    }
}

#[test]
fn a_cache_in_files_brings_in_the_states_of_the_layer_that_runs() {
    let (folder, model) = (tempfile::tempdir().unwrap(), tiny_model("tiny_mixtral"));
    let path = folder.path().to_str().unwrap();
    let tiered = setup("cpu").with("kv-cache", "tiered").set("tiered", "folder", path);
    let tiered = tiered.set("tiered", "memory_kib", 8).set("tiered", "chunk_kib", 4);
    let mut tiered = tiered.set("tiered", "dtype", "f32");
    let paths = || Value::List(vec![path.into()]);
    let grants = Config::new().with("read", paths()).with("write", paths());
    let (services, grants) = (Services::new(), Grants::from_config(&grants).unwrap());
    tiered.wiring.lend(move |name, _| services.host(name, grants.clone()));
    let mut engine = tiered.load(model.path()).unwrap();
    assert_eq!(answer(&mut engine, request()).1, tokens(&setup("cpu")));
    let stats = engine.tier_stats().unwrap();
    assert!(stats.reads > 0, "{stats:?}");
}

/// A hash that fails while it is told to.
struct Flaky(Box<dyn MoeRouter>);

static FAILS: AtomicBool = AtomicBool::new(false);

impl Capability for Flaky {
    const NAME: &'static str = "flaky";

    fn from_config(config: &Config) -> Result<Self> {
        let registry = jackfield::load_registry().map_err(|e| Error::outside("flaky", e))?;
        let inner = registry.make::<dyn MoeRouter>("hash", config);
        Ok(Self(inner.map_err(|e| Error::outside("flaky", e))?))
    }
}

impl Traced for Flaky {
    fn semantic_id(&self) -> SemanticId {
        self.0.semantic_id()
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        self.0.trace(g, x, at)
    }

    fn call(
        &self,
        callback: &str,
        inputs: &[Shaped<'_>],
        outputs: &mut [ShapedMut<'_>],
    ) -> Result<()> {
        if FAILS.load(Ordering::Relaxed) && callback == "choose-1" {
            return Err(Error::outside("flaky", "told to fail"));
        }
        self.0.call(callback, inputs, outputs)
    }
}

impl MoeRouter for Flaky {}

/// Where experts are chosen that there are not.
struct Astray;

impl Capability for Astray {
    const NAME: &'static str = "astray";

    fn from_config(_: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Astray {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("astray/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], _: &LayerRef<'_>) -> Result<Vec<Val>> {
        let logits = g.linear(x[0], "router")?;
        let dims = [Dim::TOKENS, 2.into()];
        g.call("astray", &[logits], &[Spec::f32(dims), Spec::u32(dims)])
    }

    fn call(&self, _: &str, _: &[Shaped<'_>], outputs: &mut [ShapedMut<'_>]) -> Result<()> {
        outputs[0].values.f32s_mut()?.fill(f32::NAN);
        outputs[1].values.u32s_mut()?.fill(u32::MAX);
        Ok(())
    }
}

impl MoeRouter for Astray {}

fn provide<T: Capability + MoeRouter + 'static>(setup: &mut Setup) {
    let mut registrar = Registrar::new();
    registrar.provide::<dyn MoeRouter, T>();
    let (name, api) = (T::NAME.to_owned(), "0.0".to_owned());
    let description = String::new();
    let info = PluginInfo { name, description, api, lane: Lane::Builtin, origin: None };
    setup.registry.add(info, registrar.into_provided()).unwrap();
}

fn swap(engine: &Engine, setup: &Setup, router: &str, config: &Config) {
    let instance = (setup.registry.find("moe-router", router).unwrap().make)(config).unwrap();
    engine.swapper().swap("moe-router", router, instance, Duration::ZERO).unwrap();
}

fn step(engine: &mut Engine, tokens: &mut Vec<u32>) -> Result<(), EngineError> {
    let sink = &mut |output: Output<'_>| match output {
        Output::Token { token, .. } => tokens.push(token),
        Output::Finished { error, .. } => assert_eq!(error, None),
    };
    engine.step(sink).map(|_| ())
}

#[test]
fn a_callback_that_fails_is_told_by_name_and_its_requests_go_on_with_another() {
    let mut setup = setup("cpu");
    let expected = tokens(&setup);
    provide::<Flaky>(&mut setup);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (mut on, note) = (Subscriptions::new(), Arc::clone(&heard));
    on.on_fault(move |e, _| {
        note.lock().unwrap().push(format!("{}/{}", e.kind, e.plugin));
        Flow::Continue
    });
    setup.bus.subscribe(&Machine::new().host("listener"), on);
    let setup = setup.with("moe-router", "flaky");
    let folder = tiny_model("tiny_mixtral");
    let mut engine = setup.load(folder.path()).unwrap();
    engine.submit(request()).unwrap();
    let mut tokens = Vec::new();
    for _ in 0..9 {
        step(&mut engine, &mut tokens).unwrap();
    }
    FAILS.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let error = step(&mut engine, &mut tokens).unwrap_err();
        assert!(error.to_string().contains("step"), "{error}");
    }
    assert_eq!(*heard.lock().unwrap(), ["moe-router/flaky"; 3]);
    // The same meaning: the request that runs goes on with it.
    swap(&engine, &setup, "hash", &Config::new());
    while engine.num_running() > 0 {
        step(&mut engine, &mut tokens).unwrap();
    }
    assert_eq!(tokens, expected);
}

#[test]
fn experts_that_there_are_not_end_in_an_error() {
    for backend in ["reference", "cpu"] {
        let mut setup = setup(backend);
        provide::<Astray>(&mut setup);
        let folder = tiny_model("tiny_mixtral");
        let mut engine = setup.with("moe-router", "astray").load(folder.path()).unwrap();
        engine.submit(request()).unwrap();
        let error = step(&mut engine, &mut Vec::new()).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("4294967295"), "{backend}: {error}: {source}");
    }
}

#[test]
fn called_and_described_routers_take_over_from_each_other_for_new_requests() {
    let folder = tiny_model("tiny_mixtral");
    let other = Config::new().with("seed", 7);
    let by_hash = [tokens(&setup("cpu")), tokens(&setup("cpu").set("hash", "seed", 7))];
    let described = tokens(&setup("cpu").with("moe-router", "mixtral"));
    assert!(by_hash[0] != by_hash[1] && by_hash[0] != described && by_hash[1] != described);
    let setup = setup("cpu");
    let mut engine = setup.load(folder.path()).unwrap();
    let running = engine.submit(request()).unwrap();
    let mut found = Vec::new();
    for _ in 0..5 {
        step(&mut engine, &mut found).unwrap();
    }
    swap(&engine, &setup, "mixtral", &Config::new());
    let (mut of_running, mut of_next) = (found, Vec::new());
    step(&mut engine, &mut of_running).unwrap();
    engine.submit(request()).unwrap();
    let mut digests = Vec::new();
    while engine.num_running() > 0 {
        let sink = &mut |output: Output<'_>| {
            if let Output::Token { request, token, digest, .. } = output {
                if request == running {
                    of_running.push(token);
                } else {
                    of_next.push(token);
                }
                digests.push((request == running, *digest));
            }
        };
        engine.step(sink).unwrap();
    }
    assert_eq!((of_running, of_next), (by_hash[0].clone(), described));
    let of = |is_running| digests.iter().find(|(x, _)| *x == is_running).unwrap().1;
    assert!(of(true) != of(false), "another plan");
    swap(&engine, &setup, "hash", &other);
    // It takes over between two steps.
    step(&mut engine, &mut Vec::new()).unwrap();
    assert_eq!(answer(&mut engine, request()).1, by_hash[1], "and not from the blocks of another");
}
