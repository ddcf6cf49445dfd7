//! `jackfield evaluate`: loss and perplexity of a model on a text.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use jackfield_engine::Engine;
use jackfield_engine::generate::perplexity::{Perplexity, Windows};
use serde_json::{Value, json};

use super::checkpoint;
use crate::args::{Cut, Evaluate};
use crate::progress::Bar;
use crate::setup::Session;

/// Evaluates and prints.
pub(crate) fn run(session: &Session, args: &Evaluate) -> Result<()> {
    let texts = read(&args.file, &args.field)?;
    let windows = match (args.cut, args.stride) {
        (Cut::Sliding, stride) => {
            Windows::Sliding { length: args.window, stride: stride.unwrap_or(args.window) }
        }
        (Cut::Halves, None) => Windows::Halves { length: args.window },
        (Cut::Halves, Some(_)) => bail!("--stride: expected none with --cut halves"),
    };
    windows.check(usize::MAX)?;
    let mut engine = load(session, args)?;
    let texts: Vec<Vec<u32>> = texts.iter().map(|text| tokens(&engine, text)).collect();
    let total: usize = texts.iter().map(Vec::len).sum();
    let first = Some(&engine.model().tokenizer).filter(|t| t.add_bos()).and_then(|t| t.bos());
    let bar = Bar::steps(session.is_json);
    let (mut all, mut before, began) = (Perplexity::default(), 0, Instant::now());
    let most = args.windows_max.unwrap_or(u64::MAX);
    for text in &texts {
        let found = engine.perplexity(text, windows, first, &mut |done, found| {
            let mut so_far = all;
            so_far.add(found);
            let message = format!("tokens, perplexity {:.4}", so_far.perplexity());
            bar.say((before + done) as u64, total as u64, message);
            so_far.windows < most
        })?;
        all.add(&found);
        before += text.len();
        if all.windows >= most {
            break;
        }
    }
    bar.clear();
    if all.tokens == 0 {
        let file = args.file.display();
        bail!("{file}: expected text for a window of {} tokens, found {total} tokens", args.window);
    }
    let seconds = began.elapsed().as_secs_f64();
    print(session, args, &all, (texts.len(), seconds))
}

/// The model that was asked for, with room for a window; a folder of a run stands for its newest
/// checkpoint that is whole.
fn load(session: &Session, args: &Evaluate) -> Result<Engine> {
    let mut options = session.load_options()?;
    options.adapter = args.adapter.clone().or(options.adapter);
    options.context_length_max = args.window;
    options.num_seqs_max = 1;
    options.logit_rows_max = options.logit_rows_max.max(ROWS);
    let model = PathBuf::from(session.model_name()?);
    // Before anything is fetched: a misspelt plugin.
    session.wiring.check(&session.registry())?;
    let path = match model.is_dir() {
        true => checkpoint::source(&model)?,
        false => session.fetch(&session.model_name()?)?,
    };
    session.engine_of(&path, &options)
}

/// A text as the model reads one.
pub(crate) fn tokens(engine: &Engine, text: &str) -> Vec<u32> {
    let tokenizer = &engine.model().tokenizer;
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    bos.into_iter().chain(tokenizer.encode(text, false)).collect()
}

/// One text, or that of each line.
pub(crate) fn read(file: &Path, field: &str) -> Result<Vec<String>> {
    let name = file.display();
    let bytes = std::fs::read(file).with_context(|| format!("{name}: expected a file to read"))?;
    let text = String::from_utf8(bytes).with_context(|| format!("{name}: expected UTF-8"))?;
    if file.extension().is_none_or(|ending| ending != "jsonl") {
        return Ok(vec![text]);
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let texts = lines.map(|(index, line)| {
        let at = format!("{name}, line {}", index + 1);
        let json: Value = serde_json::from_str(line).with_context(|| at.clone())?;
        let text = json[field].as_str().map(str::to_owned);
        text.with_context(|| format!("{at}: expected a text `{field}`, found {}", json[field]))
    });
    texts.collect()
}

fn print(
    session: &Session,
    args: &Evaluate,
    found: &Perplexity,
    (texts, seconds): (usize, f64),
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let (loss, perplexity) = (found.loss(), found.perplexity());
    let tokens_per_second = found.tokens as f64 / seconds;
    if session.is_json {
        let stride = args.stride.unwrap_or(args.window);
        let report = json!({
            "model": session.model_name()?,
            "adapter": args.adapter,
            "file": args.file,
            "loss": loss,
            "perplexity": perplexity,
            "perplexity_standard_error": found.standard_error(),
            "tokens": found.tokens,
            "texts": texts,
            "windows": found.windows,
            "window": args.window,
            "stride": (args.cut == Cut::Sliding).then_some(stride),
            "cut": if args.cut == Cut::Sliding { "sliding" } else { "halves" },
            "seconds": seconds,
            "tokens_per_second": tokens_per_second,
        });
        return Ok(writeln!(out, "{report}")?);
    }
    let error = found.standard_error();
    writeln!(out, "loss        {loss:>10.4} nats a token")?;
    writeln!(out, "perplexity  {perplexity:>10.4} +/- {error:.4}")?;
    writeln!(out, "tokens      {:>10} counted, in {} windows", found.tokens, found.windows)?;
    Ok(writeln!(out, "speed       {tokens_per_second:>10.1} counted tokens/s")?)
}

/// Rows of logits in a step.
pub(crate) const ROWS: usize = 64;
