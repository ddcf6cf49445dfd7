//! What is done of a quantization, beside the place of its result, until that is whole.
//!
//! A folder holds what the work is, and a file for each weight: the SHA-256 of its blocks, then the blocks. Files appear whole,
//! and one that is not what it says is made again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::error::EngineError;
use crate::model::export::Parts;

/// The folder.
#[derive(Debug)]
pub(super) struct Work {
    folder: PathBuf,
    /// Format and file of each weight that is done.
    done: BTreeMap<String, (String, PathBuf)>,
}

impl Work {
    /// Opens the work beside `to`, if `description` is the same as before, or begins it.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] if the disk refuses, or another's folder has the name.
    pub(super) fn open(to: &Path, description: &str) -> Result<Self, EngineError> {
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(".work");
        let folder = to.with_file_name(name);
        let mut work = Self { folder, done: BTreeMap::new() };
        let said = work.folder.join(DESCRIPTION);
        match fs::read(&said) {
            Ok(before) if before == description.as_bytes() => work.find_done()?,
            Ok(_) => {
                work.remove()?;
                work.begin(description)?;
            }
            Err(_) if work.folder.exists() => {
                let what = work.folder.display().to_string();
                let expected = format!("a folder of unfinished work, with `{DESCRIPTION}`");
                return Err(EngineError::inconsistent(what, expected, "another"));
            }
            Err(_) => work.begin(description)?,
        }
        Ok(work)
    }

    fn begin(&self, description: &str) -> Result<(), EngineError> {
        fs::create_dir_all(&self.folder).map_err(|error| refused(&self.folder, &error))?;
        self.write(&self.folder.join(DESCRIPTION), &[description.as_bytes()])
    }

    fn find_done(&mut self) -> Result<(), EngineError> {
        let entries = fs::read_dir(&self.folder).map_err(|error| refused(&self.folder, &error))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let Some(stem) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Some((name, format)) = stem.strip_suffix(PART).and_then(|s| s.rsplit_once('@'))
            else {
                continue;
            };
            if blocks(&path).is_ok() {
                self.done.insert(name.to_owned(), (format.to_owned(), path.clone()));
            }
        }
        Ok(())
    }

    /// Weights that are done.
    pub(super) fn num_done(&self) -> usize {
        self.done.len()
    }

    /// Whether a weight is done.
    pub(super) fn has(&self, name: &str) -> bool {
        self.done.contains_key(name)
    }

    /// Keeps the blocks of a weight.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] if the disk refuses, or the name is none for a file.
    pub(super) fn keep(
        &mut self,
        name: &str,
        format: &str,
        blocks: &[u8],
    ) -> Result<(), EngineError> {
        if name.contains('/') || format.contains(['/', '@']) {
            let expected = "a name for a file";
            return Err(EngineError::inconsistent(format!("weight `{name}`"), expected, "another"));
        }
        let path = self.folder.join(format!("{name}@{format}{PART}"));
        self.write(&path, &[&Sha256::digest(blocks), blocks])?;
        self.done.insert(name.to_owned(), (format.to_owned(), path));
        Ok(())
    }

    /// Removes the folder with all that is in it.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] if the disk refuses.
    pub(super) fn remove(&mut self) -> Result<(), EngineError> {
        self.done.clear();
        fs::remove_dir_all(&self.folder).map_err(|error| refused(&self.folder, &error))
    }

    /// Writes a file whole or not at all.
    fn write(&self, path: &Path, parts: &[&[u8]]) -> Result<(), EngineError> {
        let draft = self.folder.join("draft");
        let written = File::create(&draft).and_then(|mut file| {
            parts.iter().try_for_each(|part| file.write_all(part))?;
            file.sync_all()
        });
        let written = written.and_then(|()| fs::rename(&draft, path));
        written.map_err(|error| refused(path, &error))
    }
}

impl Parts for Work {
    fn format(&self, ours: &str) -> Option<&str> {
        self.done.get(ours).map(|(format, _)| format.as_str())
    }

    fn bytes(&self, ours: &str) -> Result<Vec<u8>, EngineError> {
        match self.done.get(ours) {
            Some((_, path)) => blocks(path),
            None => Err(EngineError::inconsistent(ours, "a weight that is done", "none")),
        }
    }
}

/// The blocks in a file.
fn blocks(path: &Path) -> Result<Vec<u8>, EngineError> {
    let mut bytes = fs::read(path).map_err(|error| refused(path, &error))?;
    let blocks = bytes.split_off(HASH_BYTES.min(bytes.len()));
    if *bytes == *Sha256::digest(&blocks) {
        return Ok(blocks);
    }
    let what = path.display().to_string();
    Err(EngineError::inconsistent(what, "blocks as they were written", "others"))
}

/// Bytes of a file, or of the files in a folder.
pub(super) fn size_bytes(model: &Path) -> u64 {
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |found| found.len());
    files_of(model).iter().map(size).sum()
}

fn files_of(model: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(model) else { return vec![model.to_owned()] };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// SHA-256 in hexadecimal digits.
pub(super) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What names a model's files: their paths, sizes and times of change.
pub(super) fn described(model: &Path) -> String {
    let line = |path: &PathBuf| {
        let found = fs::metadata(path).ok();
        let size = found.as_ref().map(fs::Metadata::len);
        let changed = found.and_then(|found| found.modified().ok());
        format!("{} {size:?} {changed:?}\n", path.display())
    };
    files_of(model).iter().map(line).collect()
}

fn refused(path: &Path, error: &std::io::Error) -> EngineError {
    EngineError::inconsistent(path.display().to_string(), "a file or folder to use", error)
}

const DESCRIPTION: &str = "quantization.txt";
const PART: &str = ".part";
const HASH_BYTES: usize = 32;
