//! Drafts, guesses at the next tokens, make answers come in fewer steps and change none of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use jackfield_engine::{Engine, Output, Request};
use jackfield_tests::{Setup, tiny_model};

const TOKENS: i64 = 96;
const MODELS: [&str; 3] = ["tiny", "tiny_qwen3", "tiny_gemma3"];

/// One guess for every token but those that never stood before, most of them wrong.
fn guessing(setup: Setup) -> Setup {
    setup.set("prompt-lookup", "ngram_min", 1).set("prompt-lookup", "num_draft_tokens", 6)
}

fn setup() -> Setup {
    Setup::new("cpu").set("paged", "dtype", "f32")
}

/// Requests that repeat themselves, greedy and drawn, with processors that look at what was said.
fn requests(strategy: &str) -> Vec<Request> {
    let prompt = |n: u32| -> Vec<u32> { (0..20).map(|i| (i % 7 * 37 + n * 11) % 510).collect() };
    let request = |n: u32| {
        Request::new(prompt(n))
            .strategy(strategy)
            .with("max_tokens", TOKENS)
            .with("ignore_eos", true)
            .with("seed", i64::from(n))
    };
    vec![
        request(0).with("temperature", 0.0),
        request(1).with("temperature", 0.0).with("logprobs", true),
        request(2).with("temperature", 0.3),
        request(3).with("temperature", 0.9).with("top_k", 4).with("repetition_penalty", 1.2),
        request(4).with("temperature", 0.5).with("min_p", 0.1).with("presence_penalty", 0.4),
        request(5).with("temperature", 0.0).with("repetition_penalty", 1.05),
    ]
}

/// Token and logarithm of its probability, of each request.
type Answers = Vec<Vec<(u32, String)>>;

/// The answers of all, together, and the steps that they took.
fn answers(engine: &mut Engine, requests: Vec<Request>) -> (Answers, u64) {
    let before = engine.gauge().read().steps;
    let ids: Vec<_> = requests.into_iter().map(|r| engine.submit(r).unwrap()).collect();
    let mut answers = vec![Vec::new(); ids.len()];
    let result = engine.run_to_end(&mut |output| match output {
        Output::Token { request, token, logprob, .. } => {
            let index = ids.iter().position(|id| *id == request).unwrap();
            answers[index].push((token, logprob.to_string()));
        }
        Output::Finished { error, .. } => assert_eq!(error, None),
    });
    result.unwrap();
    assert_eq!(engine.cache_usage().used, 0, "every block comes back");
    (answers, engine.gauge().read().steps - before)
}

#[test]
fn answers_are_those_without_drafts() {
    for model in MODELS {
        let folder = tiny_model(model);
        let mut plain = setup().load(folder.path()).unwrap();
        let (expected, steps) = answers(&mut plain, requests("sample"));
        assert!(expected.iter().all(|answer| answer.len() == TOKENS as usize));
        let mut engine = guessing(setup()).load(folder.path()).unwrap();
        let (found, fewer) = answers(&mut engine, requests("prompt-lookup"));
        assert_eq!(found, expected, "{model}");
        let load = engine.gauge().read();
        assert!(load.accepted_tokens > 0, "{model}: {load:?}");
        assert!(load.accepted_tokens < load.draft_tokens, "{model}: some are wrong: {load:?}");
        assert!(fewer <= steps, "{model}: {fewer} steps, {steps} without");
        assert_eq!(load.tokens, TOKENS as u64 * 6);
    }
}

#[test]
fn what_repeats_takes_fewer_steps() {
    let folder = tiny_model("tiny");
    let bias = plugin_api::Config::new().with("7", 100.0);
    let request = |strategy: &str| {
        let request = Request::new(vec![510, 7, 7, 7]).strategy(strategy);
        request.with("max_tokens", 33).with("temperature", 0.0).with("logit_bias", bias.clone())
    };
    let mut engine = guessing(setup()).load(folder.path()).unwrap();
    let (_, steps) = answers(&mut engine, vec![request("sample")]);
    assert_eq!(steps, 33);
    let (found, steps) = answers(&mut engine, vec![request("prompt-lookup")]);
    assert!(found[0].iter().all(|(token, _)| *token == 7));
    assert_eq!(found[0].len(), 33);
    assert!(steps <= 12, "{steps} steps");
}

#[test]
fn drafts_take_no_room_from_what_has_to_run() {
    let folder = tiny_model("tiny");
    let (expected, _) = answers(&mut setup().load(folder.path()).unwrap(), requests("sample"));
    #[rustfmt::skip]
    let cases = [
        // name                 tokens, rows, blocks in the cache, longest
        ("a step of 7 tokens",  7,      16,   1 << 10,             512),
        ("as many rows as requests", 512, 6,  1 << 10,             512),
        ("one row more",        512,    7,    1 << 10,             512),
        ("a cache too small",   512,    16,   12,                  128),
        ("no room behind",      512,    16,   1 << 10,             116),
    ];
    for (name, tokens, rows, blocks, longest) in cases {
        let mut setup = guessing(setup());
        setup.options.tokens_per_step_max = tokens;
        setup.options.logit_rows_max = rows;
        // 512 bytes a token, 16 tokens a block.
        setup.options.state_bytes_max = blocks * 16 * 512;
        setup.options.context_length_max = longest;
        let mut engine = setup.load(folder.path()).unwrap();
        let (found, _) = answers(&mut engine, requests("prompt-lookup"));
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn an_answer_that_ends_among_drafts_ends_there() {
    let folder = tiny_model("tiny");
    let bias = plugin_api::Config::new().with("7", 100.0);
    let mut engine = guessing(setup()).load(folder.path()).unwrap();
    for limit in 1..=12_i64 {
        let request = Request::new(vec![510, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7])
            .strategy("prompt-lookup")
            .with("max_tokens", limit)
            .with("temperature", 0.0)
            .with("logit_bias", bias.clone());
        let (found, _) = answers(&mut engine, vec![request]);
        assert_eq!(found[0].len(), limit as usize);
    }
}

/// The tiny model with another one that guesses; `is_adaptive` takes only the guesses that pay.
fn speculating(draft: &std::path::Path, is_adaptive: bool) -> Setup {
    let setup = setup().set("speculative", "adaptive", is_adaptive);
    let mut setup = setup.set("speculative", "num_draft_tokens", 3);
    setup.options.draft_model = Some(draft.to_owned());
    setup
}

/// The tiny model with other numbers: a draft model that is mostly wrong.
fn another() -> tempfile::TempDir {
    let folder = tiny_model("tiny");
    let json = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    let json = serde_json::from_str(&json).unwrap();
    let architecture = jackfield_engine::model::Architecture::from_json(&json).unwrap();
    let parameters = jackfield_engine::train::Parameters::random(&architecture, 5).unwrap();
    let bytes = parameters.to_safetensors().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    folder
}

#[test]
fn a_draft_model_changes_no_answer() {
    let (folder, other) = (tiny_model("tiny"), another());
    let (expected, steps) = answers(&mut setup().load(folder.path()).unwrap(), requests("sample"));
    for (name, draft) in [("the model itself", &folder), ("another", &other)] {
        for is_adaptive in [false, true] {
            let mut engine = speculating(draft.path(), is_adaptive).load(folder.path()).unwrap();
            for round in 0..2 {
                let before = engine.gauge().read();
                let (found, fewer) = answers(&mut engine, requests("speculative"));
                assert_eq!(found, expected, "{name}, round {round}");
                assert!(fewer <= steps, "{name}: {fewer} steps, {steps} without");
                let load = engine.gauge().read();
                let drafts = load.draft_tokens - before.draft_tokens;
                let accepted = load.accepted_tokens - before.accepted_tokens;
                if !is_adaptive {
                    assert!(drafts > 100, "{name}: {load:?}");
                    let is_itself = name == "the model itself";
                    assert_eq!(accepted * 2 > drafts, is_itself, "{name}: {accepted} of {drafts}");
                }
            }
            // A model without the strategy's guesses is the same engine.
            assert_eq!(answers(&mut engine, requests("sample")).0, expected);
        }
    }
}

/// How often each pair of tokens was drawn after one prompt, among four tokens likeliest each.
fn drawn_pairs(engine: &mut Engine, strategy: &str, seeds: Range<u32>) -> BTreeMap<[u32; 2], f64> {
    let mut counts = BTreeMap::new();
    let requests = seeds.map(|seed| {
        let prompt: Vec<u32> = (0..8).map(|i| i * 37 % 510).collect();
        let request = Request::new(prompt).strategy(strategy);
        let request = request.with("max_tokens", 3).with("ignore_eos", true).with("top_k", 4);
        request.with("seed", i64::from(seed)).with("temperature", 1.5)
    });
    let requests: Vec<_> = requests.collect();
    for part in requests.chunks(1000) {
        for answer in answers(engine, part.to_vec()).0 {
            // The first token is drawn before there can be a guess.
            *counts.entry([answer[1].0, answer[2].0]).or_default() += 1.0;
        }
    }
    counts
}

/// Two samples of 100,000 draws with seeds of their own are compared: equal seeds would give equal answers.
#[test]
fn what_is_drawn_with_a_draft_model_has_the_same_distribution() {
    const DRAWS: u32 = 100_000;
    let folder = tiny_model("tiny");
    let roomy = |mut setup: Setup| {
        (setup.options.tokens_per_step_max, setup.options.logit_rows_max) = (1024, 256);
        setup.load(folder.path()).unwrap()
    };
    let plain = drawn_pairs(&mut roomy(setup()), "sample", 0..DRAWS);
    let mut engine = roomy(speculating(folder.path(), false));
    let guessed = drawn_pairs(&mut engine, "speculative", DRAWS..2 * DRAWS);
    let load = engine.gauge().read();
    let (rejected, accepted) = (load.draft_tokens - load.accepted_tokens, load.accepted_tokens);
    assert!(rejected.min(accepted) > u64::from(DRAWS) / 10, "{accepted} came true, {rejected} not");
    let pairs: BTreeSet<_> = plain.keys().chain(guessed.keys()).collect();
    let count = |of: &BTreeMap<[u32; 2], f64>, pair| of.get(pair).copied().unwrap_or(0.0);
    let (mut chi_squared, mut freedom) = (0.0, -1.0_f64);
    for pair in pairs {
        let (a, b) = (count(&plain, pair), count(&guessed, pair));
        // As is usual: cells that expect fewer than five are too few to be compared.
        if a + b >= 10.0 {
            chi_squared += (a - b).powi(2) / (a + b);
            freedom += 1.0;
        }
    }
    assert!(freedom >= 10.0, "{freedom} degrees of freedom tell nothing");
    // Wilson and Hilferty: its cube root is nearly normal; one sample in 10,000 lies beyond 3.7.
    let spread = 2.0 / (9.0 * freedom);
    let deviation = ((chi_squared / freedom).cbrt() - (1.0 - spread)) / spread.sqrt();
    assert!(deviation < 3.7, "chi squared {chi_squared} with {freedom} degrees of freedom");
}

#[test]
fn greedy_guesses_of_the_model_itself_all_come_true() {
    let folder = tiny_model("tiny");
    let mut engine = speculating(folder.path(), false).load(folder.path()).unwrap();
    let request = || {
        let prompt = (0..40).map(|i| i * 12 % 510).collect::<Vec<u32>>();
        let request = Request::new(prompt).strategy("speculative").with("max_tokens", 33);
        request.with("temperature", 0.0).with("ignore_eos", true)
    };
    let (_, steps) = answers(&mut engine, vec![request()]);
    let load = engine.gauge().read();
    assert_eq!(load.accepted_tokens, load.draft_tokens, "{load:?}");
    assert_eq!(steps, 9, "four tokens a step, one left");
    // Many at a time, with little room for any.
    let mut setup = speculating(folder.path(), false);
    (setup.options.tokens_per_step_max, setup.options.logit_rows_max) = (11, 9);
    let (expected, _) = answers(&mut engine, vec![request(), request(), request()]);
    let mut small = setup.load(folder.path()).unwrap();
    let (found, _) = answers(&mut small, vec![request(), request(), request()]);
    assert_eq!(found, expected);
}

#[test]
fn a_draft_model_with_other_tokens_is_refused() {
    let (folder, other) = (tiny_model("tiny"), tiny_model("tiny"));
    let path = other.path().join("tokenizer.json");
    let json = std::fs::read_to_string(&path).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    let (first, second) = (vocab["a"].clone(), vocab["b"].clone());
    vocab.insert("a".to_owned(), second);
    vocab.insert("b".to_owned(), first);
    std::fs::write(&path, json.to_string()).unwrap();
    let error = speculating(other.path(), true).load(folder.path()).err().unwrap().to_string();
    assert!(error.contains("of the draft model: expected \"a\", found \"b\""), "{error}");
    let mut plain = setup().load(folder.path()).unwrap();
    let error = plain.submit(Request::new(vec![1]).strategy("speculative")).unwrap_err();
    let shown = std::error::Error::source(&error).unwrap().to_string();
    assert!(shown.contains("`draft_model`"), "{shown}");
}
