//! Real models beside llama.cpp: its greedy tokens, its distributions, its perplexity.
//!
//! Needs the models in the folder that `JACKFIELD_MODELS` names; skips those that are not there.

use std::path::Path;

use jackfield_engine::Engine;
use jackfield_tests::{Setup, golden, real_model};
use safetensors::SafeTensors;

/// A model with its golden files and how many of its positions may differ.
struct Case {
    golden: &'static str,
    name: &'static str,
    file: &'static str,
}

const CASES: [Case; 3] = [
    Case {
        golden: "smollm2",
        name: "SmolLM2-135M-Instruct",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    },
    Case { golden: "gemma3", name: "gemma-3-270m", file: "gemma-3-270m-q4_k_m.gguf" },
    Case {
        golden: "qwen2",
        name: "qwen2.5-coder-0.5b-instruct",
        file: "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    },
];

/// An argmax may differ where our two likeliest tokens are this close, in nats.
const TIE_NATS: f32 = 0.05;
/// Part of the positions that may differ beyond ties.
const EXEMPT_MAX: f64 = 0.01;
/// Mean Kullback-Leibler divergence over their top 64 and the rest, in nats.
const KL_MAX: f64 = 1e-3;
/// Relative distance of the perplexity.
const PERPLEXITY_MAX: f64 = 5e-3;

fn load(path: &Path) -> Engine {
    let mut setup = Setup::new("cpu");
    setup.options.logit_rows_max = 64;
    setup.options.num_seqs_max = 2;
    setup.options.context_length_max = 4096;
    setup.load(path).unwrap()
}

fn u32s(file: &SafeTensors<'_>, name: &str) -> Vec<u32> {
    let (chunks, _) = file.tensor(name).unwrap().data().as_chunks::<4>();
    chunks.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
}

fn f32s(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    u32s(file, name).into_iter().map(f32::from_bits).collect()
}

/// How our distributions compare with theirs, over all prompts of a model.
#[derive(Default)]
struct Comparison {
    positions: usize,
    equal: usize,
    ties: usize,
    kl: f64,
}

#[test]
fn teacher_forced_on_their_greedy_tokens() {
    for case in &CASES {
        let Some(path) = real_model(case.name, case.file) else { continue };
        let mut engine = load(&path);
        let bytes =
            std::fs::read(golden(&format!("llama_cpp/{}.safetensors", case.golden))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let prompts: Vec<String> = file
            .names()
            .into_iter()
            .filter_map(|name| name.strip_suffix(".prompt").map(str::to_owned))
            .collect();
        assert!(prompts.len() >= 6, "{}: {} prompts", case.golden, prompts.len());
        let mut all = Comparison::default();
        for prompt in &prompts {
            compare(&mut engine, &file, prompt, &mut all);
        }
        let exempt = all.positions - all.equal - all.ties;
        let (share, kl) = (exempt as f64 / all.positions as f64, all.kl / all.positions as f64);
        println!(
            "{}: {} positions, {} equal, {} ties, {exempt} exempt ({:.2} %), mean KL {kl:.2e}",
            case.golden,
            all.positions,
            all.equal,
            all.ties,
            share * 100.0
        );
        assert!(share <= EXEMPT_MAX, "{}: {exempt} of {} differ", case.golden, all.positions);
        assert!(kl <= KL_MAX, "{}: mean KL {kl}", case.golden);
    }
}

fn compare(engine: &mut Engine, file: &SafeTensors<'_>, prompt: &str, all: &mut Comparison) {
    let mut tokens = u32s(file, &format!("{prompt}.prompt"));
    let theirs = u32s(file, &format!("{prompt}.tokens"));
    let top_ids = u32s(file, &format!("{prompt}.top_ids"));
    let top_logprobs = f32s(file, &format!("{prompt}.top_logprobs"));
    let first = tokens.len() - 1;
    let top = top_ids.len() / theirs.len();
    tokens.extend_from_slice(&theirs[..theirs.len() - 1]);
    engine
        .evaluate(&tokens, first, 512, &mut |position, logits| {
            let i = position - first;
            let lse = log_sum_exp(logits);
            let (best, gap) = best_and_gap(logits);
            all.positions += 1;
            if best == theirs[i] {
                all.equal += 1;
            } else if gap < TIE_NATS {
                all.ties += 1;
            }
            let ids = &top_ids[i * top..][..top];
            let logprobs = &top_logprobs[i * top..][..top];
            all.kl += divergence(ids, logprobs, |id| f64::from(logits[id as usize]) - lse);
        })
        .unwrap();
}

/// Divergence of our distribution from theirs: their top tokens and one bin for the rest.
fn divergence(ids: &[u32], logprobs: &[f32], ours: impl Fn(u32) -> f64) -> f64 {
    let (mut kl, mut their_mass, mut our_mass) = (0.0, 0.0, 0.0);
    for (&id, &logprob) in ids.iter().zip(logprobs) {
        let (theirs, ours) = (f64::from(logprob), ours(id));
        kl += theirs.exp() * (theirs - ours);
        their_mass += theirs.exp();
        our_mass += ours.exp();
    }
    let (their_rest, our_rest) = ((1.0_f64 - their_mass).max(1e-12), (1.0 - our_mass).max(1e-12));
    kl + their_rest * (their_rest / our_rest).ln()
}

fn best_and_gap(logits: &[f32]) -> (u32, f32) {
    let (mut best, mut first, mut second) = (0, f32::NEG_INFINITY, f32::NEG_INFINITY);
    for (id, &x) in (0..).zip(logits) {
        if x > first {
            (best, second, first) = (id, first, x);
        } else if x > second {
            second = x;
        }
    }
    (best, first - second)
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    f64::from(max) + sum.ln()
}

#[test]
fn perplexity_on_wikitext() {
    for case in &CASES {
        let Some(path) = real_model(case.name, case.file) else { continue };
        let mut engine = load(&path);
        let name = format!("llama_cpp/{}.wikitext.safetensors", case.golden);
        let bytes = std::fs::read(golden(&name)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let windows = u32s(&file, "windows");
        let data = file.tensor("perplexity").unwrap().data().as_chunks::<8>().0[0];
        let theirs = f64::from_le_bytes(data);
        let (mut nll, mut count) = (0.0, 0);
        for window in windows.chunks(512) {
            engine
                .evaluate(&window[..511], 255, 512, &mut |position, logits| {
                    let target = window[position + 1] as usize;
                    nll += log_sum_exp(logits) - f64::from(logits[target]);
                    count += 1;
                })
                .unwrap();
        }
        let ours = (nll / f64::from(count)).exp();
        println!("{}: perplexity {ours:.3}, llama.cpp {theirs:.3}", case.golden);
        assert!((ours / theirs - 1.0).abs() <= PERPLEXITY_MAX, "{}: {ours} {theirs}", case.golden);
    }
}
