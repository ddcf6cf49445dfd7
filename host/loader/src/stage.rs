//! Staging: a private copy of a plugin file, so that what happens to the file happens to nobody.
//!
//! A library is opened under a path and an inode that no other library ever had: the dynamic
//! linker recognizes both and would return old code for them. The copy has the content's hash in
//! its name, is checked after it was written, and is removed once it is mapped.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::artifact::{Artifact, hash_of};
use crate::error::LoadError;

/// A folder of this process for copies.
#[derive(Debug)]
pub(crate) struct Stage {
    folder: PathBuf,
}

/// A copy; removed when dropped.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) path: PathBuf,
}

impl Stage {
    /// A folder below `parent`.
    pub(crate) fn new(parent: &Path) -> Self {
        Self { folder: parent.join("stage") }
    }

    /// Copies a plugin file.
    pub(crate) fn copy(&self, artifact: &Artifact) -> Result<Staged, LoadError> {
        let written = self.write(artifact);
        written.map_err(|source| LoadError::Read { path: self.folder.clone(), source })
    }

    fn write(&self, artifact: &Artifact) -> std::io::Result<Staged> {
        static COPIES: AtomicU64 = AtomicU64::new(0);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let number = COPIES.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{}-{number}.so", artifact.hash, std::process::id());
        let staged = Staged { path: self.folder.join(name) };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o400).open(&staged.path)?;
        file.write_all(&artifact.bytes)?;
        drop(file);
        let mut copy = Vec::with_capacity(artifact.bytes.len());
        File::open(&staged.path)?.read_to_end(&mut copy)?;
        if hash_of(&copy) != artifact.hash {
            return Err(std::io::Error::other("the copy is not what was written"));
        }
        Ok(staged)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // A mapped file keeps its content without a name.
        let _ = std::fs::remove_file(&self.path);
    }
}
