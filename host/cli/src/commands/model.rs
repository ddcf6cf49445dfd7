//! `jackfield model`: fetch, list and look into models.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use jackfield_engine::Engine;
use jackfield_engine::model::{Architecture, ModelFiles};
use jackfield_runtime::SystemClock;
use serde_json::json;

use crate::args::Model;
use crate::setup::Session;

/// Runs one of the model commands.
pub(crate) fn run(session: &Session, command: &Model) -> Result<()> {
    match command {
        Model::Pull { name } => {
            let path = session.fetch(name)?;
            Ok(writeln!(std::io::stdout(), "{}", path.display())?)
        }
        Model::Ls => ls(session),
        Model::CacheScales { file, share, tokens } => cache_scales(session, file, *share, *tokens),
        Model::Inspect { name, plan: true, .. } => print_plan(session, name.as_deref()),
        Model::Inspect { name, tensors, .. } => inspect(session, name.as_deref(), *tensors),
    }
}

fn ls(session: &Session) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for (source, plugin, _) in session.sources("")? {
        for entry in plugin.list() {
            let is_here = session.models_folder.join(&entry.name).exists();
            if session.is_json {
                let line = json!({
                    "name": entry.name, "source": source, "size_bytes": entry.size_bytes,
                    "description": entry.description, "is_here": is_here,
                });
                writeln!(out, "{line}")?;
                continue;
            }
            let size = entry.size_bytes.map_or("?".to_owned(), |n| format!("{} MB", n / 1_000_000));
            let here = if is_here { "here" } else { "" };
            writeln!(out, "{:32} {source:8} {size:>8} {here:5} {}", entry.name, entry.description)?;
        }
    }
    Ok(())
}

fn open(session: &Session, name: Option<&str>) -> Result<ModelFiles> {
    let name = name.map_or_else(|| session.model_name(), |name| Ok(name.to_owned()))?;
    Ok(ModelFiles::open(&session.fetch(&name)?)?)
}

fn inspect(session: &Session, name: Option<&str>, lists_tensors: bool) -> Result<()> {
    let files = open(session, name)?;
    let architecture = Architecture::of(&files)?;
    let tokenizer = files.tokenizer()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "file          {}", files.path().display())?;
    writeln!(out, "architecture  {}", architecture.blueprint.name)?;
    writeln!(out, "layers        {}", architecture.num_layers())?;
    writeln!(out, "context       {} tokens", architecture.context_length())?;
    writeln!(out, "vocabulary    {} tokens", tokenizer.vocab_size())?;
    for slot in architecture.blueprint.slots.keys() {
        let plugin = architecture.default_plugin(slot).unwrap_or_default();
        writeln!(out, "slot          {slot} = {plugin}")?;
    }
    let mut formats = std::collections::BTreeMap::new();
    for tensor in files.tensors() {
        let (count, bytes) = formats.entry(tensor.format.unwrap_or("?")).or_insert((0, 0));
        *count += 1;
        *bytes += tensor.size_bytes;
    }
    for (format, (count, bytes)) in formats {
        writeln!(out, "format        {format}: {count} tensors, {:.1} MB", bytes as f64 / 1e6)?;
    }
    if lists_tensors {
        for tensor in files.tensors() {
            let format = tensor.format.unwrap_or("?");
            writeln!(out, "tensor        {} {format} {:?}", tensor.name, tensor.dims)?;
        }
    }
    Ok(())
}

/// Prints the scales as a table of a configuration.
fn cache_scales(session: &Session, file: &Path, share: f64, tokens_max: usize) -> Result<()> {
    ensure!((0.5..=1.0).contains(&share), "--share: expected 0.5 to 1, found {share}");
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{}: expected a text to read", file.display()))?;
    let path = session.fetch(&session.model_name()?)?;
    let mut options = session.load_options()?;
    (options.context_length_max, options.num_seqs_max) = (tokens_max, 1);
    let mut wiring = session.wiring.clone();
    wiring.choose("kv-cache", "paged");
    wiring.table_mut("paged").set("dtype", "f32");
    let (registry, clock) = (session.registry(), Arc::new(SystemClock::new()));
    let mut engine =
        Engine::load(&path, &wiring, &registry, &session.bus, clock, &options, &mut |_, _| {})?;
    let mut tokens = engine.model().tokenizer.encode(&text, true);
    tokens.truncate(tokens_max);
    ensure!(!tokens.is_empty(), "{}: expected a text, found nothing", file.display());
    let scales = engine.cache_scales(&tokens, share)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "# {share} of {} tokens of {}", tokens.len(), file.display())?;
    writeln!(out, "channel_scales = [")?;
    for state in scales {
        // A float always has a point or an exponent, which `Debug` writes.
        writeln!(out, "  {state:?},")?;
    }
    Ok(writeln!(out, "]")?)
}

fn print_plan(session: &Session, name: Option<&str>) -> Result<()> {
    use jackfield_engine::model::trace::trace_decoder;
    use jackfield_engine::model::weights::WeightTable;

    let files = open(session, name)?;
    let architecture = Architecture::of(&files)?;
    let parts = session.wiring.traced(&session.registry(), &architecture)?;
    let weights = WeightTable::of(&files, &architecture)?;
    let plan = trace_decoder(&architecture, &parts, &weights)?;
    Ok(write!(std::io::stdout(), "{plan}")?)
}
