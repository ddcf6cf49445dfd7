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

/// An argmax may differ where their two likeliest tokens are this close, in nats.
const TIE_NATS: f32 = 0.05;
/// Part of the positions that may differ beyond ties.
const EXEMPT_MAX: f64 = 0.01;
/// Mean Kullback-Leibler divergence over their top 64 and the rest, in nats, that is always good.
const KL_MAX: f64 = 1e-3;
/// Where llama.cpp's own rounding of activations puts it further than that from the same weights
/// computed exactly, ours may be this many times as far from exact as theirs.
const KL_RATIO_MAX: f64 = 1.25;
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
    /// From theirs to ours.
    kl: f64,
    /// From exact to ours.
    kl_exact: f64,
    /// From exact to theirs.
    kl_theirs: f64,
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
        let positions = all.positions as f64;
        let exempt = all.positions - all.equal - all.ties;
        let share = exempt as f64 / positions;
        let [kl, kl_exact, kl_theirs] =
            [all.kl, all.kl_exact, all.kl_theirs].map(|sum| sum / positions);
        println!(
            "{}: {} positions, {} equal, {} ties, {exempt} exempt ({:.2} %); mean KL theirs to ours \
             {kl:.1e}, exact to ours {kl_exact:.1e}, exact to theirs {kl_theirs:.1e}",
            case.golden,
            all.positions,
            all.equal,
            all.ties,
            share * 100.0
        );
        assert!(share <= EXEMPT_MAX, "{}: {exempt} of {} differ", case.golden, all.positions);
        let kl_max = KL_MAX.max(kl_theirs * KL_RATIO_MAX);
        assert!(kl_exact <= kl_max, "{}: mean KL {kl_exact}, at most {kl_max}", case.golden);
    }
}

fn compare(engine: &mut Engine, file: &SafeTensors<'_>, prompt: &str, all: &mut Comparison) {
    let mut tokens = u32s(file, &format!("{prompt}.prompt"));
    let theirs = u32s(file, &format!("{prompt}.tokens"));
    let top_ids = u32s(file, &format!("{prompt}.top_ids"));
    let top_logprobs = f32s(file, &format!("{prompt}.top_logprobs"));
    let exact_logprobs = f32s(file, &format!("{prompt}.exact_logprobs"));
    let first = tokens.len() - 1;
    let top = top_ids.len() / theirs.len();
    tokens.extend_from_slice(&theirs[..theirs.len() - 1]);
    engine
        .evaluate(&tokens, first, 512, &mut |position, logits| {
            let i = position - first;
            let lse = log_sum_exp(logits);
            let ids = &top_ids[i * top..][..top];
            let ours: Vec<f64> =
                ids.iter().map(|&id| f64::from(logits[id as usize]) - lse).collect();
            let plain: Vec<f64> =
                top_logprobs[i * top..][..top].iter().map(|&x| x.into()).collect();
            let exact: Vec<f64> =
                exact_logprobs[i * top..][..top].iter().map(|&x| x.into()).collect();
            all.positions += 1;
            if argmax(logits) == theirs[i] {
                all.equal += 1;
            } else if plain[0] - plain[1] < TIE_NATS.into() {
                all.ties += 1;
            }
            all.kl += divergence(&plain, &ours);
            all.kl_exact += divergence(&exact, &ours);
            all.kl_theirs += divergence(&exact, &plain);
        })
        .unwrap();
}

/// Kullback-Leibler divergence between log-probabilities of the same tokens, with one bin for the
/// rest.
fn divergence(from: &[f64], to: &[f64]) -> f64 {
    let kl: f64 = from.iter().zip(to).map(|(a, b)| a.exp() * (a - b)).sum();
    let rest = |x: &[f64]| (1.0 - x.iter().map(|x| x.exp()).sum::<f64>()).max(1e-12);
    kl + rest(from) * (rest(from) / rest(to)).ln()
}

fn argmax(logits: &[f32]) -> u32 {
    let best = (0..).zip(logits).max_by(|a: &(u32, _), b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    best.map_or(0, |(id, _)| id)
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
