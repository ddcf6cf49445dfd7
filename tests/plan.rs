//! Traced plugins describe and never run; what they describe prints as text.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use jackfield_engine::model::trace::trace_decoder;
use jackfield_engine::model::weights::WeightTable;
use jackfield_engine::model::{Architecture, ModelFiles};
use jackfield_engine::{Engine, Request};
use jackfield_loader::LoadedPlugin;
use jackfield_runtime::{Lane, PluginInfo};
use jackfield_tests::{Setup, answer, component, golden, real_model, tiny_model};
use plugin_api::Registrar;
use plugin_api::plan::Plan;
use plugin_api::prelude::*;

/// Calls of every method of the plugins below.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// A norm that counts how often anybody calls it.
struct Counted;

impl Capability for Counted {
    const NAME: &'static str = "counted";

    fn from_config(_: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Counted {
    fn semantic_id(&self) -> SemanticId {
        CALLS.fetch_add(1, Ordering::Relaxed);
        SemanticId::new("counted/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        CALLS.fetch_add(1, Ordering::Relaxed);
        let eps = at.config.number_or("rms_norm_eps", 1e-6, 0.0..=1.0)?;
        let weight = g.weight("weight")?;
        Ok(vec![fused::rms_norm(g, x[0], weight, eps, 0.0)?])
    }
}

impl Norm for Counted {}

#[test]
fn no_traced_plugin_is_called_during_64_decode_steps() {
    let folder = tiny_model("tiny");
    let mut setup = Setup::new("cpu").with("norm", "counted");
    let mut registrar = Registrar::new();
    registrar.provide::<dyn Norm, Counted>();
    let info = PluginInfo {
        name: "counted".to_owned(),
        description: String::new(),
        api: "0.0".to_owned(),
        lane: Lane::Builtin,
        origin: None,
    };
    setup.registry.add(info, registrar.into_provided()).unwrap();
    let mut engine = setup.load(folder.path()).unwrap();
    let traced = CALLS.load(Ordering::Relaxed);
    assert_eq!(traced, 5, "two norms in each of two layers, and the last");
    decode_64(&mut engine);
    assert_eq!(CALLS.load(Ordering::Relaxed), traced);
}

#[test]
fn a_mixer_in_wasm_costs_no_call_per_step() {
    let state = tempfile::tempdir().unwrap();
    let folder = tiny_model("tiny");
    let files = ModelFiles::open(folder.path()).unwrap();
    let mut setup = Setup::new("cpu");
    let builtin = plan_with(&setup, &files).to_bytes();
    let mixer = component(state.path(), "mixer/attention");
    // What runs at every step shows that calls are counted.
    let scheduler = component(state.path(), "scheduler/continuous");
    for plugin in [&mixer, &scheduler] {
        assert_eq!(plugin.lane, Lane::Wasm);
        setup.registry.replace(plugin.info(), plugin.provided.clone()).unwrap();
    }
    let calls_of = |plugin: &LoadedPlugin| plugin.generation.as_ref().unwrap().calls();
    assert_eq!(calls_of(&mixer), 0);
    assert_eq!(plan_with(&setup, &files).to_bytes(), builtin, "the same plan, byte for byte");

    let mut engine = setup.load(folder.path()).unwrap();
    let (traced, picked) = (calls_of(&mixer), calls_of(&scheduler));
    assert!(traced > 0, "it was the component that traced");
    decode_64(&mut engine);
    assert!(calls_of(&scheduler) >= picked + 64, "{picked} calls became {}", calls_of(&scheduler));
    assert_eq!(calls_of(&mixer), traced, "none after it was traced");
}

/// Runs 64 steps that each add a token.
fn decode_64(engine: &mut Engine) {
    let request = Request::new(vec![510, 3, 7])
        .strategy("greedy")
        .with("max_tokens", 64)
        .with("ignore_eos", true);
    let (_, tokens) = answer(engine, request);
    assert_eq!(tokens.len(), 64);
}

fn plan_of(files: &ModelFiles) -> Plan {
    plan_with(&Setup::new("reference"), files)
}

fn plan_with(setup: &Setup, files: &ModelFiles) -> Plan {
    let architecture = Architecture::of(files).unwrap();
    let parts = setup.wiring.traced(&setup.registry, &architecture).unwrap();
    let weights = WeightTable::of(files, &architecture).unwrap();
    trace_decoder(&architecture, &parts, &weights).unwrap()
}

/// `BLESS=1` writes the file.
#[test]
fn the_plan_of_the_tiny_model_is_what_it_was() {
    let folder = tiny_model("tiny");
    let plan = plan_of(&ModelFiles::open(folder.path()).unwrap());
    let text = plan.to_string();
    if std::env::var_os("BLESS").is_some() {
        fs::write(golden("tiny_plan.txt"), &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(golden("tiny_plan.txt")).unwrap());
    assert_eq!(Plan::from_bytes(&plan.to_bytes()), Ok(plan));
}

#[test]
fn the_plan_of_a_real_model_reads_like_its_architecture() {
    let Some(path) = real_model("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct.Q4_1.gguf") else {
        return;
    };
    let plan = plan_of(&ModelFiles::open(&path).unwrap());
    let text = plan.to_string();
    #[rustfmt::skip]
    let cases = [
        ("weight  layers.29.mlp.down_proj.weight : f32[576, 1536]", 1),
        ("attend(",                                                30),
        ("swiglu(",                                                30),
        ("rms_norm(",                                              61),
        ("rope(",                                                  60),
        ("output  logits",                                         1),
    ];
    for (line, count) in cases {
        assert_eq!(text.matches(line).count(), count, "{line}");
    }
}
