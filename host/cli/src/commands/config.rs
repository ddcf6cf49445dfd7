//! `jackfield config`: what is wrong with the configuration, and what is in effect.

use std::io::Write;

use anyhow::{Result, bail};
use jackfield_server::ServerConfig;
use plugin_api::kinds::decoding_strategy::DecodingStrategy;
use plugin_api::kinds::logits_processor::LogitsProcessor;
use plugin_api::{Config, Error, Memory, ModelSource, Value};

use crate::args::Common;
use crate::commands::train;
use crate::exchange;
use crate::setup::Session;

/// Makes every configured plugin once and explains what is wrong, with file and line.
pub(crate) fn check(common: &Common) -> Result<()> {
    let session = Session::open(common)?;
    let mut mistakes = Vec::new();
    let mut note = |result: Result<()>| {
        if let Err(error) = result {
            mistakes.push(located(&session, &error));
        }
    };
    note(session.load_options().map(drop));
    note(session.model_name().map(drop));
    note(
        session
            .config
            .table("memory")
            .and_then(|table| table.map_or(Ok(0), |table| table.count_or("tokens", 0, 0..=1 << 20)))
            .map(drop)
            .map_err(Into::into),
    );
    note(session.other_model("embedding_model").map(drop));
    note(session.other_model("draft_model").map(drop));
    note(exchange::check(&session.config));
    note(train::check(&session));
    let server = ServerConfig::read(&session.config, session.live.folder());
    note(server.and_then(|server| server.check()).map_err(Into::into));
    note(session.subscribe_hooks());
    let (wiring, registry) = (&session.wiring, &*session.registry());
    note(wiring.backend(registry).map(drop).map_err(Into::into));
    note(wiring.kv_cache(registry).map(drop).map_err(Into::into));
    note(wiring.scheduler(registry).map(drop).map_err(Into::into));
    note(wiring.encoder(registry).map(drop).map_err(Into::into));
    note(wiring.quantizers(registry).map(drop).map_err(Into::into));
    note(wiring.make_all::<dyn LogitsProcessor>(registry).map(drop).map_err(Into::into));
    note(wiring.make_all::<dyn DecodingStrategy>(registry).map(drop).map_err(Into::into));
    note(wiring.make_all::<dyn Memory>(registry).map(drop).map_err(Into::into));
    note(wiring.make_all::<dyn ModelSource>(registry).map(drop).map_err(Into::into));
    for kind in wiring.chosen_kinds() {
        let is_known = registry.iter().any(|(provided, _)| provided.kind == kind);
        if !is_known {
            mistakes.push(format!("plugins.{kind}: expected a kind that a plugin provides"));
        }
    }
    if let Some(file) = &session.file {
        let grants = file.config().table("grants")?;
        for plugin in grants.into_iter().flat_map(Config::keys) {
            session.host_of(plugin, None)?;
        }
        for (key, line) in file.unread() {
            mistakes.push(format!("line {line}: {key}: expected a key that something reads"));
        }
    }
    mistakes.sort();
    mistakes.dedup();
    if mistakes.is_empty() {
        let what = if session.file.is_some() { "no mistakes" } else { "no file: defaults" };
        return Ok(writeln!(std::io::stdout(), "configuration: {what}")?);
    }
    bail!("configuration: {} mistakes\n{}", mistakes.len(), mistakes.join("\n"));
}

/// Prints the configuration that is in effect, flags and defaults included.
pub(crate) fn show(session: &Session) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "model = {:?}", session.model_name()?)?;
    writeln!(out, "models_folder = {:?}", session.models_folder.display().to_string())?;
    if let Some(model) = session.other_model("draft_model")? {
        writeln!(out, "draft_model = {model:?}")?;
    }
    if let Some(model) = session.other_model("precise_model")? {
        writeln!(out, "precise_model = {model:?}")?;
    }
    if let Some(model) = session.other_model("embedding_model")? {
        writeln!(out, "embedding_model = {model:?}")?;
    }
    if let Ok(threads) = session.config.count("threads", 1..=256) {
        writeln!(out, "threads = {threads}")?;
    }
    let options = session.load_options()?;
    writeln!(out, "\n[engine]")?;
    writeln!(out, "tokens_per_step = {}", options.tokens_per_step_max)?;
    writeln!(out, "num_seqs = {}", options.num_seqs_max)?;
    writeln!(out, "logit_rows = {}", options.logit_rows_max)?;
    writeln!(out, "context_length = {}", options.context_length_max)?;
    writeln!(out, "kv_memory_mib = {}", options.state_bytes_max >> 20)?;
    writeln!(out, "convert_kib_per_step = {}", options.convert_bytes_per_step >> 10)?;
    if let Some(adapter) = &options.adapter {
        writeln!(out, "adapter = {:?}", adapter.display().to_string())?;
    }
    if let Some(table) = session.config.table("engine")? {
        for key in ["mask", "fallback"] {
            if let Some(value) = table.get(key) {
                writeln!(out, "{key} = {value}")?;
            }
        }
    }
    writeln!(out, "\n[plugins]")?;
    let kinds = [
        "backend",
        "kv-cache",
        "scheduler",
        "logits-processor",
        "decoding-strategy",
        "encoder",
        "hook",
        "memory",
        "model-source",
    ];
    let chosen = session.wiring.chosen_kinds().filter(|kind| !kinds.contains(kind));
    for kind in kinds.into_iter().chain(chosen) {
        writeln!(out, "{kind} = {:?}", session.wiring.names(kind))?;
    }
    for table in ["plugin", "grants"] {
        for name in session.config.table(table)?.into_iter().flat_map(Config::keys) {
            let Some(Value::Table(values)) = session.config.table(table)?.and_then(|t| t.get(name))
            else {
                continue;
            };
            writeln!(out, "\n[{table}.{name}]")?;
            for key in values.keys() {
                if let Some(value) = values.get(key) {
                    writeln!(out, "{key} = {value}")?;
                }
            }
        }
    }
    Ok(())
}

/// The error with the line of the file that it is about, if it is about one.
fn located(session: &Session, error: &anyhow::Error) -> String {
    let cause = error.chain().find_map(|cause| cause.downcast_ref::<Error>()).cloned();
    match (&session.file, cause) {
        (Some(file), Some(cause)) => match file.locate(cause) {
            Ok(located) => located.to_string(),
            Err(_) => format!("{error:#}"),
        },
        _ => format!("{error:#}"),
    }
}
