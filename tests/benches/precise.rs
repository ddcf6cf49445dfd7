//! What the hook `precision-guard` finds: of answers of a real model, how many looks at their logits are called strange, and how
//! many answers go on with precise weights. The model itself shows false alarms; others are in fewer bits, or damaged.
//!
//! Run as `cargo bench -p jackfield-tests --bench precise`. The model that stands for the precise one has four bits a weight
//! itself, as it is the one that is fetched: the others are re-quantized from it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, or fails")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use jackfield_engine::model::precise::PreciseOptions;
use jackfield_engine::quantize::{Recipe, quantize};
use jackfield_engine::train::{Lora, Parameters};
use jackfield_engine::{Engine, Request};
use jackfield_tests::{Setup, golden, real_model};
use plugin_api::events::{Flow, Phase, Subscriptions};
use plugin_api::testing::machine::Machine;
use plugin_api::testing::random::Random;
use tempfile::TempDir;

const MODEL: (&str, &str) = ("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct.Q4_1.gguf");
/// Answers at a time, their tokens, and how many rounds each model answers.
const ANSWERS: usize = 16;
const TOKENS: i64 = 384;
const ROUNDS: usize = 3;
/// Rounds before: five looks at the precise weights of each answer, of which the guard wants 256.
const LEARNING: usize = 4;

/// Looks at answers that had no precise weights before.
#[derive(Debug, Default)]
struct Seen {
    looks: usize,
    strange: usize,
    requests: BTreeSet<u64>,
    promoted: BTreeSet<u64>,
}

fn main() {
    let Some(precise) = real_model(MODEL.0, MODEL.1) else { return };
    let folder = TempDir::new().unwrap();
    let adapters = damage(&precise);
    println!("{:<16}{:>8}{:>10}{:>10}{:>12}", "model", "looks", "strange", "answers", "promoted");
    for (name, format, strength) in [
        ("itself", None, None),
        ("Q4_0", Some("Q4_0"), None),
        ("damaged a little", None, Some(0)),
        ("damaged", None, Some(1)),
    ] {
        let model = match format {
            None => precise.clone(),
            Some(format) => {
                let to = folder.path().join(format!("{format}.gguf"));
                write(&precise, &to, format);
                to
            }
        };
        let adapter = strength.map(|index: usize| adapters[index].path());
        let seen = observe(&model, &precise, adapter);
        let part = 100.0 * seen.strange as f64 / seen.looks.max(1) as f64;
        let promoted = 100.0 * seen.promoted.len() as f64 / seen.requests.len().max(1) as f64;
        println!(
            "{name:<16}{:>8}{part:>8.1} %{:>10}{promoted:>10.1} %",
            seen.looks,
            seen.requests.len()
        );
    }
}

fn write(from: &Path, to: &Path, format: &str) {
    let Setup { wiring, registry, .. } = Setup::new("cpu");
    let recipe = Recipe { format, others: &[], tokenizer: None, calibrated: None, threads: 2 };
    quantize(from, to, &recipe, &wiring, &registry, &mut |_, _| true).unwrap();
}

/// Adapters of random numbers: a model that says something else, and one that says nothing any more.
fn damage(model: &Path) -> [TempDir; 2] {
    [0.02, 0.3].map(|size| {
        let Setup { wiring, registry, .. } = Setup::new("cpu");
        let (_, base) = Parameters::of_model(model, &wiring, &registry).unwrap();
        let mut lora = Lora::random(&base, &["down_proj"], 4, 16.0, 1).unwrap();
        let mut random = Random::new(2);
        for (name, parameter) in &mut lora.parameters.0 {
            if name.contains("lora_B") {
                parameter.values.iter_mut().for_each(|x| *x = size * random.signed());
            }
        }
        let folder = TempDir::new().unwrap();
        lora.save(folder.path(), MODEL.0).unwrap();
        folder
    })
}

/// What the guard says of a model, once it knows what is usual.
fn observe(model: &Path, precise: &Path, adapter: Option<&Path>) -> Seen {
    let mut setup = Setup::new("cpu").with("hook", "precision-guard");
    setup.options.num_seqs_max = ANSWERS;
    setup.options.logit_rows_max = ANSWERS;
    setup.options.context_length_max = 1024;
    let (path, mask, fallback) = (precise.to_owned(), Vec::new(), true);
    setup.options.precise = Some(PreciseOptions { path, mask, fallback });
    setup.subscribe_hooks(|name| Machine::new().host(name));
    let seen = Arc::new(Mutex::new((Seen::default(), BTreeSet::new())));
    watch(&setup, &seen);
    let mut engine = setup.load(model).unwrap();
    // Answers of these rounds say what is usual.
    (0..LEARNING).for_each(|i| ask(&mut engine, i));
    seen.lock().unwrap().0 = Seen::default();
    if let Some(adapter) = adapter {
        let Setup { wiring, registry, .. } = &setup;
        let limit = std::time::Duration::ZERO;
        engine.swapper().exchange_adapter(Some(adapter), wiring, registry, limit).unwrap();
        engine.boundary();
    }
    (LEARNING..LEARNING + ROUNDS).for_each(|i| ask(&mut engine, i));
    let mut seen = seen.lock().unwrap();
    std::mem::take(&mut seen.0)
}

type Shared = Arc<Mutex<(Seen, BTreeSet<u64>)>>;

/// Hears of every look before the guard and after it.
fn watch(setup: &Setup, seen: &Shared) {
    let (mut on, before, after) = (Subscriptions::new(), Arc::clone(seen), Arc::clone(seen));
    on.order(Phase::Early, 0).after_logits(move |event, _| {
        let mut seen = before.lock().unwrap();
        if event.is_precise {
            seen.1.insert(event.request);
        } else {
            seen.0.looks += 1;
            seen.0.requests.insert(event.request);
        }
        Flow::Continue
    });
    on.order(Phase::Late, 0).after_logits(move |event, _| {
        let mut seen = after.lock().unwrap();
        if event.is_precise && !seen.1.contains(&event.request) {
            seen.0.strange += 1;
            seen.0.promoted.insert(event.request);
        }
        Flow::Continue
    });
    setup.bus.subscribe(&Machine::new().host("watch"), on);
}

fn ask(engine: &mut Engine, round: usize) {
    let text = std::fs::read_to_string(golden("text.txt")).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.len() > 60).collect();
    for i in 0..ANSWERS {
        let line = lines[(round * ANSWERS + i) % lines.len()];
        let request = Request::new(line).with("max_tokens", TOKENS).with("ignore_eos", true);
        let request = request.with("temperature", 0.8).with("seed", (round * 100 + i) as i64);
        engine.submit(request.strategy("sample")).unwrap();
    }
    engine.run_to_end(&mut |_| ()).unwrap();
}
