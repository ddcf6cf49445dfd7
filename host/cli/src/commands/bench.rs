//! `jackfield bench`: prefill and decode of one sequence, beside the limit of this machine.

use std::io::Write;
use std::time::Instant;

use anyhow::{Result, bail};
use jackfield_engine::{Engine, Output, Request};
use serde_json::json;

use crate::args::Bench;
use crate::setup::Session;

/// Measures and prints.
pub(crate) fn run(session: &Session, args: &Bench) -> Result<()> {
    if args.prefill == 0 || args.decode < 2 || args.runs == 0 {
        bail!("bench: expected --prefill from 1, --decode from 2 and --runs from 1");
    }
    let mut engine = session.engine(&session.load_options()?)?;
    let mut runs = Vec::new();
    measure(&mut engine, args)?; // warms caches and working memory
    for _ in 0..args.runs {
        runs.push(measure(&mut engine, args)?);
    }
    let prefill = median(runs.iter().map(|run| run.0));
    let decode = median(runs.iter().map(|run| run.1));
    let context = args.prefill + args.decode / 2;
    let bytes = engine.model().weight_bytes() + engine.model().state_bytes_per_token() * context;
    let threads = session.config.count_or("threads", default_threads(), 1..=256)? as usize;
    let bandwidth = read_bandwidth(threads, bytes);
    let share = decode * bytes as f64 / bandwidth;
    let mut out = std::io::stdout().lock();
    if session.is_json {
        let report = json!({
            "model": session.model_name()?,
            "threads": threads,
            "prefill_tokens": args.prefill,
            "decode_tokens": args.decode,
            "prefill_tokens_per_second": prefill,
            "decode_tokens_per_second": decode,
            "bytes_per_token": bytes,
            "read_bandwidth_bytes_per_second": bandwidth,
            "share_of_bandwidth": share,
            "plan_digest": engine.digest().to_string(),
        });
        writeln!(out, "{report}")?;
        return Ok(());
    }
    writeln!(out, "model      {}", session.model_name()?)?;
    writeln!(out, "threads    {threads}")?;
    writeln!(out, "prefill    {prefill:>8.1} tokens/s   ({} tokens)", args.prefill)?;
    writeln!(out, "decode     {decode:>8.1} tokens/s   ({} tokens)", args.decode)?;
    writeln!(out, "read       {:>8.1} MB a token", bytes as f64 / 1e6)?;
    writeln!(out, "bandwidth  {:>8.1} GB/s, measured on {threads} threads", bandwidth / 1e9)?;
    writeln!(out, "share      {:>8.0} % of it while decoding", share * 100.0)?;
    Ok(())
}

/// Tokens per second of prefill and decode.
fn measure(engine: &mut Engine, args: &Bench) -> Result<(f64, f64)> {
    let vocab = engine.model().tokenizer.vocab_size().max(2) as u32;
    // Ids spread over the vocabulary, so that the embedding is not read from one place.
    let prompt: Vec<u32> = (0..args.prefill as u32).map(|i| 1 + (i * 7919) % (vocab - 1)).collect();
    let request = Request::new(prompt)
        .strategy("greedy")
        .with("max_tokens", args.decode as i64)
        .with("ignore_eos", true);
    engine.submit(request)?;
    let mut measured = None;
    engine.run_to_end(&mut |output| {
        if let Output::Finished { stats, .. } = output {
            measured = Some(stats);
        }
    })?;
    let Some(stats) = measured else { bail!("bench: expected an answer, found none") };
    let decode_us = (stats.total_us - stats.ttft_us).max(1) as f64;
    let prefill = stats.prompt_tokens as f64 * 1e6 / stats.ttft_us.max(1) as f64;
    Ok((prefill, (stats.tokens - 1) as f64 * 1e6 / decode_us))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn default_threads() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64)
}

/// Bytes per second that `threads` threads read together, best of several passes over a buffer as
/// large as what a token reads: whatever caches keep of the weights, they keep of it.
fn read_bandwidth(threads: usize, bytes: usize) -> f64 {
    const PASSES: usize = 20;
    let buffer = vec![1_u64; (bytes / 8).max(1 << 20)];
    let share = buffer.len().div_ceil(threads);
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in buffer.chunks(share) {
                scope.spawn(|| std::hint::black_box(sum(part)));
            }
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    (buffer.len() * 8) as f64 / best
}

/// Sums in lanes, so that reading and not adding is the limit.
fn sum(part: &[u64]) -> u64 {
    let (chunks, rest) = part.as_chunks::<32>();
    let mut lanes = [0_u64; 32];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(*x);
        }
    }
    lanes.iter().chain(rest).fold(0, |total, x| total.wrapping_add(*x))
}
