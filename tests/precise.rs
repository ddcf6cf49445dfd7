//! Weights of the same model in more bits stand in for those of a model: by a mask for every request, which is exchanged while
//! requests run, and for the rest of an answer where a hook asks for it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jackfield_engine::model::precise::PreciseOptions;
use jackfield_engine::quantize::{Recipe, quantize};
use jackfield_engine::{Engine, Output, Request, RequestId};
use jackfield_runtime::{SwapError, SwapTarget as _};
use jackfield_tests::{Setup, answer, tiny_model};
use plugin_api::Config;
use plugin_api::events::{Flow, LOGIT_BINS, Subscriptions};
use plugin_api::testing::machine::Machine;
use tempfile::TempDir;

const PROMPT: [u32; 12] = [70, 105, 114, 115, 116, 32, 67, 3, 400, 17, 17, 250];
/// Tokens of an answer until its logits are looked at.
const EVERY: usize = plugin_api::events::LOGITS_EVERY;

/// The tiny model in all its bits, in four a weight, and in both.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let (model, folder) = (tiny_model("tiny"), TempDir::new().unwrap());
        let files = Self { folder };
        let Setup { wiring, registry, .. } = Setup::new("cpu");
        let others = [("layers.0.*_proj.weight".to_owned(), "F32".to_owned())];
        for (name, format, others) in
            [("f32", "F32", &[][..]), ("q4", "Q4_0", &[]), ("both", "Q4_0", &others)]
        {
            let recipe = Recipe { format, others, tokenizer: None, calibrated: None, threads: 1 };
            let (to, all) = (files.path(name), &mut |_, _| true);
            quantize(model.path(), &to, &recipe, &wiring, &registry, all).unwrap();
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.gguf"))
    }

    fn setup(&self, precise: &str, mask: &[&str], fallback: bool) -> Setup {
        let mut setup = Setup::new("cpu").set("paged", "dtype", "f32");
        setup.options.logit_rows_max = 16;
        setup.options.context_length_max = 512;
        let mask = mask.iter().map(|&pattern| pattern.to_owned()).collect();
        setup.options.precise = Some(PreciseOptions { path: self.path(precise), mask, fallback });
        setup
    }

    /// The model in four bits, with weights of another in place of those that `mask` names.
    fn masked(&self, mask: &[&str]) -> Engine {
        self.setup("f32", mask, false).load(&self.path("q4")).unwrap()
    }

    fn alone(&self, name: &str) -> Engine {
        let mut setup = self.setup(name, &[], false);
        setup.options.precise = None;
        setup.load(&self.path(name)).unwrap()
    }
}

fn logits(mut engine: Engine) -> Vec<f32> {
    let mut logits = Vec::new();
    engine.evaluate(&PROMPT, 0, 16, &mut |_, row| logits.extend_from_slice(row)).unwrap();
    logits
}

fn request(seed: i64) -> Request {
    let request = Request::new(PROMPT.to_vec()).with("max_tokens", 200).with("ignore_eos", true);
    request.with("temperature", 0.8).with("seed", seed).strategy("sample")
}

#[test]
fn a_mask_chooses_weights_by_their_names() {
    let files = Files::new();
    let (coarse, fine) = (logits(files.alone("q4")), logits(files.alone("f32")));
    assert_ne!(coarse, fine);
    assert_eq!(logits(files.masked(&[])), coarse, "nothing stands in");
    assert_eq!(logits(files.masked(&["*"])), fine, "everything does");
    let both = logits(files.masked(&["layers.0.*_proj.weight"]));
    assert_eq!(both, logits(files.alone("both")), "as in a file that was written so");
    assert!(both != coarse && both != fine);
}

#[test]
fn running_requests_keep_their_mask_and_new_ones_get_the_new() {
    let files = Files::new();
    for fallback in [false, true] {
        let setup = files.setup("f32", &[], fallback);
        let mut engine = setup.load(&files.path("q4")).unwrap();
        let (swapper, mut tokens) = (engine.swapper(), Vec::new());
        let exchange = |mask: &str| {
            let mask: Vec<String> = mask.split_whitespace().map(str::to_owned).collect();
            swapper.exchange_mask(&mask, &setup.wiring, &setup.registry, Duration::ZERO)
        };
        let masks = ["", "*", "layers.0.*_proj.weight", ""];
        let (mut ids, mut digests) = (Vec::new(), Vec::new());
        for (index, mask) in masks.iter().enumerate() {
            if index > 0 {
                exchange(mask).unwrap();
                engine.boundary();
            }
            ids.push(engine.submit(request(7)).unwrap());
            digests.push(engine.digest());
            (0..9).for_each(|_| step(&mut engine, &mut tokens));
        }
        let before = engine.digest();
        let error = exchange("layers.0.* no.such").unwrap_err().to_string();
        assert!(error.contains("mask `no.such`: expected a pattern"), "{error}");
        assert_eq!(engine.digest(), before, "and nothing has changed");
        while engine.num_running() > 0 {
            step(&mut engine, &mut tokens);
        }
        let of = |id: &RequestId| -> Vec<u32> {
            tokens.iter().filter(|(request, _)| request == id).map(|(_, token)| *token).collect()
        };
        let found: Vec<_> = ids.iter().map(of).collect();
        let alone =
            ["q4", "f32", "both", "q4"].map(|name| answer(&mut files.alone(name), request(7)).1);
        assert_eq!(found, alone, "no token is lost, and each has the weights it began with");
        digests.sort_by_key(|digest| *digest.as_bytes());
        digests.dedup();
        assert_eq!(digests.len(), masks.len() - 1, "tokens say what made them");
    }
}

fn step(engine: &mut Engine, tokens: &mut Vec<(RequestId, u32)>) {
    let told = engine.step(&mut |output| {
        if let Output::Token { request, token, .. } = output {
            tokens.push((request, token));
        }
    });
    told.unwrap();
}

/// Requests whose `precise` says so have precise weights from the look at that token on; how many looks there were.
fn guard(setup: &Setup) -> Arc<AtomicUsize> {
    let (mut on, looks) = (Subscriptions::new(), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&looks);
    on.after_logits(move |event, _| {
        seen.fetch_add(1, Ordering::Relaxed);
        assert_eq!((event.index + 1) % EVERY, 0);
        assert_eq!(event.counts.len(), LOGIT_BINS);
        let from = event.params.count_or("precise", u64::MAX, 0..=u64::MAX).unwrap();
        let was = event.is_precise;
        event.is_precise |= event.index as u64 >= from;
        assert!(!was || event.index as u64 > from, "it stays so");
        Flow::Continue
    });
    setup.bus.subscribe(&Machine::new().host("guard"), on);
    looks
}

/// All answers, by their seed.
fn answers(engine: &mut Engine, requests: Vec<Request>) -> Vec<Vec<u32>> {
    let ids: Vec<_> = requests.into_iter().map(|request| engine.submit(request).unwrap()).collect();
    let mut tokens = Vec::new();
    while engine.num_running() > 0 {
        step(engine, &mut tokens);
    }
    let of = |id: &RequestId| {
        tokens.iter().filter(|(request, _)| request == id).map(|(_, token)| *token).collect()
    };
    ids.iter().map(of).collect()
}

#[test]
fn an_answer_goes_on_with_precise_weights() {
    let files = Files::new();
    let coarse = answer(&mut files.alone("q4"), request(7)).1;
    let setup = files.setup("f32", &[], true);
    let looks = guard(&setup);
    let mut engine = setup.load(&files.path("q4")).unwrap();
    let plain = answer(&mut engine, request(7)).1;
    assert_eq!(plain, coarse, "nobody asked");
    assert_eq!(looks.load(Ordering::Relaxed), 200 / EVERY);
    let precise = |from: i64| request(7).with("precise", from);
    let mut found = Vec::new();
    for (from, same) in [(60, EVERY), (100, 2 * EVERY)] {
        let tokens = answer(&mut engine, precise(from)).1;
        assert_eq!(tokens[..same], coarse[..same], "until then it has the others");
        assert_ne!(tokens[same..], coarse[same..], "and then it has not");
        found.push(tokens);
    }
    assert_eq!(engine.gauge().read().precise_requests, 2);

    // It does not depend on who else is answered, on chunks, on lost caches or on guesses.
    let batch = || vec![precise(60), request(7), precise(100), request(8), precise(60)];
    let together = answers(&mut engine, batch());
    assert_eq!(
        [&together[0], &together[1], &together[2], &together[4]],
        [&found[0], &coarse, &found[1], &found[0]]
    );
    let mut small = files.setup("f32", &[], true);
    (small.options.state_bytes_max, small.options.tokens_per_step_max) = (1 << 18, 7);
    guard(&small);
    let mut engine = small.load(&files.path("q4")).unwrap();
    assert_eq!(answers(&mut engine, batch()), together);
    assert!(engine.gauge().read().preemptions > 0, "some lost their cache");
    let small = small.set("prompt-lookup", "ngram_min", 1);
    guard(&small);
    let mut engine = small.load(&files.path("q4")).unwrap();
    let lookup = |request: Request| request.strategy("prompt-lookup").with("temperature", 0.0);
    let expected =
        answers(&mut engine, batch().into_iter().map(|r| r.with("temperature", 0.0)).collect());
    let guessed = answers(&mut engine, batch().into_iter().map(lookup).collect());
    assert!(engine.gauge().read().accepted_tokens > 0);
    assert_eq!(guessed, expected, "with guesses");

    // The same weights under another name change nothing.
    let same = files.setup("q4", &[], true);
    guard(&same);
    let mut engine = same.load(&files.path("q4")).unwrap();
    assert_eq!(answer(&mut engine, precise(60)).1, coarse);
}

#[test]
fn tokens_say_which_weights_made_them_and_only_shared_ones_are_found_again() {
    let files = Files::new();
    let setup = files.setup("f32", &[], true);
    guard(&setup);
    let mut engine = setup.load(&files.path("q4")).unwrap();
    let mut digests = Vec::new();
    engine.submit(request(7).with("precise", 60)).unwrap();
    engine
        .run_to_end(&mut |output| {
            if let Output::Token { digest, .. } = output {
                digests.push(*digest);
            }
        })
        .unwrap();
    let changes: Vec<usize> = (1..200).filter(|&i| digests[i] != digests[i - 1]).collect();
    assert_eq!(changes, [EVERY], "from the token after the look on");
    // Blocks of precise tokens are nobody else's: the prompt with that answer is evaluated anew behind them.
    let answered = answer(&mut engine, request(7).with("precise", 60)).1;
    let prompt: Vec<u32> = PROMPT.iter().chain(&answered).copied().collect();
    let next = || Request::new(prompt.clone()).with("max_tokens", 20).with("ignore_eos", true);
    let next = || next().strategy("greedy");
    assert_eq!(answer(&mut engine, next()).1, answer(&mut files.alone("q4"), next()).1);
    assert!(engine.gauge().read().cached_tokens >= 64, "what others may read is found");
}

#[test]
fn parts_and_backends_change_under_precise_answers() {
    let files = Files::new();
    let setup = files.setup("f32", &[], true);
    guard(&setup);
    let mut engine = setup.load(&files.path("q4")).unwrap();
    let expected = answer(&mut engine, request(7).with("precise", 60)).1;
    let mut tokens = Vec::new();
    engine.submit(request(7).with("precise", 60)).unwrap();
    for (kind, name) in [("norm", "rms-norm"), ("backend", "cpu"), ("kv-cache", "paged")] {
        (0..40).for_each(|_| step(&mut engine, &mut tokens));
        let config = Config::new().with("dtype", "f32");
        let made = (setup.registry.find(kind, name).unwrap().make)(&config).unwrap();
        engine.swapper().swap(kind, name, made, Duration::ZERO).unwrap();
        engine.boundary();
    }
    while engine.num_running() > 0 {
        step(&mut engine, &mut tokens);
    }
    let found: Vec<u32> = tokens.into_iter().map(|(_, token)| token).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_cannot_stand_in_is_refused() {
    let files = Files::new();
    let refused = |precise: &Path, mask: &[&str]| {
        let mut setup = files.setup("f32", mask, false);
        setup.options.precise.as_mut().unwrap().path = precise.to_owned();
        setup.load(&files.path("q4")).err().unwrap().to_string()
    };
    let (other, folder) = (tiny_model("tiny_qwen3"), tiny_model("tiny"));
    #[rustfmt::skip]
    let cases = [
        (other.path(),               &[][..],       "found a model of another plan"),
        // Rows of queries lie otherwise in folders.
        (folder.path(),              &[],           "in the same layout of files"),
        (Path::new("nowhere.gguf"),  &[],           "nowhere.gguf"),
        (&files.path("f32"),         &["layers.9"], "mask `layers.9`: expected a pattern that the name of some weight fits"),
    ];
    for (precise, mask, expected) in cases {
        let error = refused(precise, mask);
        assert!(error.contains(expected), "{error}");
    }
    // Without a model in more bits there is nothing to exchange.
    let engine = files.alone("q4");
    let Setup { wiring, registry, .. } = Setup::new("cpu");
    let none = engine.swapper().exchange_mask(&[], &wiring, &registry, Duration::ZERO);
    assert!(matches!(none, Err(SwapError::Differs { .. })), "{none:?}");
}
