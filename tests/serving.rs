//! What a server needs of the engine: a thread of its own, its load from others, and the likeliest
//! tokens beside each chosen one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use jackfield_engine::{Engine, Output, Request};
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
    let tokenizer = std::sync::Arc::clone(&engine.model().tokenizer);
    let ids = tokenizer.encode("hello", false);
    let spell =
        move || ids.iter().flat_map(|id| tokenizer.decode_bytes(*id).to_vec()).collect::<Vec<u8>>();
    let bytes = std::thread::spawn(spell).join().unwrap();
    assert_eq!(bytes, b"hello");
}
