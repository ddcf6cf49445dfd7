//! `jackfield plugin swap`, `rollback` and `status`: orders to a process that runs.

use anyhow::{Context as _, Result, bail};

use super::say;
use crate::args::{Rollback, Running, Swap};
use crate::control::{Answer, Ask, client};

/// Lets the plugin in a file fill a slot.
pub(super) fn swap(args: &Swap, is_json: bool) -> Result<()> {
    // The other process may run in another folder.
    let file = std::path::absolute(&args.file)
        .with_context(|| format!("plugin file {}", args.file.display()))?;
    order(&args.running, &Ask::Swap { file, slot: args.slot.clone() }, is_json)
}

/// Takes a swap back.
pub(super) fn rollback(args: &Rollback, is_json: bool) -> Result<()> {
    let (kind, slot) = args.slot.split_once('/').unwrap_or((&args.slot, &args.slot));
    let ask = Ask::Rollback { kind: kind.to_owned(), slot: slot.to_owned() };
    order(&args.running, &ask, is_json)
}

/// Shows what runs.
pub(super) fn status(args: &Running, is_json: bool) -> Result<()> {
    order(args, &Ask::List, is_json)
}

fn order(running: &Running, ask: &Ask, is_json: bool) -> Result<()> {
    let answer = client::ask(running.pid, ask)?;
    if is_json {
        say(&serde_json::to_string(&answer)?)?;
    } else if !matches!(answer, Answer::Refused { .. }) {
        say(&answer.to_string())?;
    }
    match answer {
        Answer::Refused { message } => bail!("refused, everything is as it was: {message}"),
        _ => Ok(()),
    }
}
