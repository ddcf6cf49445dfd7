//! Real models beside llama.cpp: its greedy tokens, its distributions, its perplexity.
//!
//! Needs the models in the folder that `JACKFIELD_MODELS` names; skips those that are not there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use jackfield_engine::Engine;
use jackfield_tests::{Setup, golden, real_model};
use safetensors::SafeTensors;

/// A model with its golden files.
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

/// An argmax may differ where the reference's two likeliest tokens are this close, in nats.
const TIE_NATS: f64 = 0.05;
/// Part of the positions that may differ beyond ties.
const EXEMPT_MAX: f64 = 0.01;
/// Mean Kullback-Leibler divergence over their top 64 and the rest, in nats.
const KL_MAX: f64 = 1e-3;
/// With activations of 8 bits: how far ours may be from exact, over how far llama.cpp's own
/// rounding to 8 bits puts it.
const KL_RATIO_MAX: f64 = 1.25;
/// Relative distance of the perplexity.
const PERPLEXITY_MAX: f64 = 5e-3;

fn load(path: &Path, activations: &str) -> Engine {
    let mut setup = Setup::new("cpu").set("cpu", "activations", activations);
    setup.options.logit_rows_max = 64;
    setup.options.num_seqs_max = 2;
    setup.options.context_length_max = 4096;
    setup.load(path).unwrap()
}

fn u32s(file: &SafeTensors<'_>, name: &str) -> Vec<u32> {
    let (chunks, _) = file.tensor(name).unwrap().data().as_chunks::<4>();
    chunks.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
}

fn f64s(file: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    u32s(file, name).into_iter().map(|bits| f32::from_bits(bits).into()).collect()
}

/// How our distributions compare, over all prompts of a model. *Plain* is llama.cpp on the model
/// file, which rounds activations to 8 bits; *exact* is llama.cpp on the same weights in `f32`.
#[derive(Debug, Default)]
struct Comparison {
    positions: f64,
    /// Positions where our argmax is neither theirs nor a tie: plain, exact.
    exempt: [f64; 2],
    /// Sums of divergences: plain to ours, exact to ours, exact to plain.
    kl: [f64; 3],
}

/// Compares all prompts of a model, teacher-forced on llama.cpp's greedy tokens.
fn compare_all(engine: &mut Engine, case: &Case) -> Comparison {
    let bytes = std::fs::read(golden(&format!("llama_cpp/{}.safetensors", case.golden))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let names = file.names().into_iter();
    let prompts: Vec<&str> = names.filter_map(|name| name.strip_suffix(".prompt")).collect();
    assert!(prompts.len() >= 6, "{}: {} prompts", case.golden, prompts.len());
    let mut all = Comparison::default();
    for prompt in &prompts {
        compare(engine, &file, prompt, &mut all);
    }
    all.exempt = all.exempt.map(|count| count / all.positions);
    all.kl = all.kl.map(|sum| sum / all.positions);
    all
}

fn compare(engine: &mut Engine, file: &SafeTensors<'_>, prompt: &str, all: &mut Comparison) {
    let mut tokens = u32s(file, &format!("{prompt}.prompt"));
    let theirs = u32s(file, &format!("{prompt}.tokens"));
    let exact_argmax = u32s(file, &format!("{prompt}.exact_argmax"));
    let top_ids = u32s(file, &format!("{prompt}.top_ids"));
    let plain_logprobs = f64s(file, &format!("{prompt}.top_logprobs"));
    let exact_logprobs = f64s(file, &format!("{prompt}.exact_logprobs"));
    let first = tokens.len() - 1;
    let top = top_ids.len() / theirs.len();
    tokens.extend_from_slice(&theirs[..theirs.len() - 1]);
    engine
        .evaluate(&tokens, first, 512, &mut |position, logits| {
            let i = position - first;
            let row = i * top..(i + 1) * top;
            let lse = log_sum_exp(logits);
            let ids = top_ids[row.clone()].iter();
            let ours: Vec<f64> = ids.map(|&id| f64::from(logits[id as usize]) - lse).collect();
            let (plain, exact) = (&plain_logprobs[row.clone()], &exact_logprobs[row]);
            let best = argmax(logits);
            all.positions += 1.0;
            let references = [(theirs[i], plain), (exact_argmax[i], exact)];
            for (exempt, (token, logprobs)) in all.exempt.iter_mut().zip(references) {
                let is_tie = gap(logprobs) < TIE_NATS;
                *exempt += f64::from(u8::from(best != token && !is_tie));
            }
            let divergences =
                [divergence(plain, &ours), divergence(exact, &ours), divergence(exact, plain)];
            all.kl.iter_mut().zip(divergences).for_each(|(sum, kl)| *sum += kl);
        })
        .unwrap();
}

/// Distance of the best two.
fn gap(logprobs: &[f64]) -> f64 {
    let (mut first, mut second) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    for &x in logprobs {
        second = second.max(x.min(first));
        first = first.max(x);
    }
    first - second
}

#[test]
fn the_same_weights_give_their_tokens_and_distributions() {
    for case in &CASES {
        let Some(path) = real_model(case.name, case.file) else { continue };
        let all = compare_all(&mut load(&path, "int16"), case);
        println!("{}: activations of 16 bits: {all:?}", case.golden);
        assert!(all.exempt[1] <= EXEMPT_MAX, "{}: {all:?}", case.golden);
        assert!(all.kl[1] <= KL_MAX, "{}: {all:?}", case.golden);
    }
}

#[test]
fn rounding_activations_to_8_bits_loses_no_more_than_they_lose() {
    for case in &CASES {
        let Some(path) = real_model(case.name, case.file) else { continue };
        let all = compare_all(&mut load(&path, "int8"), case);
        println!("{}: activations of 8 bits: {all:?}", case.golden);
        let kl_max = KL_MAX.max(all.kl[2] * KL_RATIO_MAX);
        assert!(all.kl[1] <= kl_max, "{}: at most {kl_max}: {all:?}", case.golden);
    }
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
        let mut engine = load(&path, "int16");
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

#[test]
fn packed_weights_are_hardly_larger_than_their_file() {
    let large = ("qwen2.5-coder-1.5b-instruct", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf");
    for (name, file) in CASES.map(|case| (case.name, case.file)).into_iter().chain([large]) {
        let Some(path) = real_model(name, file) else { continue };
        let (packed, file) =
            (load(&path, "int16").model().weight_bytes(), path.metadata().unwrap().len());
        let ratio = packed as f64 / file as f64;
        println!("{name}: {packed} bytes packed, {ratio:.3} of the file");
        assert!(ratio <= 1.05, "{name}: {packed} bytes packed, {file} in the file");
    }
}
