//! Beam search: answers and scores of transformers, beside other requests, in shared blocks, with processors.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;

use jackfield_engine::{Engine, Output, Request, RequestId};
use jackfield_tests::{Setup, answer, golden, tiny_model};
use plugin_api::kinds::decoding_strategy::FinishReason;
use serde_json::Value;
use tempfile::TempDir;

/// Token and logarithm of its probability, and why it ended.
type Found = (Vec<(u32, f32)>, FinishReason);

fn run(engine: &mut Engine, ids: &[RequestId]) -> Vec<Found> {
    let mut found: BTreeMap<RequestId, Found> = BTreeMap::new();
    let result = engine.run_to_end(&mut |output| match output {
        Output::Token { request, token, logprob, .. } => {
            let of = found.entry(request).or_insert((Vec::new(), FinishReason::Aborted));
            of.0.push((token, logprob));
        }
        Output::Finished { request, reason, error, .. } => {
            assert_eq!(error, None);
            found.entry(request).or_insert((Vec::new(), reason)).1 = reason;
        }
    });
    result.unwrap();
    ids.iter().map(|id| found.remove(id).unwrap()).collect()
}

fn cases() -> Vec<Value> {
    serde_json::from_slice(&fs::read(golden("beam.json")).unwrap()).unwrap()
}

fn ids(list: &Value) -> Vec<u32> {
    list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Asks for one of the best answers of a case.
fn request(case: &Value, choice: usize) -> Request {
    let number = |key: &str| case[key].as_f64().unwrap();
    let request = Request::new(ids(&case["prompt"]))
        .strategy("beam")
        .with("num_beams", number("num_beams") as i64)
        // Nothing is drawn.
        .with("temperature", 0.0)
        .with("top_k", 1)
        .with("length_penalty", number("length_penalty"))
        .with("max_tokens", number("max_tokens") as i64)
        .with("choice", choice as i64);
    match case["early_stopping"].as_str() {
        Some(text) => request.with("early_stopping", text),
        None => request.with("early_stopping", case["early_stopping"] == true),
    }
}

/// The tiny model, in which this token ends an answer.
fn ending_with(eos: u64) -> TempDir {
    let folder = tiny_model("tiny");
    let path = folder.path().join("generation_config.json");
    fs::write(path, format!("{{\"eos_token_id\": {eos}}}")).unwrap();
    folder
}

fn setup() -> Setup {
    Setup::new("cpu").set("paged", "dtype", "f32")
}

/// How far a score may be from that of transformers, relative to it: sums of up to 24 logarithms in 32 bits.
const SCORE_TOLERANCE: f64 = 1e-4;

/// Checks one of the best answers of a search; whether its score was compared.
fn check(case: &Value, choice: usize, (tokens, reason): &Found) -> bool {
    let wanted = &case["answers"][choice];
    let mut expected = ids(&wanted["tokens"]);
    let ends = expected.last().map(|&id| u64::from(id)) == case["eos"].as_u64();
    if ends {
        expected.pop();
    }
    let found: Vec<u32> = tokens.iter().map(|(token, _)| *token).collect();
    assert_eq!(found, expected, "{choice} of {case}");
    assert_eq!(*reason, if ends { FinishReason::Stop } else { FinishReason::Length });
    // The logarithm of an end is told nobody.
    let Some(score) = wanted["score"].as_f64().filter(|_| !ends) else { return false };
    let sum: f64 = tokens.iter().map(|(_, logprob)| f64::from(*logprob)).sum();
    let penalty = case["length_penalty"].as_f64().unwrap();
    let mine = sum / (tokens.len() as f64).powf(penalty);
    assert!((mine - score).abs() <= SCORE_TOLERANCE * score.abs(), "{mine} and {score}: {case}");
    true
}

#[test]
fn answers_and_scores_are_those_of_transformers() {
    let mut by_end: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
    for case in cases() {
        by_end.entry(case["eos"].as_u64().unwrap()).or_default().push(case);
    }
    assert!(by_end.len() > 1, "some end by themselves");
    let mut num_scores = 0;
    for (eos, cases) in by_end {
        let folder = ending_with(eos);
        let mut engine = setup().load(folder.path()).unwrap();
        for case in &cases {
            let id = engine.submit(request(case, 0)).unwrap();
            num_scores += usize::from(check(case, 0, &run(&mut engine, &[id])[0]));
            assert_eq!(engine.cache_usage().used, 0, "every block comes back");
        }
        // Every answer of every search, all at a time, beside one that is drawn.
        let all: Vec<(&Value, usize)> = cases
            .iter()
            .flat_map(|case| (0..case["answers"].as_array().unwrap().len()).map(move |i| (case, i)))
            .collect();
        let ids: Vec<_> =
            all.iter().map(|(case, i)| engine.submit(request(case, *i)).unwrap()).collect();
        let drawn = Request::new(vec![510, 9]).with("max_tokens", 20).with("seed", 3);
        engine.submit(drawn).unwrap();
        for ((case, choice), found) in all.into_iter().zip(run(&mut engine, &ids)) {
            num_scores += usize::from(check(case, choice, &found));
        }
        assert_eq!(engine.cache_usage().used, 0);
    }
    assert!(num_scores > 150, "{num_scores}");
}

#[test]
fn one_beam_takes_the_likeliest_tokens() {
    let folder = ending_with(511);
    let mut engine = setup().load(folder.path()).unwrap();
    let of = |strategy| Request::new("Once").strategy(strategy).with("max_tokens", 30);
    let beam = answer(&mut engine, of("beam").with("num_beams", 1));
    assert_eq!(beam, answer(&mut engine, of("greedy")));
}

#[test]
fn what_beams_share_lies_in_the_cache_once() {
    let folder = ending_with(511);
    let mut engine = setup().load(folder.path()).unwrap();
    assert_eq!(engine.state_layout().pool.block_size, 16);
    let prompt: Vec<u32> = (0..160).map(|i| i % 510).collect();
    let wide = Request::new(prompt).strategy("beam").with("num_beams", 8).with("max_tokens", 24);
    engine.submit(wide).unwrap();
    let mut most = 0;
    while engine.num_running() > 0 {
        let sink = &mut |output: Output<'_>| {
            if let Output::Finished { error, .. } = output {
                assert_eq!(error, None);
            }
        };
        engine.step(sink).unwrap();
        most = most.max(engine.cache_usage().used);
    }
    // Ten blocks for the prompt, and no more than two for each of eight beams, which alone would need twelve each.
    assert!((10 + 8..=10 + 8 * 2).contains(&most), "{most} blocks");
    assert_eq!((engine.cache_usage().used, engine.gauge().read().preemptions), (0, 0));
}

#[test]
fn beams_that_lose_their_cache_find_the_same() {
    let case = |case: &Value| case["num_beams"] == 4 && case["length_penalty"] == 0.0;
    let cases: Vec<Value> = cases().into_iter().filter(|it| case(it) && it["eos"] == 511).collect();
    assert_eq!(cases.len(), 3);
    let folder = ending_with(511);
    let most = |cases: &[Value]| {
        let mut engine = setup().load(folder.path()).unwrap();
        for case in cases {
            engine.submit(request(case, 0)).unwrap();
        }
        let mut most = 0;
        while engine.num_running() > 0 {
            engine.step(&mut |_| ()).unwrap();
            most = most.max(engine.cache_usage().used);
        }
        most
    };
    let alone = cases.iter().map(|case| most(std::slice::from_ref(case))).max().unwrap();
    let together = most(&cases);
    assert!(alone + 2 < together, "{alone} blocks for one, {together} for all");
    let mut preemptions = 0;
    for num_blocks in [alone + 1, alone + 2, together - 1] {
        let mut setup = setup();
        let engine = setup.load(folder.path()).unwrap();
        let layout = engine.state_layout();
        let block_bytes = layout.pool.block_size * layout.bytes_per_token;
        setup.options.state_bytes_max = (num_blocks * block_bytes) as u64;
        let mut engine = setup.load(folder.path()).unwrap();
        assert!(engine.cache_usage().total <= num_blocks);
        let ids: Vec<_> =
            cases.iter().map(|case| engine.submit(request(case, 0)).unwrap()).collect();
        for (case, found) in cases.iter().zip(run(&mut engine, &ids)) {
            check(case, 0, &found);
        }
        preemptions += engine.gauge().read().preemptions;
        assert_eq!(engine.cache_usage().used, 0);
    }
    assert!(preemptions > 0);
}

#[test]
fn a_search_ends_with_the_context() {
    let folder = ending_with(511);
    let mut setup = setup();
    setup.options.context_length_max = 48;
    let mut engine = setup.load(folder.path()).unwrap();
    let most = engine.tokens_per_seq_max();
    let request = Request::new(vec![7; 30]).strategy("beam").with("num_beams", 3);
    let id = engine.submit(request).unwrap();
    let (tokens, reason) = run(&mut engine, &[id]).remove(0);
    assert_eq!((tokens.len(), reason), (most - 30, FinishReason::Length));
}

#[test]
fn processors_follow_every_beam() {
    let folder = ending_with(511);
    let mut engine = setup().load(folder.path()).unwrap();
    let request = |beams: i64| {
        Request::new("Hi")
            .strategy("beam")
            .with("num_beams", beams)
            .with("max_tokens", 60)
            .with("length_penalty", 0.0)
            .with("repetition_penalty", 1.2)
            .with("guided_regex", "(ab|ac|ba){2,5};[0-9]{2}")
    };
    for beams in [1, 2, 6] {
        let (text, _) = answer(&mut engine, request(beams));
        let is_word =
            |word: &[u8]| [b"ab", b"ac", b"ba"].contains(&<&[u8; 2]>::try_from(word).unwrap());
        let (words, number) = text.split_once(';').unwrap();
        let are_words = words.as_bytes().chunks(2).all(is_word);
        assert!((4..=10).contains(&words.len()) && are_words, "{text}");
        assert!(number.len() == 2 && number.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
    }
    assert_eq!(engine.cache_usage().used, 0);
}
