//! Strategies that look at text, in the engine: what they draw, put in and tell.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::time::Duration;

use jackfield_engine::{Engine, Output, Request};
use jackfield_runtime::SwapTarget;
use jackfield_tests::{Setup, answer, real_model, tiny_model};
use plugin_api::{Config, DecodingStrategy, Kind};

fn setup() -> Setup {
    Setup::new("cpu").set("paged", "dtype", "f32")
}

/// Steps to the end; the most blocks that were used.
fn most_blocks(engine: &mut Engine) -> usize {
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
    most
}

fn poll(prompt: &str, paths: i64) -> Request {
    let request = Request::new(prompt).strategy("self-consistency").with("num_paths", paths);
    let request = request.with("max_tokens", 24).with("ignore_eos", true);
    request.with("seed", 11).with("temperature", 0.9)
}

#[test]
fn the_first_path_is_what_sampling_draws() {
    let folder = tiny_model("tiny");
    let mut engine = setup().load(folder.path()).unwrap();
    for prompt in ["A", "What is 3 + 4?"] {
        let drawn = answer(&mut engine, poll(prompt, 1).strategy("sample"));
        assert_eq!(answer(&mut engine, poll(prompt, 1)), drawn);
        // Nothing is found in any path, so that the first is told; it was drawn beside the others.
        let none = poll(prompt, 6).with("answer_pattern", "^never$");
        assert_eq!(answer(&mut engine, none), drawn, "{prompt}");
    }
    assert_eq!(engine.cache_usage().used, 0);
}

#[test]
fn the_path_that_is_told_is_one_that_the_vote_allows() {
    let folder = tiny_model("tiny");
    let mut engine = setup().load(folder.path()).unwrap();
    // Of paths that are alike in their first letter, more than of any other kind.
    let mut told = Vec::new();
    for paths in 1..=9 {
        let request = poll("Say a", paths).with("answer_pattern", r"(?s)^\W*(.)");
        told.push(answer(&mut engine, request));
    }
    assert_eq!(told[0], told[1], "one vote each: the first");
    let mut engine = setup().load(folder.path()).unwrap();
    for (paths, (_, told)) in (1..=9).zip(&told) {
        let drawn = Request::new("beside").with("max_tokens", 40).with("seed", 5);
        engine.submit(drawn).unwrap();
        let request = poll("Say a", paths).with("answer_pattern", r"(?s)^\W*(.)");
        let id = engine.submit(request).unwrap();
        let mut found = Vec::new();
        let all = engine.run_to_end(&mut |output| match output {
            Output::Token { request, token, .. } if request == id => found.push(token),
            Output::Token { .. } => {}
            Output::Finished { error, .. } => assert_eq!(error, None),
        });
        all.unwrap();
        assert_eq!(found, *told, "beside another request");
    }
}

#[test]
fn what_paths_share_lies_in_the_cache_once() {
    let folder = tiny_model("tiny");
    let mut engine = setup().load(folder.path()).unwrap();
    let mut request = poll("", 8);
    // Ten full blocks: its last token lies in each path's own.
    request.prompt = (0..161).map(|i| i % 510).collect::<Vec<u32>>().into();
    engine.submit(request).unwrap();
    let most = most_blocks(&mut engine);
    assert!((10 + 8..=10 + 8 * 2).contains(&most), "{most} blocks");
    assert_eq!(engine.cache_usage().used, 0);
}

fn thought(prompt: &str) -> Request {
    Request::new(prompt)
        .strategy("chain-of-thought")
        .with("temperature", 0.0)
        .with("max_reasoning_tokens", 40)
        .with("max_tokens", 20)
}

/// What two greedy answers make of a prompt: reasoning, then the answer.
fn by_hand(engine: &mut Engine, prompt: &str) -> (String, String) {
    let encode = |engine: &Engine, text: &str| engine.model().tokenizer.encode_within(text);
    let of = |tokens: &[u32], most: i64| {
        let request = Request::new(tokens.to_vec()).strategy("greedy");
        request.with("max_tokens", most)
    };
    let tokenizer = &engine.model().tokenizer;
    let mut tokens: Vec<u32> =
        tokenizer.bos().filter(|_| tokenizer.add_bos()).into_iter().collect();
    tokens.extend(tokenizer.encode(prompt, false));
    tokens.extend(encode(&*engine, " Let's think step by step."));
    let (reasoning, more) = answer(engine, of(&tokens, 40));
    tokens.extend(more);
    tokens.extend(encode(&*engine, "\nTherefore, the answer is"));
    (reasoning, answer(engine, of(&tokens, 20)).0)
}

fn thinks(model: &Path, prompts: &[&str]) {
    let mut engine = setup().load(model).unwrap();
    for prompt in prompts {
        let (reasoning, expected) = by_hand(&mut engine, prompt);
        assert_eq!(answer(&mut engine, thought(prompt)).0, expected, "{prompt}");
        let shown = answer(&mut engine, thought(prompt).with("show_reasoning", true)).0;
        eprintln!("{prompt}{shown}");
        let text =
            format!("<think>\n Let's think step by step.{reasoning}\n</think>\n\n{expected}");
        assert_eq!(shown, text, "{prompt}");
        // A grammar is for the answer: what is thought is the same.
        let guided = thought(prompt).with("guided_regex", "[ ]?[0-9]{1,3}");
        let number = answer(&mut engine, guided.clone()).0;
        assert!(number.trim().parse::<u32>().is_ok(), "{number}");
        let shown = answer(&mut engine, guided.with("show_reasoning", true)).0;
        let thoughts = format!("<think>\n Let's think step by step.{reasoning}\n</think>\n\n");
        assert_eq!(shown, thoughts + &number);
    }
    assert_eq!(engine.cache_usage().used, 0);
}

#[test]
fn a_thought_is_two_answers_one_after_the_other() {
    thinks(tiny_model("tiny").path(), &["What is 3 + 4?", "Why"]);
}

#[test]
fn a_real_model_thinks_and_answers() {
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(model) = real_model("SmolLM2-135M-Instruct", file) else { return };
    thinks(&model, &["Q: I have 3 apples and buy 4 more. How many apples do I have?\nA:"]);
}

#[test]
fn a_real_model_agrees_with_itself() {
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(model) = real_model("SmolLM2-135M-Instruct", file) else { return };
    let mut engine = setup().load(&model).unwrap();
    for sum in ["2 + 2 =", "10 - 3 ="] {
        let prompt = format!("Q: What is 1 + 4?\nA: 1 + 4 = 5.\nQ: What is {sum}\nA: {sum}");
        let (text, _) = answer(&mut engine, poll(&prompt, 7).with("temperature", 0.7));
        eprintln!("{sum}{text}");
        assert!(text.bytes().any(|byte| byte.is_ascii_digit()), "{text}");
    }
}

#[test]
fn a_strategy_is_replaced_while_it_answers() {
    let folder = tiny_model("tiny");
    let setup = setup();
    let requests = || {
        let beam = Request::new("Hi").strategy("beam").with("max_tokens", 30);
        [beam, poll("Hi", 4), thought("Hi")]
    };
    let mut engine = setup.load(folder.path()).unwrap();
    let expected = requests().map(|request| answer(&mut engine, request).0);
    let mut texts = Vec::new();
    let ids = requests().map(|request| engine.submit(request).unwrap());
    for step in 0.. {
        if step == 5 {
            for name in ["beam", "self-consistency", "chain-of-thought"] {
                let kind = <dyn DecodingStrategy>::NAME;
                let made = (setup.registry.find(kind, name).unwrap().make)(&Config::new()).unwrap();
                engine.swapper().swap(kind, name, made, Duration::ZERO).unwrap();
            }
        }
        if engine.num_running() == 0 {
            break;
        }
        let sink = &mut |output: Output<'_>| {
            if let Output::Finished { request, answer, error, .. } = output {
                assert_eq!(error, None);
                texts.push((request, answer.to_owned()));
            }
        };
        engine.step(sink).unwrap();
    }
    for (id, expected) in ids.iter().zip(&expected) {
        assert!(texts.contains(&(*id, expected.clone())), "{expected}");
    }
    // And by what took their places, which was lent the tokens too.
    let again = requests().map(|request| answer(&mut engine, request).0);
    assert_eq!(again, expected);
}
