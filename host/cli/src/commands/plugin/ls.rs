//! `jackfield plugin ls`: which plugins there are, and which ones the configuration picks.

use std::io::Write;

use anyhow::Result;
use plugin_api::{Backend, Kind, Provided};
use serde_json::json;

use crate::setup::Session;

/// Lists plugins by kind.
pub(crate) fn ls(session: &Session) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut last_kind = "";
    for (provided, plugin) in session.registry().iter() {
        let is_picked =
            session.wiring.names(provided.kind).iter().any(|name| *name == *provided.name);
        let kernels = kernels(session, provided);
        if session.is_json {
            let line = json!({
                "kernels": kernels,
                "kind": provided.kind, "name": provided.name, "lane": plugin.lane.to_string(),
                "api": plugin.api, "description": plugin.description, "is_picked": is_picked,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        if provided.kind != last_kind {
            last_kind = provided.kind;
            writeln!(out, "{last_kind}")?;
        }
        let mark = if is_picked { '*' } else { ' ' };
        write!(out, "  {mark} {:20} {:8} {}", provided.name, plugin.lane, plugin.description)?;
        match kernels {
            Some(kernels) => writeln!(out, " [kernels: {kernels}]")?,
            None => writeln!(out)?,
        }
    }
    if !session.is_json {
        writeln!(
            out,
            "\n* picked by the configuration or by default; a model picks its own norms, quantizers \
             and other parts\npick another: --plugin KIND=NAME, or KIND = \"NAME\" below [plugins] \
             in jackfield.toml"
        )?;
    }
    Ok(())
}

/// The kernels that a backend has chosen on this machine; nothing for other kinds, where there is
/// no choice, and for a backend that does not run here.
fn kernels(session: &Session, provided: &Provided) -> Option<String> {
    if provided.kind != <dyn Backend>::NAME {
        return None;
    }
    let backend = session.wiring.make::<dyn Backend>(&session.registry(), &provided.name).ok()?;
    Some(backend.kernels()).filter(|kernels| !kernels.is_empty())
}
