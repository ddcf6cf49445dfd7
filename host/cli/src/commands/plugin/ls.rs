//! `jackfield plugin ls`: which plugins there are, and which ones the configuration picks.

use std::io::Write;

use anyhow::Result;
use serde_json::json;

use crate::setup::Session;

/// Lists plugins by kind.
pub(crate) fn ls(session: &Session) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut last_kind = "";
    for (provided, plugin) in session.registry().iter() {
        let is_picked =
            session.wiring.names(provided.kind).iter().any(|name| *name == *provided.name);
        if session.is_json {
            let line = json!({
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
        writeln!(out, "  {mark} {:20} {:8} {}", provided.name, plugin.lane, plugin.description)?;
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
