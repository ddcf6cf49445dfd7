//! What a server needs of the engine: a thread of its own, its load from others, and the likeliest
//! tokens beside each chosen one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jackfield_engine::{Engine, EngineError, Output, PromptToken, Request};
use jackfield_runtime::Clock;
use jackfield_tests::{Setup, tiny_model};

#[test]
fn alternatives_are_the_likeliest_tokens_of_the_row() {
    let folder = tiny_model("tiny");
    let mut engine = Setup::new("cpu").load(folder.path()).unwrap();
    let prompt: Vec<u32> = vec![510, 3, 7];
    let mut logits = Vec::new();
    engine.evaluate(&prompt, 2, 8, &mut |_, row| logits.extend_from_slice(row)).unwrap();
    let max = logits.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x));
    let total = max + logits.iter().map(|x| (x - max).exp()).sum::<f32>().ln();
    let mut expected: Vec<(u32, f32)> = (0..).zip(logits.iter().map(|x| x - total)).collect();
    expected.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));

    for top in [0, 1, 5, 20] {
        let request = Request::new(prompt.clone()).strategy("greedy").with("max_tokens", 1);
        engine.submit(request.with("ignore_eos", true).with("top_logprobs", top as i64)).unwrap();
        let mut seen = 0;
        engine
            .run_to_end(&mut |output| {
                let Output::Token { token, logprob, top_logprobs, .. } = output else { return };
                seen += 1;
                assert_eq!(top_logprobs.len(), top);
                assert_eq!(logprob.is_nan(), top == 0, "no cost where nothing is asked for");
                for (found, expected) in top_logprobs.iter().zip(&expected) {
                    assert_eq!(found.0, expected.0);
                    assert!((found.1 - expected.1).abs() < 1e-4, "{found:?} {expected:?}");
                }
                if let Some(first) = top_logprobs.first() {
                    assert_eq!(*first, (token, logprob), "greedy takes the first of them");
                }
            })
            .unwrap();
        assert_eq!(seen, 1);
    }
    let request = Request::new(prompt).with("top_logprobs", 21);
    assert!(engine.submit(request).unwrap_err().to_string().contains("top_logprobs"));
}

/// The scores of a prompt, asked for among other requests.
fn scores(engine: &mut Engine, prompt: &[u32]) -> Vec<PromptToken> {
    let params = |request: Request| request.with("max_tokens", 4).with("ignore_eos", true);
    engine.submit(params(Request::new(vec![9, 8, 7, 6, 5]))).unwrap();
    let request = Request::new(prompt.to_vec()).with("top_logprobs", 3).with("top_k", 1);
    let id = engine.submit(params(request).with("prompt_logprobs", true)).unwrap();
    let (mut scores, mut others) = (Vec::new(), 0);
    engine
        .run_to_end(&mut |output| {
            let Output::Token { request, prompt, .. } = output else { return };
            match request == id && !prompt.is_empty() {
                true => scores.push(prompt.to_vec()),
                false => others += prompt.len(),
            }
        })
        .unwrap();
    assert_eq!((scores.len(), others), (1, 0), "once, and nobody else has it");
    scores.remove(0)
}

#[test]
fn prompts_are_scored_by_the_model_alone_however_they_are_cut() {
    let folder = tiny_model("tiny");
    let prompt: Vec<u32> = (0..70).map(|i| (i * 37 + 5) % 510).collect();
    let mut engine = Setup::new("cpu").load(folder.path()).unwrap();
    let mut rows: Vec<Vec<f32>> = Vec::new();
    engine.evaluate(&prompt, 0, 8, &mut |_, row| rows.push(row.to_vec())).unwrap();
    let expected = scores(&mut engine, &prompt);
    assert_eq!(expected.iter().map(|one| one.token).collect::<Vec<_>>(), prompt);
    assert_eq!((expected[0].logprob, expected[0].top.len()), (None, 0));
    for (one, row) in expected[1..].iter().zip(&rows) {
        let max = row.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x));
        let total = max + row.iter().map(|x| (x - max).exp()).sum::<f32>().ln();
        let found = one.logprob.unwrap();
        assert!((found - (row[one.token as usize] - total)).abs() < 1e-4, "{one:?}");
        assert!((one.top[0].1 - (max - total)).abs() < 1e-4, "{one:?}");
        assert!(one.top.len() == 3 && one.top.is_sorted_by(|a, b| a.1 >= b.1), "{one:?}");
    }
    // What the cache has of it is evaluated again.
    assert_eq!(scores(&mut engine, &prompt), expected);
    for (tokens_per_step, rows) in [(3, 16), (512, 2), (7, 3)] {
        let mut setup = Setup::new("cpu");
        setup.options.tokens_per_step_max = tokens_per_step;
        setup.options.logit_rows_max = rows;
        let mut engine = setup.load(folder.path()).unwrap();
        assert_eq!(scores(&mut engine, &prompt), expected, "{tokens_per_step}, {rows}");
    }
    let one = scores(&mut engine, &prompt[..1]);
    assert_eq!(one, [PromptToken { token: prompt[0], logprob: None, top: Vec::new() }]);
}

#[test]
fn alternatives_follow_their_request_in_a_batch() {
    let folder = tiny_model("tiny");
    let mut engine = Setup::new("cpu").load(folder.path()).unwrap();
    let mut asked = Vec::new();
    for top in [3_usize, 0, 7, 1] {
        let prompt: Vec<u32> = (0..9 + top as u32).map(|i| i * 37 % 510).collect();
        let request = Request::new(prompt).with("max_tokens", 8).with("ignore_eos", true);
        let request = request.with("temperature", 0.7).with("top_p", 0.9).with("top_k", 5);
        asked.push((engine.submit(request.with("top_logprobs", top as i64)).unwrap(), top));
    }
    let mut seen = 0;
    engine
        .run_to_end(&mut |output| {
            let Output::Token { request, token, logprob, top_logprobs, .. } = output else {
                return;
            };
            let (_, top) = asked.iter().find(|(id, _)| *id == request).unwrap();
            assert!(top_logprobs.len() <= (*top).min(5), "five are left to draw from");
            if *top >= 5 {
                assert!(top_logprobs.contains(&(token, logprob)), "the chosen one is among them");
                let sum: f32 = top_logprobs.iter().map(|(_, x)| x.exp()).sum();
                assert!((sum - 1.0).abs() < 1e-4, "together all that can be drawn: {sum}");
            }
            seen += 1;
        })
        .unwrap();
    assert_eq!(seen, 4 * 8);
}

#[test]
fn an_engine_runs_in_a_thread_of_its_own_and_others_read_its_load() {
    let folder = tiny_model("tiny");
    let mut engine = Setup::new("cpu").load(folder.path()).unwrap();
    let gauge = engine.gauge();
    let total = engine.cache_usage().total as u64;
    assert_eq!((gauge.read().blocks_total, gauge.read().waiting), (total, 0));
    let request =
        |n: u32| Request::new(vec![510, 3, n]).with("max_tokens", 5).with("ignore_eos", true);
    let first = engine.submit(request(1)).unwrap();
    engine.submit(request(2)).unwrap();
    assert_eq!((gauge.read().running, gauge.read().waiting), (0, 2));
    engine.cancel(first);
    assert_eq!((gauge.read().running, gauge.read().waiting), (0, 1));
    let run = move |mut engine: Engine| {
        engine.step(&mut |_| {}).unwrap();
        engine
    };
    let mut engine = std::thread::spawn(move || run(engine)).join().unwrap();
    let load = gauge.read();
    assert_eq!((load.running, load.waiting, load.blocks_used), (1, 0, 1));
    assert_eq!((load.steps, load.evaluated_tokens, load.tokens), (1, 3, 1));
    engine.run_to_end(&mut |_| {}).unwrap();
    let load = gauge.read();
    assert_eq!((load.running, load.waiting, load.blocks_used), (0, 0, 0));
    assert_eq!((load.tokens, load.evaluated_tokens), (5, 3 + 4));
}

#[test]
fn a_token_is_bytes_on_any_thread() {
    let folder = tiny_model("tiny");
    let engine = Setup::new("cpu").load(folder.path()).unwrap();
    let tokenizer = Arc::clone(&engine.model().tokenizer);
    let ids = tokenizer.encode("hello", false);
    let spell =
        move || ids.iter().flat_map(|id| tokenizer.decode_bytes(*id).to_vec()).collect::<Vec<u8>>();
    let bytes = std::thread::spawn(spell).join().unwrap();
    assert_eq!(bytes, b"hello");
}

/// A clock that a test moves.
#[derive(Default)]
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now_us(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What became of requests: the request, its reason and error in words, its tokens.
fn ends(engine: &mut Engine, steps: usize) -> Vec<String> {
    let mut ends = Vec::new();
    for _ in 0..steps {
        engine
            .step(&mut |output| {
                let Output::Finished { request, reason, stats, error, .. } = output else { return };
                let error = error.map(ToString::to_string).unwrap_or_default();
                ends.push(format!("{} {reason:?} {} {error}", request.0, stats.tokens));
            })
            .unwrap();
    }
    ends
}

#[test]
fn a_request_ends_when_its_time_is_over_wherever_it_is() {
    let folder = tiny_model("tiny");
    let mut setup = Setup::new("cpu");
    setup.options.tokens_per_step_max = 4;
    let hands = Arc::new(Hands::default());
    let (wiring, registry, bus) = (&setup.wiring, &setup.registry, &setup.bus);
    let clock = Arc::clone(&hands) as Arc<dyn Clock>;
    let quiet = &mut |_, _| {};
    let mut engine =
        Engine::load(folder.path(), wiring, registry, bus, clock, &setup.options, quiet).unwrap();
    let request = |len: u32, timeout_us: Option<u64>| {
        let request = Request::new((0..len).collect::<Vec<u32>>()).with("max_tokens", 90);
        Request { timeout_us, ..request.with("ignore_eos", true) }
    };
    // One decodes, one is in the middle of its prompt, one waits; the first has all the time.
    engine.submit(request(2, None)).unwrap();
    engine.submit(request(2, Some(1_000))).unwrap();
    assert_eq!(ends(&mut engine, 2), [""; 0]);
    engine.submit(request(40, Some(900))).unwrap();
    engine.submit(request(40, Some(901))).unwrap();
    assert_eq!(ends(&mut engine, 1), [""; 0]);
    hands.0.store(900, Ordering::Relaxed);
    assert_eq!(ends(&mut engine, 1), ["3 Aborted 0 request: not answered within 900 us"]);
    hands.0.store(1_000, Ordering::Relaxed);
    assert_eq!(
        ends(&mut engine, 1),
        [
            "2 Aborted 4 request: not answered within 1000 us",
            "4 Aborted 0 request: not answered within 1000 us"
        ]
    );
    assert_eq!(engine.num_running(), 1);
    assert_eq!(ends(&mut engine, 100), ["1 Length 90 "]);
    assert_eq!(engine.cache_usage().used, 0);
}

#[test]
fn a_request_can_be_cancelled_wherever_it_is() {
    let folder = tiny_model("tiny");
    let prompt = |seed: u32, len: u32| -> Vec<u32> { (0..len).map(|i| (i + seed) % 500).collect() };
    let request =
        |seed: u32| Request::new(prompt(seed, 40)).with("max_tokens", 20).with("ignore_eos", true);
    let mut expected = Vec::new();
    let mut alone = Setup::new("cpu").load(folder.path()).unwrap();
    alone.submit(request(0)).unwrap();
    alone
        .run_to_end(&mut |output| {
            if let Output::Token { token, .. } = output {
                expected.push(token);
            }
        })
        .unwrap();
    // After every number of steps: waiting, in the middle of a prompt, decoding, preempted, and
    // with blocks that others share; the one that stays answers as it does alone.
    for steps in 0..40 {
        let mut small = Setup::new("cpu");
        small.options.tokens_per_step_max = 16;
        small.options.state_bytes_max = 6 * 16 * 256;
        small.options.context_length_max = 64;
        let mut engine = small.load(folder.path()).unwrap();
        let stays = engine.submit(request(0)).unwrap();
        let goes: Vec<_> = [0, 1, 0].map(|seed| engine.submit(request(seed)).unwrap()).into();
        let mut tokens = Vec::new();
        let mut collect = |output: Output<'_>| match output {
            Output::Token { request, token, .. } if request == stays => tokens.push(token),
            Output::Finished { error, .. } => assert_eq!(error, None),
            Output::Token { .. } => {}
        };
        for _ in 0..steps {
            engine.step(&mut collect).unwrap();
        }
        goes.into_iter().for_each(|id| engine.cancel(id));
        engine.run_to_end(&mut collect).unwrap();
        assert_eq!(tokens, expected, "after {steps} steps");
        assert_eq!((engine.num_running(), engine.cache_usage().used), (0, 0));
    }
}

#[test]
fn a_prompt_that_can_never_fit_is_refused_at_once() {
    let folder = tiny_model("tiny");
    let mut small = Setup::new("cpu");
    small.options.state_bytes_max = 3 * 16 * 256;
    let mut engine = small.load(folder.path()).unwrap();
    assert_eq!(engine.tokens_per_seq_max(), 48, "the cache holds less than the context");
    let request = |len: u32| {
        let request = Request::new((0..len).collect::<Vec<u32>>());
        request.with("max_tokens", 100).with("ignore_eos", true)
    };
    let refused = engine.submit(request(48)).unwrap_err();
    assert!(matches!(refused, EngineError::PromptTooLong { tokens: 48, tokens_max: 47 }));
    engine.submit(request(40)).unwrap();
    // The one that was refused had the first number.
    assert_eq!(ends(&mut engine, 20), ["2 Length 8 "], "it ends where the cache does");
}
