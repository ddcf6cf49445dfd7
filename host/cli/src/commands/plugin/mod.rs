//! `jackfield plugin`: from an empty folder to a plugin file that a host loads.

mod build;
mod check;
mod child;
mod components;
mod ls;
mod new;
mod probe;
mod running;
mod seal;
mod templates;
mod verdict;

use std::io::Write as _;

use anyhow::Result;

use crate::args::Plugin;

pub use build::{Built, build_plugin};
pub(crate) use ls::ls;
pub(crate) use probe::config_of;

/// Runs the commands that need neither configuration nor plugins; nothing for those that do.
pub(crate) fn without_session(command: &Plugin, is_json: bool) -> Option<Result<()>> {
    Some(match command {
        Plugin::New(args) => new::run(args),
        Plugin::Build(args) => build::run(args, is_json),
        Plugin::Seal(args) => seal::run(args, is_json),
        Plugin::Check(args) => check::run(args, is_json),
        Plugin::Probe(args) => probe::run(args),
        Plugin::Swap(args) => running::swap(args, is_json),
        Plugin::Rollback(args) => running::rollback(args, is_json),
        Plugin::Status(args) => running::status(args, is_json),
        Plugin::Ls | Plugin::Trial { .. } => return None,
    })
}

/// One line on standard output.
fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}
