//! `jackfield bench`: prefill and decode of one or more sequences, beside the limit of this machine.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use jackfield_engine::model::memory::AlignedBytes;
use jackfield_engine::{Engine, Output, Request};
use serde_json::json;

use crate::args::Bench;
use crate::setup::Session;

/// Measures and prints.
pub(crate) fn run(session: &Session, args: &Bench) -> Result<()> {
    if args.prefill == 0 || args.decode < 2 || args.runs == 0 || args.sequences == 0 {
        bail!("bench: expected --prefill, --runs and --sequences from 1, --decode from 2");
    }
    let mut options = session.load_options()?;
    options.num_seqs_max = options.num_seqs_max.max(args.sequences);
    options.context_length_max = options.context_length_max.max(args.prefill + args.decode);
    options.logit_rows_max = options.logit_rows_max.max(args.sequences);
    let mut engine = session.engine(&options)?;
    let mut runs = Vec::new();
    measure(&mut engine, args)?; // warms caches and working memory
    for _ in 0..args.runs {
        runs.push(measure(&mut engine, args)?);
    }
    let memory = MemoryUse::of(&engine);
    let prefill = median(runs.iter().map(|run| run.0));
    let decode = median(runs.iter().map(|run| run.1));
    let context = args.prefill + args.decode / 2;
    let bytes = engine.model().weight_bytes() + engine.state_layout().bytes_per_token * context;
    let threads = session.config.count_or("threads", default_threads(), 1..=256)? as usize;
    let bandwidth = read_bandwidth(threads, bytes);
    let share = decode / args.sequences as f64 * bytes as f64 / bandwidth;
    let mut out = std::io::stdout().lock();
    if session.is_json {
        let report = json!({
            "model": session.model_name()?,
            "threads": threads,
            "sequences": args.sequences,
            "prefill_tokens": args.prefill,
            "decode_tokens": args.decode,
            "prefill_tokens_per_second": prefill,
            "decode_tokens_per_second": decode,
            "bytes_per_token": bytes,
            "weight_bytes": memory.weights,
            "cache_bytes": memory.cache,
            "peak_memory_bytes": memory.peak,
            "multiply_adds_per_prompt_token": engine.model().macs_per_token(),
            "read_bandwidth_bytes_per_second": bandwidth,
            "share_of_bandwidth": share,
            "plan_digest": engine.digest().to_string(),
        });
        writeln!(out, "{report}")?;
        return Ok(());
    }
    writeln!(out, "model      {}", session.model_name()?)?;
    writeln!(out, "threads    {threads}")?;
    if args.sequences > 1 {
        writeln!(out, "sequences  {}", args.sequences)?;
    }
    writeln!(out, "prefill    {prefill:>8.1} tokens/s   ({} tokens)", args.prefill)?;
    writeln!(out, "decode     {decode:>8.1} tokens/s   ({} tokens)", args.decode)?;
    if let Some(peak) = memory.peak {
        let [peak, weights, cache] =
            [peak, memory.weights, memory.cache].map(|bytes| bytes as f64 / 1e6);
        write!(out, "memory     {peak:>8.1} MB at most: {weights:.1} of weights, ")?;
        writeln!(out, "room for {cache:.1} in the cache")?;
    }
    writeln!(out, "read       {:>8.1} MB a token", bytes as f64 / 1e6)?;
    writeln!(out, "bandwidth  {:>8.1} GB/s, measured on {threads} threads", bandwidth / 1e9)?;
    writeln!(out, "share      {:>8.0} % of it while decoding", share * 100.0)?;
    Ok(())
}

/// Bytes in memory.
struct MemoryUse {
    /// Packed.
    weights: usize,
    /// Of the cache, which are taken from the system once they are written.
    cache: usize,
    /// Most that the process had of the system at a time, where that is known.
    peak: Option<usize>,
}

impl MemoryUse {
    fn of(engine: &Engine) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|text| text.split_whitespace().next()?.parse::<usize>().ok());
        let model = engine.model();
        let (weights, cache) = (model.weight_bytes(), engine.state_layout().size_bytes);
        Self { weights, cache, peak: kib.map(|kib| kib * 1024) }
    }
}

/// Tokens per second of prefill and decode. Prefill lasts until the last sequence has its first
/// token; decode from then until the first one ends, so that all are in every step.
fn measure(engine: &mut Engine, args: &Bench) -> Result<(f64, f64)> {
    let vocab = engine.model().tokenizer.vocab_size().max(2) as u32;
    for sequence in 0..args.sequences as u32 {
        // Ids spread over the vocabulary, so that the embedding is not read from one place.
        let prompt = (0..args.prefill as u32).map(|i| 1 + ((i + sequence) * 7919) % (vocab - 1));
        // Every prompt is evaluated, whatever the cache has of the run before.
        let salt = format!("{} {sequence}", engine.gauge().read().steps);
        let request = Request::new(prompt.collect::<Vec<u32>>())
            .strategy("greedy")
            .with("cache_salt", &*salt)
            .with("max_tokens", args.decode as i64)
            .with("ignore_eos", true);
        engine.submit(request)?;
    }
    let start = Instant::now();
    let (mut begun, mut tokens) = (BTreeSet::new(), 0);
    let (mut first, mut last) = (None, None);
    engine.run_to_end(&mut |output| match output {
        Output::Token { request, .. } if begun.insert(request) => {
            first = (begun.len() == args.sequences).then(Instant::now);
        }
        Output::Token { .. } if first.is_some() && last.is_none() => tokens += 1,
        Output::Token { .. } => {}
        Output::Finished { .. } => last = last.or_else(|| Some(Instant::now())),
    })?;
    let (Some(first), Some(last)) = (first, last) else {
        bail!(
            "bench: expected {} sequences to overlap: more --decode, less --prefill",
            args.sequences
        )
    };
    let prompt_tokens = (args.prefill * args.sequences) as f64;
    let seconds = |time: Duration| time.as_secs_f64().max(1e-9);
    Ok((prompt_tokens / seconds(first - start), f64::from(tokens) / seconds(last - first)))
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
/// large as what a token reads, in the same kind of memory: whatever caches keep of the weights,
/// they keep of it.
fn read_bandwidth(threads: usize, bytes: usize) -> f64 {
    const PASSES: usize = 20;
    let mut buffer = AlignedBytes::huge(bytes.max(8 << 20));
    buffer.as_mut_slice().fill(1); // or the system shows one page of zeros everywhere
    let buffer = buffer.as_slice();
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
    buffer.len() as f64 / best
}

/// Sums in lanes, so that reading and not adding is the limit.
fn sum(part: &[u8]) -> u64 {
    let mut lanes = [0_u64; 32];
    for chunk in part.as_chunks::<256>().0 {
        for (lane, x) in lanes.iter_mut().zip(chunk.as_chunks().0) {
            *lane = lane.wrapping_add(u64::from_ne_bytes(*x));
        }
    }
    lanes.iter().fold(0, |total, x| total.wrapping_add(*x))
}
