//! `jackfield plugin seal`: for plugin files that were built with other tools.

use anyhow::{Context as _, Result};
use jackfield_loader::PluginManifest;
use serde_json::json;

use super::{build, say};
use crate::args::Seal;

/// Runs the command.
pub(super) fn run(args: &Seal, is_json: bool) -> Result<()> {
    let bytes = std::fs::read(&args.file).with_context(|| args.file.display().to_string())?;
    let text = match &args.manifest {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            PluginManifest::parse(&path.display().to_string(), &text)?;
            Some(text)
        }
        None => None,
    };
    let artifact = build::finish(&args.file, bytes, text.as_deref())
        .context("sealing: nothing was changed")?;
    let (capability, hash) = (artifact.manifest.capability(), &artifact.hash);
    if is_json {
        return say(
            &json!({ "file": args.file, "capability": capability, "sha256": hash }).to_string()
        );
    }
    say(&format!("{}: {capability}, sealed\n  sha256    {hash}", args.file.display()))
}
