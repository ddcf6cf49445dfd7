//! `jackfield checkpoint`: what lies in the folder of a run, and models made of it for other programs.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jackfield_engine::model::export::{ExportLayout, ExportOptions, export};
use jackfield_engine::train::{Listed, checkpoints_in, inspect_checkpoint};
use serde_json::{Value, json};

use crate::args::{Checkpoint, Dtype, Export, Layout};
use crate::progress::Bar;
use crate::setup::Session;

/// Runs one of the commands.
pub(crate) fn run(session: &Session, command: &Checkpoint) -> Result<()> {
    match command {
        Checkpoint::Ls { folder } => ls(session, folder),
        Checkpoint::Verify { folder } => verify(session, folder),
        Checkpoint::Export(args) => write(session, args),
    }
}

/// One checkpoint, or those of a run.
fn paths(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.join(MANIFEST).exists() {
        return Ok(vec![folder.to_owned()]);
    }
    let paths = checkpoints_in(folder)?;
    if paths.is_empty() {
        bail!("{}: expected folders `step-N` of a run, found none", folder.display());
    }
    Ok(paths)
}

fn ls(session: &Session, folder: &Path) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let paths = paths(folder)?;
    if !session.is_json {
        writeln!(
            out,
            "{:>10} {:>10} {:>10} {:>10}  {:8} hooks",
            "step", "loss", "held out", "size", "state"
        )?;
    }
    for path in paths {
        match inspect_checkpoint(&path) {
            Ok(found) if session.is_json => writeln!(out, "{}", as_json(&found))?,
            Ok(found) => print(&mut out, &found)?,
            Err(error) if session.is_json => {
                let line = json!({
                    "path": path.display().to_string(), "is_whole": false, "error": error.to_string(),
                });
                writeln!(out, "{line}")?;
            }
            Err(error) => writeln!(out, "{:>10} damaged: {error}", name(&path))?,
        }
    }
    Ok(())
}

fn print(out: &mut impl Write, found: &Listed) -> std::io::Result<()> {
    let size = format!("{:.1} MB", found.size_bytes as f64 / 1e6);
    let state = if found.damaged.is_empty() { "whole" } else { "damaged" };
    let hooks = if found.hooks.is_empty() { "-".to_owned() } else { found.hooks.join(", ") };
    let held_out = found.evaluation.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.4}"));
    let (step, loss) = (found.step, found.loss);
    writeln!(out, "{step:>10} {loss:>10.4} {held_out:>10} {size:>10}  {state:8} {hooks}")?;
    found.damaged.iter().try_for_each(|damage| writeln!(out, "           {damage}"))
}

fn as_json(found: &Listed) -> Value {
    let damaged = found.damaged.iter().map(
        |damage| json!({ "file": damage.file, "expected": damage.expected, "found": damage.found }),
    );
    json!({
        "path": found.path.display().to_string(),
        "step": found.step,
        "loss": found.loss,
        "evaluation": found.evaluation,
        "size_bytes": found.size_bytes,
        "run": found.run,
        "files": found.files,
        "hooks": found.hooks,
        "is_whole": found.damaged.is_empty(),
        "damaged": damaged.collect::<Vec<_>>(),
    })
}

fn verify(session: &Session, folder: &Path) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut damaged = Vec::new();
    for path in paths(folder)? {
        let found = match inspect_checkpoint(&path) {
            Ok(found) => found,
            Err(error) => {
                damaged.push(error.to_string());
                continue;
            }
        };
        let files = found.damaged.iter().map(|damage| format!("{}: {damage}", path.display()));
        damaged.extend(files);
        if session.is_json {
            writeln!(out, "{}", as_json(&found))?;
        } else if found.damaged.is_empty() {
            let count = found.files.len();
            writeln!(out, "{}: {count} files are as they were written", path.display())?;
        }
    }
    if damaged.is_empty() { Ok(()) } else { bail!("{}", damaged.join("; ")) }
}

fn write(session: &Session, args: &Export) -> Result<()> {
    let from = source(&args.checkpoint)?;
    let layout = match args.to {
        Layout::Gguf => ExportLayout::Gguf,
        Layout::Hf => ExportLayout::HuggingFace,
    };
    let format = match args.dtype {
        Dtype::F32 => "F32",
        Dtype::Bf16 => "BF16",
        Dtype::F16 => "F16",
    };
    let mut bar = Bar::elements(session.is_json);
    let (wiring, registry) = (&session.wiring, session.registry());
    let mut progress = |done, total| bar.show("writing", done, Some(total));
    let options = ExportOptions { layout, format, tokenizer: args.tokenizer.as_deref() };
    let written = export(&from, &args.out, &options, wiring, &registry, &mut progress);
    bar.clear();
    let written = written.with_context(|| format!("export of {}", from.display()))?;
    let mut out = std::io::stdout().lock();
    if session.is_json {
        let line = json!({
            "path": args.out.display().to_string(), "from": from.display().to_string(),
            "tensors": written.tensors, "size_bytes": written.size_bytes,
        });
        return Ok(writeln!(out, "{line}")?);
    }
    let (path, megabytes) = (args.out.display(), written.size_bytes as f64 / 1e6);
    let (tensors, from) = (written.tensors, from.display());
    Ok(writeln!(out, "{path}: {tensors} tensors, {megabytes:.1} MB, of {from}")?)
}

/// The folder that is meant: a checkpoint that is whole, the newest such of a run, or a model.
pub(crate) fn source(folder: &Path) -> Result<PathBuf> {
    if folder.join(MANIFEST).exists() {
        let found = inspect_checkpoint(folder)?;
        return match found.damaged.first() {
            None => Ok(folder.to_owned()),
            Some(damage) => bail!("{}: {damage}", folder.display()),
        };
    }
    if folder.join("config.json").exists() {
        return Ok(folder.to_owned());
    }
    let mut said = String::new();
    for path in paths(folder)?.into_iter().rev() {
        match inspect_checkpoint(&path).map(|found| found.damaged) {
            Ok(damaged) if damaged.is_empty() => return Ok(path),
            Ok(damaged) => said = format!("{said}; {}: {}", name(&path), damaged[0]),
            Err(error) => said = format!("{said}; {}: {error}", name(&path)),
        }
    }
    bail!("{}: expected a checkpoint that is whole, found none{said}", folder.display())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

const MANIFEST: &str = "manifest.json";
