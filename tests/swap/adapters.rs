//! Another adapter: new requests get it, running ones keep what they began with.

use std::path::Path;
use std::time::Duration;

use jackfield_engine::train::{Lora, Parameters};
use jackfield_engine::{Engine, Request};
use jackfield_runtime::{Reach, SwapError, Swapped};
use jackfield_tests::{Setup, answer, golden, tiny_model};
use plugin_api::testing::random::Random;
use tempfile::TempDir;

use super::parts::setup;
use super::{of, request, slot, slots, step, swap_with};

/// An adapter that says something, of other numbers for each seed.
pub(crate) fn adapter(seed: u64) -> Lora {
    let base = Parameters::from_safetensors(&std::fs::read(golden("tiny.safetensors")).unwrap());
    let targets = ["q_proj", "k_proj", "v_proj", "down_proj"];
    let mut lora = Lora::random(&base.unwrap(), &targets, 4, 16.0, seed).unwrap();
    let mut random = Random::new(seed);
    for (name, parameter) in &mut lora.parameters.0 {
        if name.contains("lora_B") {
            parameter.values.iter_mut().for_each(|x| *x = 0.05 * random.signed());
        }
    }
    lora
}

fn saved(lora: &Lora) -> TempDir {
    let folder = TempDir::new().unwrap();
    lora.save(folder.path(), "tiny").unwrap();
    folder
}

fn exchange(engine: &Engine, setup: &Setup, folder: Option<&Path>) -> Result<Swapped, SwapError> {
    let (wiring, registry) = (&setup.wiring, &setup.registry);
    engine.swapper().exchange_adapter(folder, wiring, registry, Duration::ZERO)
}

/// What an engine answers that was started with an adapter, or none.
fn alone(model: &Path, adapter: Option<&Path>, request: Request) -> Vec<u32> {
    let mut setup = setup();
    setup.options.adapter = adapter.map(Path::to_path_buf);
    answer(&mut setup.load(model).unwrap(), request).1
}

#[test]
fn running_requests_keep_their_adapter_and_new_ones_get_the_new() {
    let (model, setup) = (tiny_model("tiny"), setup());
    let adapters = [1, 2].map(|seed| saved(&adapter(seed)));
    let folders = [None, Some(adapters[0].path()), Some(adapters[1].path()), None];
    let expected = folders.map(|folder| alone(model.path(), folder, request(60)));
    assert!(expected[0] != expected[1] && expected[1] != expected[2], "they say something");

    let mut engine = setup.load(model.path()).unwrap();
    let (mut ids, mut tokens) = (vec![engine.submit(request(60)).unwrap()], Vec::new());
    for folder in &folders[1..] {
        for _ in 0..8 {
            step(&mut engine, &mut tokens);
        }
        let swapped = exchange(&engine, &setup, *folder).unwrap();
        // Nobody waited for the boundary, since this thread runs the steps.
        assert_eq!(swapped.reach, Reach::NextBoundary);
        engine.boundary();
        ids.push(engine.submit(request(60)).unwrap());
    }
    let name = |i: usize| adapters[i].path().file_name().unwrap().to_string_lossy().into_owned();
    let (first, second) = (name(0), name(1));
    let held = format!("adapter: none#4, none#1 with 1, {first}#2 with 1, {second}#3 with 1");
    assert_eq!(slot(&engine, "adapter"), held);
    let error = exchange(&engine, &setup, folders[1]).unwrap_err();
    assert!(matches!(error, SwapError::TooManyDraining { draining: 4, .. }), "{error}");
    while engine.num_running() > 0 {
        step(&mut engine, &mut tokens);
    }
    let found: Vec<_> = ids.into_iter().map(|id| of(&tokens, id)).collect();
    assert_eq!(found, expected, "no token is lost, and each is of its own adapter");
    assert!(!slots(&engine).iter().any(|slot| slot.starts_with("adapter: none")));
}

#[test]
fn an_engine_that_began_with_one_takes_another_and_parts_change_under_it() {
    let (model, mut setup) = (tiny_model("tiny"), setup());
    let adapters = [1, 2].map(|seed| saved(&adapter(seed)));
    setup.options.adapter = Some(adapters[0].path().to_path_buf());
    let mut engine = setup.load(model.path()).unwrap();
    let before = engine.digest();
    // Long enough that blocks of the prompt are kept and found again.
    let long =
        || Request::new((0..40).map(|i| i * 7 % 500).collect::<Vec<u32>>()).with("max_tokens", 20);
    let long = || long().with("ignore_eos", true).strategy("greedy");
    let folders = adapters.each_ref().map(TempDir::path);
    assert_eq!(answer(&mut engine, long()).1, alone(model.path(), Some(folders[0]), long()));
    exchange(&engine, &setup, Some(folders[1])).unwrap();
    engine.boundary();
    assert_ne!(engine.digest(), before, "tokens say that another adapter made them");
    let expected = alone(model.path(), Some(folders[1]), long());
    assert_eq!(answer(&mut engine, long()).1, expected, "nothing cached by the other is read");
    for (kind, name) in [("norm", "rms-norm"), ("backend", "cpu"), ("adapter", "lora")] {
        swap_with(&engine, &setup, kind, name, &plugin_api::Config::new()).unwrap();
        engine.boundary();
        assert_eq!(answer(&mut engine, long()).1, expected, "{kind}");
    }
    exchange(&engine, &setup, None).unwrap();
    engine.boundary();
    assert_eq!(answer(&mut engine, long()).1, alone(model.path(), None, long()));
}

#[test]
fn what_cannot_stand_beside_the_model_is_refused_and_changes_nothing() {
    let (model, setup) = (tiny_model("tiny"), setup());
    let mut engine = setup.load(model.path()).unwrap();
    let before = (slots(&engine), engine.digest());
    let strange = |change: &dyn Fn(&mut Lora)| {
        let mut lora = adapter(3);
        change(&mut lora);
        saved(&lora)
    };
    let name = "layers.0.self_attn.q_proj.lora_B.weight";
    let moved = strange(&|lora| {
        for part in ["lora_A", "lora_B"] {
            let of = |layer: u32| format!("layers.{layer}.self_attn.q_proj.{part}.weight");
            let weight = lora.parameters.0.remove(&of(0)).unwrap();
            lora.parameters.0.insert(of(7), weight);
        }
    });
    let wide = strange(&|lora| {
        let b = lora.parameters.0.get_mut(name).unwrap();
        (b.dims, b.values) = (vec![80, 4], vec![0.0; 320]);
    });
    let dora = strange(&|_| ());
    let config = dora.path().join("adapter_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"r\"", "\"use_dora\": true, \"r\"")).unwrap();
    let cut = strange(&|_| ());
    let weights = cut.path().join("adapter_model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    #[rustfmt::skip]
    let cases = [
        (moved.path(), "`layers.7.self_attn.q_proj.lora_A.weight` of the adapter"),
        (wide.path(),  "trace"),
        (dora.path(),  "`use_dora`: expected false"),
        (cut.path(),   "expected a safetensors header"),
        (Path::new("/nowhere"), "adapter_config.json"),
    ];
    for (folder, expected) in cases {
        let error = exchange(&engine, &setup, Some(folder)).unwrap_err().to_string();
        assert!(error.contains("slot `adapter/weights`") && error.contains(expected), "{error}");
        engine.boundary();
        assert_eq!((slots(&engine), engine.digest()), before, "{expected}");
    }
    assert_eq!(answer(&mut engine, request(20)).1, alone(model.path(), None, request(20)));
}
