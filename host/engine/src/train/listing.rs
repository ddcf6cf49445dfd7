//! What lies in folders of checkpoints, without loading any: for people who look after runs.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::checkpoint::{FileEntry, Manifest, read_manifest};
use super::states::hooks_from_safetensors;
use crate::error::EngineError;

/// A checkpoint as its files say.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Its folder.
    pub path: PathBuf,
    /// Steps of the run until then.
    pub step: u64,
    /// Of the last step; not a number where there is none.
    pub loss: f64,
    /// Of held-out data, if that was evaluated.
    pub evaluation: Option<f64>,
    /// What names the run.
    pub run: String,
    /// Bytes of all files that the manifest names.
    pub size_bytes: u64,
    /// The files that the manifest names.
    pub files: Vec<String>,
    /// Hooks whose state is kept.
    pub hooks: Vec<String>,
    /// Files that are not what the manifest says; none if the checkpoint is whole.
    pub damaged: Vec<Damage>,
}

/// A file that is not what it was when the checkpoint was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Its name in the folder.
    pub file: String,
    /// Size and the beginning of the SHA-256 of what was written.
    pub expected: String,
    /// What there is.
    pub found: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: expected {}, found {}", self.file, self.expected, self.found)
    }
}

/// The folders of checkpoints in the folder of a run, oldest first. What is not finished is none.
///
/// # Errors
///
/// [`EngineError::Inconsistent`] for a folder that cannot be read.
pub fn checkpoints_in(folder: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let outside = |error: io::Error| {
        EngineError::inconsistent(folder.display().to_string(), "a folder to read", error)
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(outside)? {
        let path = entry.map_err(outside)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let step = name.strip_prefix("step-").unwrap_or("none");
        if step.bytes().all(|byte| byte.is_ascii_digit()) && path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads every file of a checkpoint and compares it with the manifest.
///
/// # Errors
///
/// [`EngineError::Inconsistent`] for a manifest that is not there or none.
pub fn inspect_checkpoint(path: &Path) -> Result<Listed, EngineError> {
    let Manifest { step, run, loss, evaluation, files, .. } = read_manifest(path)?;
    let damaged = files.iter().filter_map(|(name, entry)| damage(path, name, entry)).collect();
    Ok(Listed {
        path: path.to_owned(),
        step,
        loss: loss.parse().unwrap_or(f64::NAN),
        evaluation: evaluation.and_then(|loss| loss.parse().ok()),
        run,
        size_bytes: files.values().map(|entry| entry.size_bytes).sum(),
        hooks: hooks(path, &files),
        files: files.into_keys().collect(),
        damaged,
    })
}

fn damage(path: &Path, name: &str, entry: &FileEntry) -> Option<Damage> {
    let what = |entry: &FileEntry| format!("{} bytes {:.12}", entry.size_bytes, entry.sha256);
    let found = match Path::new(name).file_name() == Some(name.as_ref()) {
        true => digest(&path.join(name)).map_err(|error| error.to_string()),
        false => Err("a name that leads out of the folder".to_owned()),
    };
    let found = match found {
        Ok(found) if found == *entry => return None,
        Ok(found) => what(&found),
        Err(error) => error,
    };
    Some(Damage { file: name.to_owned(), expected: what(entry), found })
}

/// Size and SHA-256 of a file, however large.
fn digest(path: &Path) -> io::Result<FileEntry> {
    let (mut file, mut sha256, mut size_bytes) = (File::open(path)?, Sha256::new(), 0);
    let mut part = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut part)?;
        if read == 0 {
            break;
        }
        sha256.update(&part[..read]);
        size_bytes += read as u64;
    }
    let sha256 = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(FileEntry { size_bytes, sha256 })
}

/// Plugins whose hooks keep something; none where that cannot be read, which is damage by itself.
fn hooks(path: &Path, files: &BTreeMap<String, FileEntry>) -> Vec<String> {
    let bytes = files.contains_key(HOOKS).then(|| fs::read(path.join(HOOKS)).ok()).flatten();
    let hooks = bytes.and_then(|bytes| hooks_from_safetensors(&bytes).ok());
    hooks.into_iter().flat_map(BTreeMap::into_keys).collect()
}

const HOOKS: &str = "hooks.safetensors";
