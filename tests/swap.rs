//! Parts are replaced while requests run: nothing is lost, and every token says what made it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use jackfield_engine::{Engine, Output, Request};
use jackfield_tests::{Setup, answer, tiny_model};
use plugin_api::kinds::logits_processor::LogitsProcessor;
use plugin_api::testing::machine::Machine;
use plugin_api::{Backend, Config, KvCache, Value};

fn request(max_tokens: i64) -> Request {
    let request = Request::new(vec![510, 3, 7, 31]).with("max_tokens", max_tokens);
    request.with("ignore_eos", true).with("temperature", 0.8).with("seed", 5)
}

fn label(engine: &Engine, kind: &str) -> String {
    let labels = engine.labels().into_iter();
    labels.filter(|(k, _)| k == kind).map(|(_, label)| label.to_string()).collect()
}

fn config(key: &str, value: impl Into<Value>) -> Config {
    Config::new().with(key, value)
}

#[test]
fn a_backend_is_replaced_between_two_tokens_of_an_answer() {
    let folder = tiny_model("tiny");
    let setup = Setup::new("cpu");
    let (_, expected) = answer(&mut setup.load(folder.path()).unwrap(), request(60));
    let mut engine = setup.load(folder.path()).unwrap();
    let handle = engine.handles().backend;
    engine.submit(request(60)).unwrap();
    let (mut tokens, mut digests) = (Vec::new(), Vec::new());
    while engine.num_running() > 0 {
        if tokens.len() % 10 == 5 {
            let threads = config("threads", 1 + (tokens.len() / 10 % 2) as i64);
            let next = setup.registry.make::<dyn Backend>("cpu", &threads).unwrap();
            handle.offer("cpu", next).unwrap();
        }
        engine
            .step(&mut |output| {
                if let Output::Token { token, digest, .. } = output {
                    tokens.push(token);
                    digests.push(*digest);
                }
            })
            .unwrap();
    }
    assert_eq!(tokens, expected);
    assert_eq!(label(&engine, "backend"), "cpu#7");
    let changes = digests.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(changes, 6, "each swap is in the digest of the token after it");
}

#[test]
fn a_backend_that_packs_otherwise_is_refused_and_the_old_one_goes_on() {
    let folder = tiny_model("tiny");
    let setup = Setup::new("cpu");
    let (_, expected) = answer(&mut setup.load(folder.path()).unwrap(), request(8));
    let mut engine = setup.load(folder.path()).unwrap();
    let other = setup.registry.make::<dyn Backend>("reference", &Config::new()).unwrap();
    engine.handles().backend.offer("reference", other).unwrap();
    assert_eq!(answer(&mut engine, request(8)).1, expected);
    assert_eq!(label(&engine, "backend"), "cpu#1");
}

#[test]
fn a_request_keeps_the_processor_that_it_started_with() {
    let folder = tiny_model("tiny");
    let setup = Setup::new("cpu");
    let plain = || Request::new(vec![510, 3, 7]).with("max_tokens", 24).with("ignore_eos", true);
    let (_, expected) = answer(&mut setup.load(folder.path()).unwrap(), plain().with("seed", 9));
    let mut engine = setup.load(folder.path()).unwrap();
    let handles = engine.handles();
    let (_, top_k) = handles.processors.iter().find(|(name, _)| name == "top-k").unwrap();
    engine.submit(plain().with("seed", 9)).unwrap();
    let mut tokens = Vec::new();
    while engine.num_running() > 0 {
        if tokens.len() == 4 {
            // From here on, new requests take the likeliest token every time.
            let config = config("top_k", 1);
            let strict = setup.registry.make::<dyn LogitsProcessor>("top-k", &config).unwrap();
            top_k.offer("top-k", strict).unwrap();
        }
        engine
            .step(&mut |output| {
                if let Output::Token { token, .. } = output {
                    tokens.push(token);
                }
            })
            .unwrap();
    }
    assert_eq!(tokens, expected, "the running request is not touched");
    let greedy = answer(&mut engine, plain().strategy("greedy")).1;
    assert_eq!(answer(&mut engine, plain().with("seed", 9)).1, greedy);
}

#[test]
fn a_cache_is_replaced_as_soon_as_nobody_needs_the_old_one() {
    let folder = tiny_model("tiny");
    let setup = Setup::new("cpu");
    let mut engine = setup.load(folder.path()).unwrap();
    let (_, expected) = answer(&mut engine, request(12));
    engine.submit(request(12)).unwrap();
    engine.step(&mut |_| {}).unwrap();
    let next = setup.registry.make::<dyn KvCache>("paged", &Config::new()).unwrap();
    engine.handles().cache.offer("paged", next).unwrap();
    engine.run_to_end(&mut |_| {}).unwrap();
    assert_eq!(label(&engine, "kv-cache"), "paged#1");
    assert_eq!(answer(&mut engine, request(12)).1, expected);
    assert_eq!(label(&engine, "kv-cache"), "paged#2");
}

#[test]
fn what_is_streamed_is_the_answer_and_stop_texts_are_never_shown() {
    let folder = tiny_model("tiny");
    let setup = Setup::new("cpu");
    setup.subscribe_hooks(|plugin| Machine::new().host(plugin));
    let mut engine = setup.load(folder.path()).unwrap();
    let (whole, _) = answer(&mut engine, request(40));
    let characters: Vec<char> = whole.chars().collect();
    for (from, len) in [(3, 1), (5, 3), (9, 2), (12, 6)] {
        let stop: String = characters[from..from + len].iter().collect();
        let (mut shown, mut finished) = (String::new(), String::new());
        engine.submit(request(40).with("stop", stop.as_str())).unwrap();
        engine
            .run_to_end(&mut |output| match output {
                Output::Token { text, .. } => shown.push_str(text),
                Output::Finished { text, answer, .. } => {
                    shown.push_str(text);
                    answer.clone_into(&mut finished);
                }
            })
            .unwrap();
        let expected = &whole[..whole.find(&stop).unwrap()];
        assert_eq!((shown.as_str(), finished.as_str()), (expected, expected), "stop {stop:?}");
    }
}
