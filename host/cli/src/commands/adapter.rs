//! `jackfield adapter`: adapters merged.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use jackfield_engine::model::export::{Merged, MergedWeight, merge};
use serde_json::{Value, json};

use super::checkpoint;
use crate::args::{Adapter, Merge};
use crate::progress::Bar;
use crate::setup::Session;

/// Runs one of the commands.
pub(crate) fn run(session: &Session, command: &Adapter) -> Result<()> {
    match command {
        Adapter::Merge(args) => merge_into(session, args),
    }
}

fn merge_into(session: &Session, args: &Merge) -> Result<()> {
    let name = session.model_name()?;
    let model = match Path::new(&name).is_dir() {
        true => checkpoint::source(Path::new(&name))?,
        false => session.fetch(&name)?,
    };
    let text = match &args.text {
        Some(file) => std::fs::read_to_string(file).with_context(|| file.display().to_string())?,
        None => TEXT.to_owned(),
    };
    let mut bar = Bar::elements(session.is_json);
    let (wiring, registry) = (&session.wiring, session.registry());
    let mut progress = |done, total| bar.show("merging", done, Some(total));
    let merged = merge(&model, &args.adapter, &args.out, wiring, &registry, &mut progress);
    bar.clear();
    let merged = merged.with_context(|| format!("merge into {}", model.display()))?;
    let beside = logits(session, &model, Some(&args.adapter), &text)?;
    let found = logits(session, &args.out, None, &text)?;
    print(session, args, &merged, &Distance::of(&found, &beside))
}

/// Logits after each of the first tokens of a text.
fn logits(
    session: &Session,
    model: &Path,
    adapter: Option<&Path>,
    text: &str,
) -> Result<Vec<Vec<f32>>> {
    let mut options = session.load_options()?;
    options.adapter = adapter.map(Path::to_path_buf);
    (options.num_seqs_max, options.context_length_max) = (1, TOKENS);
    options.logit_rows_max = options.logit_rows_max.max(TOKENS);
    let mut engine = session.engine_of(model, &options)?;
    let mut tokens = engine.model().tokenizer.encode(text, false);
    tokens.truncate(TOKENS);
    let mut rows = Vec::new();
    engine.evaluate(&tokens, 0, TOKENS, &mut |_, row| rows.push(row.to_vec()))?;
    Ok(rows)
}

/// How far logits are from others.
struct Distance {
    tokens: usize,
    max: f64,
    mean: f64,
    /// Part of the tokens after which the likeliest one is the same.
    same: f64,
}

impl Distance {
    fn of(found: &[Vec<f32>], expected: &[Vec<f32>]) -> Self {
        let pairs = || found.iter().zip(expected);
        let all = pairs().flat_map(|(a, b)| a.iter().zip(b));
        let distances = all.map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
        let (sum, max, count) = distances
            .fold((0.0, 0.0_f64, 0_usize), |(sum, max, n), x| (sum + x, max.max(x), n + 1));
        let likeliest = |row: &Vec<f32>| {
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            best.map(|(id, _)| id)
        };
        let same = pairs().filter(|(a, b)| likeliest(a) == likeliest(b)).count();
        let tokens = found.len();
        let part = |n: usize| n as f64 / tokens.max(1) as f64;
        Self { tokens, max, mean: sum / count.max(1) as f64, same: part(same) }
    }
}

fn print(session: &Session, args: &Merge, merged: &Merged, distance: &Distance) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let weights = || merged.weights.values();
    let worst = merged.weights.iter().max_by(|a, b| a.1.error_max.total_cmp(&b.1.error_max));
    let (changed, bits) = (
        weights().map(|weight| weight.bits_changed).sum::<u64>(),
        weights().map(|weight| weight.bits).sum::<u64>(),
    );
    let root = |of: fn(&MergedWeight) -> f64| {
        let (mut sum, mut count) = (0.0, 0.0_f64);
        for weight in weights() {
            (sum, count) = (sum + of(weight) * of(weight), count + 1.0);
        }
        (sum / count.max(1.0)).sqrt()
    };
    let (change, error) = (root(|weight| weight.change_rms), root(|weight| weight.error_rms));
    if session.is_json {
        let each = merged.weights.iter().map(|(name, weight)| {
            let found = json!({
                "format": weight.format, "change_rms": weight.change_rms,
                "error_rms": weight.error_rms, "error_max": weight.error_max,
                "bits_changed": weight.bits_changed, "bits": weight.bits,
            });
            (name.clone(), found)
        });
        let report = json!({
            "path": args.out, "size_bytes": merged.exported.size_bytes,
            "is_lossy": merged.is_lossy(), "change_rms": change, "error_rms": error,
            "bits_changed": changed, "bits": bits,
            "logits": {
                "tokens": distance.tokens, "max": distance.max, "mean": distance.mean,
                "same_likeliest": distance.same,
            },
            "weights": Value::Object(each.collect()),
        });
        return Ok(writeln!(out, "{report}")?);
    }
    let megabytes = merged.exported.size_bytes as f64 / 1e6;
    writeln!(out, "{}: {megabytes:.1} MB, {} weights merged", args.out.display(), weights().len())?;
    if let Some((name, weight)) = worst.filter(|_| merged.is_lossy()) {
        let share = 100.0 * error / change.max(f64::MIN_POSITIVE);
        writeln!(
            out,
            "lossy      the formats do not have every sum: errors are {error:.2e} where the adapter adds \
             {change:.2e} ({share:.0} %)"
        )?;
        let (error_max, format) = (weight.error_max, &weight.format);
        writeln!(out, "worst      {name} ({format}): off by up to {error_max:.2e}")?;
    }
    let percent = 100.0 * changed as f64 / bits.max(1) as f64;
    writeln!(out, "bits       {percent:.1} % of the bits of these weights are others")?;
    let Distance { tokens, max, mean, same } = distance;
    writeln!(
        out,
        "logits     beside the adapter, over {tokens} tokens: mean {mean:.2e}, at most {max:.2e}; \
         {:.1} % likeliest tokens the same",
        100.0 * same
    )?;
    Ok(())
}

/// Whose logits are compared.
const TOKENS: usize = 64;
/// A short text to compare models on.
pub(crate) const TEXT: &str = "The studio was quiet when the engineer came in. She moved one cable from the left row of the \
    panel to the right, listened, and wrote down what she heard: the voice was a little warmer, the drums \
    a little further away. Nobody who listened at home noticed that anything had been changed at all.";
