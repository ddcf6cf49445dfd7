//! A draft model beside its target: Qwen2.5-Coder 0.5B guesses for 1.5B. Prints tokens a second without and with guesses, what the
//! measured costs promise for the guesses that came true, and whether the answers are the same.
//!
//! Needs both models in `JACKFIELD_MODELS` (`jackfield model pull`). Run as `cargo bench -p jackfield-tests --bench
//! speculation`; `JACKFIELD_TOKENS` sets the length of the answers (default 96). Compare within one run only.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, or fails")]

use std::time::Instant;

use jackfield_engine::{Engine, Output, Prompt, Request};
use jackfield_tests::{Setup, real_model};

const PROMPTS: [&str; 3] = [
    "Write a Python function that merges two sorted lists, with a docstring and two examples.",
    "Explain in five sentences why the sky is blue.",
    "List ten cities of Europe with their countries.",
];
const GUESSES: [i64; 4] = [1, 2, 4, 6];

/// What answers to all prompts took.
struct Run {
    tokens: Vec<u32>,
    seconds: f64,
    steps: u64,
}

fn main() {
    let model = |size: &str| {
        let name = format!("qwen2.5-coder-{size}-instruct");
        real_model(&name, &format!("{name}-q4_k_m.gguf"))
    };
    let (Some(target), Some(draft)) = (model("1.5b"), model("0.5b")) else { return };
    let tokens = std::env::var("JACKFIELD_TOKENS").ok().and_then(|n| n.parse().ok()).unwrap_or(96);
    let mut setup = Setup::new("cpu");
    setup.options.draft_model = Some(draft);
    let mut engine = setup.load(&target).unwrap();
    let (guess, verify) = engine.draft_costs().unwrap();
    println!("a guess costs {guess:.2} steps for one token, the evaluation of a draft {verify:.2}");
    println!("guesses    tokens/s   of plain   tokens a step   promised   of that   same answers");
    for temperature in [0.0, 0.7] {
        println!("temperature {temperature}");
        let ask = |engine: &mut Engine, strategy: &str, guesses: Option<i64>| {
            answers(engine, strategy, guesses, tokens, temperature)
        };
        // Interleaved, so that what else the machine does falls on all.
        let runs = GUESSES.map(Some).into_iter().chain([None]);
        for guesses in runs {
            let before = ask(&mut engine, "sample", None);
            let with = ask(&mut engine, "speculative", guesses);
            let after = ask(&mut engine, "sample", None);
            let plain = (before.seconds + after.seconds) / 2.0;
            let speedup = plain / with.seconds;
            let per_step = with.tokens.len() as f64 / with.steps as f64;
            let name = guesses.map_or("adaptive".to_owned(), |n| n.to_string());
            let promised = guesses.map(|n| per_step / (1.0 + n as f64 * (guess + verify)));
            let promised = promised.map_or(String::new(), |promised| {
                format!("{promised:>8.2}   {:>7.2}", speedup / promised)
            });
            println!(
                "{name:<10} {:>8.1}   {speedup:>8.2}   {per_step:>13.2}   {promised:<18}   {}",
                with.tokens.len() as f64 / with.seconds,
                if with.tokens == before.tokens { "yes" } else { "NO" }
            );
        }
    }
}

fn answers(
    engine: &mut Engine,
    strategy: &str,
    guesses: Option<i64>,
    max_tokens: i64,
    temperature: f64,
) -> Run {
    let (mut tokens, steps, mut seconds) = (Vec::new(), engine.gauge().read().steps, 0.0);
    for (seed, prompt) in PROMPTS.into_iter().enumerate() {
        let text = format!("<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n");
        let request = Request::new(Prompt::Templated(text)).strategy(strategy);
        let request = request.with("max_tokens", max_tokens).with("seed", seed as i64);
        let request = request.with("temperature", temperature).with("ignore_eos", true);
        let request = match guesses {
            Some(guesses) => request.with("num_draft_tokens", guesses).with("adaptive", false),
            None => request,
        };
        engine.submit(request).unwrap();
        let mut first = None;
        engine
            .run_to_end(&mut |output| {
                if let Output::Token { token, .. } = output {
                    first.get_or_insert_with(Instant::now);
                    tokens.push(token);
                }
            })
            .unwrap();
        // Decoding alone: the prompt is the same with and without.
        seconds += first.unwrap().elapsed().as_secs_f64();
    }
    // The step of each prompt gives a token, too.
    Run { tokens, seconds, steps: engine.gauge().read().steps - steps }
}
