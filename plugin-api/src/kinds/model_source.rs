//! Model sources: places that models come from.

use std::path::{Path, PathBuf};

use super::kind;
use crate::error::Result;
use crate::host::Host;

/// Finds models by name and brings them onto this machine.
pub trait ModelSource: Send + Sync {
    /// The models that this source can name without looking them up. [any thread]
    fn list(&self) -> Vec<ModelEntry>;

    /// What `name` means to this source; nothing if it is not for this source. [any thread]
    ///
    /// # Errors
    ///
    /// Only if the name is for this source and still cannot be understood.
    fn resolve(&self, name: &str, host: &Host) -> Result<Option<ModelEntry>>;

    /// Brings the model below `folder`, verified, and returns its file or folder. Whatever is
    /// there already is verified and used; a half-finished download is never left under its final
    /// name. [any thread, slow]
    ///
    /// # Errors
    ///
    /// An error that names what to do next; the folder holds at most resumable parts then.
    fn fetch(
        &self,
        entry: &ModelEntry,
        folder: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
        host: &Host,
    ) -> Result<PathBuf>;
}

kind!(ModelSource, "model-source", Call, traced: false);

/// A model that a source knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelEntry {
    /// The name to ask for, unique within the source.
    pub name: String,
    /// One line for people: parameters, format, licence.
    pub description: String,
    /// Bytes of the model's files, if known.
    pub size_bytes: Option<u64>,
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// What is happening: `downloading …`, `verifying`.
    pub stage: &'a str,
    /// Bytes done in this stage.
    pub done: u64,
    /// Bytes of this stage, if known.
    pub total: Option<u64>,
}
