//! Seeded two-layer models of every blueprint and every scaling of rotary embeddings: logits and greedy tokens equal those of mlx-lm, on
//! every backend, cache and chunking.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use jackfield_engine::Request;
use jackfield_tests::{Setup, answer, golden, tiny_model};
use serde_json::Value;

/// Largest distance of a logit, over the largest logit: F32 sums in another order (the reference
/// and an F64 computation are 8e-6 apart).
const TOLERANCE: f64 = 1e-4;

const MODELS: [&str; 9] = [
    "tiny",
    "tiny_qwen2",
    "tiny_qwen3",
    "tiny_gemma3",
    "tiny_mixtral",
    "tiny_qwen3_moe",
    "tiny_linear",
    "tiny_yarn",
    "tiny_longrope",
];

/// Backend, cache, most tokens in a step.
const SETUPS: [(&str, &str, usize); 5] = [
    ("reference", "paged", 512),
    ("cpu", "paged", 512),
    ("cpu", "contiguous", 512),
    ("cpu", "paged", 5),
    ("candle", "paged", 512),
];

/// The setups whose backend is part of this build.
fn setups() -> impl Iterator<Item = (&'static str, &'static str, usize)> {
    let registry = Setup::new("reference").registry;
    let has = move |backend: &str| registry.find("backend", backend).is_some();
    SETUPS.into_iter().filter(move |(backend, _, _)| has(backend))
}

fn setup(backend: &str, cache: &str, tokens_per_step_max: usize) -> Setup {
    let mut setup = Setup::new(backend).with("kv-cache", cache).set(cache, "dtype", "f32");
    setup.options.tokens_per_step_max = tokens_per_step_max;
    setup.options.logit_rows_max = 64;
    setup
}

fn expected() -> Value {
    let text = std::fs::read_to_string(golden("tiny_expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn logits_equal_those_of_the_reference() {
    let expected = expected();
    for model in MODELS {
        let folder = tiny_model(model);
        for (backend, cache, tokens) in setups() {
            let mut engine = setup(backend, cache, tokens).load(folder.path()).unwrap();
            for case in expected[model].as_array().unwrap() {
                let prompt = ids(&case["ids"]);
                let last = prompt.len() - 1;
                let mut logits = Vec::new();
                engine
                    .evaluate(&prompt, last, tokens, &mut |_, row| logits.extend_from_slice(row))
                    .unwrap();
                let theirs = case["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap());
                let theirs: Vec<f64> = theirs.collect();
                let largest = theirs.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
                for (ours, theirs) in logits.iter().zip(&theirs) {
                    let distance = (f64::from(*ours) - theirs).abs() / largest;
                    assert!(
                        distance <= TOLERANCE,
                        "{model}, {} tokens, {backend}/{cache}/{tokens}: {ours} against {theirs}",
                        prompt.len()
                    );
                }
                assert_eq!(logits.len(), theirs.len());
            }
        }
    }
}

/// Logits after seven tokens of a model whose `config.json` is changed first.
fn logits_with(model: &str, context: usize, change: impl Fn(&mut Value)) -> Vec<f32> {
    let folder = tiny_model(model);
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
    let mut setup = setup("cpu", "paged", 512);
    setup.options.context_length_max = context;
    let mut engine = setup.load(folder.path()).unwrap();
    let mut logits = Vec::new();
    let each = &mut |_: usize, row: &[f32]| logits.extend_from_slice(row);
    engine.evaluate(&[510, 5, 17, 300, 42, 7, 99], 6, 512, each).unwrap();
    logits
}

#[test]
fn scalings_of_rotary_embeddings_are_found_under_every_name_they_have() {
    let plain = |model| logits_with(model, 256, |_| {});
    let named = |name: &'static str| {
        move |config: &mut Value| config["rope_scaling"]["rope_type"] = name.into()
    };
    assert_eq!(logits_with("tiny_longrope", 256, named("su")), plain("tiny_longrope"));
    assert_eq!(logits_with("tiny_yarn", 256, named("deepseek_yarn")), plain("tiny_yarn"));
    // Within the trained context the dynamic base is the plain one.
    assert_eq!(logits_with("tiny_linear", 256, named("dynamic")), plain("tiny"));
    let one_table = |config: &mut Value| {
        let mut table = config["rope_scaling"].take();
        table["rope_theta"] = config["rope_theta"].take();
        config["rope_parameters"] = table;
    };
    assert_eq!(logits_with("tiny_yarn", 256, one_table), plain("tiny_yarn"));
    assert_ne!(plain("tiny_yarn"), plain("tiny"));
}

#[test]
fn the_context_of_the_engine_chooses_the_divisors_of_longrope() {
    let long_is_short = |config: &mut Value| {
        let short = config["rope_scaling"]["short_factor"].clone();
        config["rope_scaling"]["long_factor"] = short;
    };
    let within = logits_with("tiny_longrope", 32, |_| {});
    assert_eq!(within, logits_with("tiny_longrope", 256, long_is_short));
    assert_ne!(within, logits_with("tiny_longrope", 33, |_| {}));
}

#[test]
fn greedy_tokens_equal_those_of_the_reference() {
    let expected = expected();
    for model in MODELS {
        let folder = tiny_model(model);
        for (backend, cache, tokens) in setups() {
            let mut engine = setup(backend, cache, tokens).load(folder.path()).unwrap();
            for case in expected[model].as_array().unwrap() {
                let theirs = ids(&case["greedy"]);
                let request = Request::new(ids(&case["ids"]))
                    .strategy("greedy")
                    .with("max_tokens", theirs.len() as i64)
                    .with("ignore_eos", true);
                let (_, ours) = answer(&mut engine, request);
                assert_eq!(ours, theirs, "{model}, {backend}/{cache}/{tokens}");
            }
        }
    }
}

#[test]
fn answers_do_not_depend_on_who_else_is_answered() {
    let folder = tiny_model("tiny");
    let prompts: Vec<Vec<u32>> =
        (0..9_u32).map(|n| (0..=n * 5).map(|i| (i * 37 + n * 11) % 510).collect()).collect();
    let request = |prompt: &Vec<u32>, seed: i64| {
        Request::new(prompt.clone())
            .with("max_tokens", 24)
            .with("seed", seed)
            .with("temperature", 0.8)
            .with("top_p", 0.95)
    };
    for backend in ["reference", "cpu"] {
        let mut alone = Vec::new();
        for (prompt, seed) in prompts.iter().zip(1..) {
            let mut engine = setup(backend, "paged", 512).load(folder.path()).unwrap();
            alone.push(answer(&mut engine, request(prompt, seed)).1);
        }
        let mut engine = setup(backend, "paged", 16).load(folder.path()).unwrap();
        let mut together = vec![Vec::new(); prompts.len()];
        let mut of_request = Vec::new();
        for (prompt, seed) in prompts.iter().zip(1..) {
            of_request.push(engine.submit(request(prompt, seed)).unwrap());
        }
        engine
            .run_to_end(&mut |output| {
                if let jackfield_engine::Output::Token { request, token, .. } = output {
                    let index = of_request.iter().position(|id| *id == request).unwrap();
                    together[index].push(token);
                }
            })
            .unwrap();
        assert_eq!(together, alone, "{backend}");
        assert_eq!(engine.cache_usage().used, 0, "every block comes back");
    }
}

#[test]
fn answers_survive_a_cache_that_is_too_small_for_all() {
    let folder = tiny_model("tiny");
    let request = |n: u32| {
        let prompt: Vec<u32> = (0..20).map(|i| (i * 37 + n * 11) % 510).collect();
        Request::new(prompt).strategy("greedy").with("max_tokens", 24).with("ignore_eos", true)
    };
    let mut roomy = setup("cpu", "paged", 512).load(folder.path()).unwrap();
    let alone: Vec<Vec<u32>> = (0..6).map(|n| answer(&mut roomy, request(n)).1).collect();

    // 512 bytes a token, 16 tokens a block: seven blocks, where six answers need eighteen.
    let mut small = setup("cpu", "paged", 512);
    small.options.state_bytes_max = 7 * 16 * 512;
    small.options.context_length_max = 64;
    let mut engine = small.load(folder.path()).unwrap();
    assert_eq!(engine.cache_usage().total, 7);
    let ids: Vec<_> = (0..6).map(|n| engine.submit(request(n)).unwrap()).collect();
    let mut together = vec![Vec::new(); 6];
    engine
        .run_to_end(&mut |output| match output {
            jackfield_engine::Output::Token { request, token, .. } => {
                together[ids.iter().position(|id| *id == request).unwrap()].push(token);
            }
            jackfield_engine::Output::Finished { error, .. } => assert_eq!(error, None),
        })
        .unwrap();
    assert_eq!(together, alone);
    assert_eq!(engine.cache_usage().used, 0);
}
