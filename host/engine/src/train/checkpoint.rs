//! Checkpoints: all that a run needs to go on, in folders that are whole or not there.
//!
//! A folder is written under another name, each file and the folder itself brought to the disk, then
//! renamed, and the name brought to the disk. The manifest holds size and SHA-256 of every file; what
//! does not fit is passed over when a run is resumed, and the checkpoint before it is taken.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use plugin_api::events::HookState;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::disk::{Disk, RealDisk};
use super::loader::LoaderPosition;
use super::parameters::Parameters;
use super::states::{self, States};
use crate::error::EngineError;

/// A run between two steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Steps so far, skipped ones counted.
    pub step: u64,
    /// The model.
    pub parameters: Parameters,
    /// Its optimizer.
    pub states: States,
    /// What hooks keep, by the names of their plugins.
    pub hooks: BTreeMap<String, HookState>,
    /// Where the text stands.
    pub loader: LoaderPosition,
    /// Of the last step.
    pub loss: f64,
    /// What the run is: its configuration, hashed. A run takes its own checkpoints only.
    pub run: String,
}

/// The checkpoints of one run, in a folder.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep_last: usize,
    disk: Box<dyn Disk>,
}

/// `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    version: u32,
    step: u64,
    run: String,
    /// As text: numbers that are none have no JSON.
    loss: String,
    epoch: u64,
    sequences: usize,
    files: BTreeMap<String, FileEntry>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct FileEntry {
    size_bytes: u64,
    sha256: String,
}

impl Checkpoint {
    /// What names a run: the hash of what it is described by.
    pub fn run_of(description: &str) -> String {
        FileEntry::of(description.as_bytes()).sha256
    }
}

impl Checkpoints {
    /// The checkpoints below `folder`, which is made if it is not there. The last `keep_last` stay, and the
    /// one of the least loss.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] that names the path; likewise the others here.
    pub fn open(folder: &Path, keep_last: usize) -> Result<Self, EngineError> {
        Self::open_on(Box::new(RealDisk), folder, keep_last)
    }

    /// The same, written by the calls of `disk`.
    pub fn open_on(
        disk: Box<dyn Disk>,
        folder: &Path,
        keep_last: usize,
    ) -> Result<Self, EngineError> {
        fs::create_dir_all(folder).map_err(|error| outside(folder, &error))?;
        Ok(Self { folder: folder.to_owned(), keep_last: keep_last.max(1), disk })
    }

    /// Writes a checkpoint and removes those that are not kept. `config` is the `config.json` of the model,
    /// which lies beside it: the folder can be served.
    pub fn save(&self, checkpoint: &Checkpoint, config: &str) -> Result<PathBuf, EngineError> {
        let name = format!("step-{:08}", checkpoint.step);
        let (path, new) = (self.folder.join(&name), self.folder.join(format!("{name}.new")));
        if new.exists() {
            self.disk.remove_folder(&new).map_err(|error| outside(&new, &error))?;
        }
        self.disk.create_folder(&new).map_err(|error| outside(&new, &error))?;
        let files = [
            ("model.safetensors", checkpoint.parameters.to_safetensors()?),
            ("states.safetensors", states::to_safetensors(&checkpoint.states)?),
            ("hooks.safetensors", states::hooks_to_safetensors(&checkpoint.hooks)?),
            ("config.json", config.as_bytes().to_vec()),
        ];
        let mut entries = BTreeMap::new();
        for (file, bytes) in &files {
            self.write(&new.join(file), bytes)?;
            entries.insert((*file).to_owned(), FileEntry::of(bytes));
        }
        let manifest = Manifest {
            version: VERSION,
            step: checkpoint.step,
            run: checkpoint.run.clone(),
            loss: checkpoint.loss.to_string(),
            epoch: checkpoint.loader.epoch,
            sequences: checkpoint.loader.sequences,
            files: entries,
        };
        let manifest = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
        self.write(&new.join(MANIFEST), &manifest)?;
        self.disk.sync_folder(&new).map_err(|error| outside(&new, &error))?;
        if path.exists() {
            self.disk.remove_folder(&path).map_err(|error| outside(&path, &error))?;
        }
        self.disk.rename(&new, &path).map_err(|error| outside(&path, &error))?;
        self.disk.sync_folder(&self.folder).map_err(|error| outside(&self.folder, &error))?;
        self.prune()?;
        Ok(path)
    }

    /// The newest checkpoint that is whole and of the run `run`; `passed_over` is told of each newer one and why
    /// it is not taken.
    pub fn load_latest(
        &self,
        run: &str,
        mut passed_over: impl FnMut(&Path, &EngineError),
    ) -> Result<Option<Checkpoint>, EngineError> {
        for path in self.paths()?.into_iter().rev() {
            match load(&path, run) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) => passed_over(&path, &error),
            }
        }
        Ok(None)
    }

    /// Folders of checkpoints, oldest first.
    fn paths(&self) -> Result<Vec<PathBuf>, EngineError> {
        let entries = fs::read_dir(&self.folder).map_err(|error| outside(&self.folder, &error))?;
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| outside(&self.folder, &error))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let step = name.strip_prefix("step-");
            if step.is_some_and(|step| step.bytes().all(|byte| byte.is_ascii_digit())) {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn prune(&self) -> Result<(), EngineError> {
        let paths = self.paths()?;
        let Some(old) = paths.len().checked_sub(self.keep_last) else { return Ok(()) };
        let loss = |path: &PathBuf| -> f64 {
            let loss = read_manifest(path).ok().and_then(|manifest| manifest.loss.parse().ok());
            loss.filter(|loss: &f64| loss.is_finite()).unwrap_or(f64::INFINITY)
        };
        let best = paths.iter().min_by(|a, b| loss(a).total_cmp(&loss(b)));
        for path in paths[..old].iter().filter(|path| Some(*path) != best) {
            self.disk.remove_folder(path).map_err(|error| outside(path, &error))?;
        }
        Ok(())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
        let written = self.disk.write(path, bytes).and_then(|()| self.disk.sync_file(path));
        written.map_err(|error| outside(path, &error))
    }
}

impl FileEntry {
    fn of(bytes: &[u8]) -> Self {
        let sha256 = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { size_bytes: bytes.len() as u64, sha256 }
    }
}

fn load(path: &Path, run: &str) -> Result<Checkpoint, EngineError> {
    let manifest = read_manifest(path)?;
    let wrong = |expected: String, found: String| {
        EngineError::inconsistent(format!("checkpoint {}", path.display()), expected, found)
    };
    if manifest.version != VERSION {
        return Err(wrong(format!("version {VERSION}"), manifest.version.to_string()));
    }
    if manifest.run != run {
        let (expected, found) = (format!("one of the run {run}"), manifest.run);
        return Err(wrong(expected, format!("one of {found}: its configuration is another")));
    }
    let read = |name: &str| {
        let file = path.join(name);
        let Some(entry) = manifest.files.get(name) else {
            return Err(wrong(format!("`{name}` in its manifest"), "none".to_owned()));
        };
        let bytes = fs::read(&file).map_err(|error| outside(&file, &error))?;
        let found = FileEntry::of(&bytes);
        if found == *entry {
            return Ok(bytes);
        }
        let what = |entry: &FileEntry| format!("{} bytes {:.12}", entry.size_bytes, entry.sha256);
        Err(wrong(format!("`{name}` of {}", what(entry)), what(&found)))
    };
    read("config.json")?;
    Ok(Checkpoint {
        step: manifest.step,
        parameters: Parameters::from_safetensors(&read("model.safetensors")?)?,
        states: states::from_safetensors(&read("states.safetensors")?)?,
        hooks: states::hooks_from_safetensors(&read("hooks.safetensors")?)?,
        loader: LoaderPosition { epoch: manifest.epoch, sequences: manifest.sequences },
        loss: manifest.loss.parse().unwrap_or(f64::NAN),
        run: manifest.run,
    })
}

fn read_manifest(path: &Path) -> Result<Manifest, EngineError> {
    let file = path.join(MANIFEST);
    let bytes = fs::read(&file).map_err(|error| outside(&file, &error))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| EngineError::inconsistent(file.display().to_string(), "a manifest", error))
}

fn outside(path: &Path, error: &io::Error) -> EngineError {
    EngineError::inconsistent(path.display().to_string(), "a file or folder to use", error)
}

/// Of the folder and its manifest.
const VERSION: u32 = 2;
const MANIFEST: &str = "manifest.json";
