//! `jackfield plugin swap`, `rollback` and `status`: orders to a process that runs.

use anyhow::{Context as _, Result, bail};

use super::say;
use crate::args::{Rollback, Running, Swap};
use crate::control::{Answer, Ask, client};

/// Lets the plugins in files fill slots.
pub(super) fn swap(args: &Swap, is_json: bool) -> Result<()> {
    let (num_slots, num_files) = (args.slots.len(), args.files.len());
    if num_slots > 0 && num_slots != num_files {
        bail!("--slot: expected none, or one for each of {num_files} files, found {num_slots}");
    }
    let slots = args.slots.iter().cloned().map(Some).chain(std::iter::repeat(None));
    let files = args.files.iter().zip(slots).map(|(file, slot)| {
        // The other process may run in another folder.
        let whole = std::path::absolute(file);
        Ok((whole.with_context(|| format!("plugin file {}", file.display()))?, slot))
    });
    order(&args.running, &Ask::Swap { files: files.collect::<Result<_>>()? }, is_json)
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
