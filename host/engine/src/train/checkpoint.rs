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

use super::dataset::DatasetPosition;
use super::disk::{Disk, RealDisk};
use super::loader::LoaderPosition;
use super::lora::Lora;
use super::parameters::Parameters;
use super::states::{self, States};
use crate::error::EngineError;
use crate::model::adapter::WEIGHTS;

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
    /// Of held-out data after that step, where it was evaluated.
    pub evaluation: Option<f64>,
    /// What the run is: its configuration, hashed. A run takes its own checkpoints only.
    pub run: String,
}

/// The checkpoints of one run, in a folder.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    beside: Vec<(String, Vec<u8>)>,
    adapter: Option<AdapterOf>,
    keep_last: usize,
    disk: Box<dyn Disk>,
}

/// What the checkpoints of an adapter say of it.
#[derive(Debug, Clone)]
struct AdapterOf {
    /// Without parameters.
    lora: Lora,
    base: String,
}

/// `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    version: u32,
    pub(super) step: u64,
    pub(super) run: String,
    /// As text: numbers that are none have no JSON.
    pub(super) loss: String,
    epoch: u64,
    sequences: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dataset: Option<DatasetPosition>,
    /// As text, as the loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) evaluation: Option<String>,
    pub(super) files: BTreeMap<String, FileEntry>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    pub(super) size_bytes: u64,
    pub(super) sha256: String,
}

impl Checkpoint {
    /// What names a run: the hash of what it is described by.
    pub fn run_of(description: &str) -> String {
        FileEntry::of(description.as_bytes()).sha256
    }
}

impl Checkpoints {
    /// The checkpoints below `folder`, which is made if it is not there. The last `keep_last` stay, and the
    /// best: of the least loss of held-out data, if any was evaluated, else of its last step.
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
        let (folder, keep_last) = (folder.to_owned(), keep_last.max(1));
        Ok(Self { folder, beside: Vec::new(), adapter: None, keep_last, disk })
    }

    /// The same with further files in each checkpoint: tokenizer and chat template of a model.
    #[must_use]
    pub fn with_files(self, beside: Vec<(String, Vec<u8>)>) -> Self {
        Self { beside, ..self }
    }

    /// The same for parameters of the adapter `lora` beside the model `base`, in the layout of PEFT.
    #[must_use]
    pub fn of_adapter(self, lora: &Lora, base: &str) -> Self {
        let lora = Lora { parameters: Parameters::default(), ..lora.clone() };
        Self { adapter: Some(AdapterOf { lora, base: base.to_owned() }), ..self }
    }

    /// Writes a checkpoint and removes those that are not kept. `config` is the `config.json` of the model,
    /// which lies beside it unless it is an adapter's: the folder can be served.
    pub fn save(&self, checkpoint: &Checkpoint, config: &str) -> Result<PathBuf, EngineError> {
        let name = format!("step-{:08}", checkpoint.step);
        let (path, new) = (self.folder.join(&name), self.folder.join(format!("{name}.new")));
        if new.exists() {
            self.disk.remove_folder(&new).map_err(|error| outside(&new, &error))?;
        }
        self.disk.create_folder(&new).map_err(|error| outside(&new, &error))?;
        let states = states::to_safetensors(&checkpoint.states)?;
        let mut files: Vec<(&str, Vec<u8>)> = vec![
            ("states.safetensors", states),
            ("hooks.safetensors", states::hooks_to_safetensors(&checkpoint.hooks)?),
        ];
        files.extend(self.model_files(&checkpoint.parameters, config)?);
        let beside = self.beside.iter().map(|(name, bytes)| (name.as_str(), bytes));
        let mut entries = BTreeMap::new();
        for (file, bytes) in files.iter().map(|(name, bytes)| (*name, bytes)).chain(beside) {
            self.write(&new.join(file), bytes)?;
            entries.insert(file.to_owned(), FileEntry::of(bytes));
        }
        let manifest = Manifest {
            version: VERSION,
            step: checkpoint.step,
            run: checkpoint.run.clone(),
            loss: checkpoint.loss.to_string(),
            epoch: checkpoint.loader.epoch,
            sequences: checkpoint.loader.sequences,
            dataset: checkpoint.loader.dataset.clone(),
            evaluation: checkpoint.evaluation.map(|loss| loss.to_string()),
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

    /// Writes the model of a checkpoint alone to a folder that an engine reads: what it is of is as in
    /// [`save`](Self::save), but nothing is brought to the disk.
    ///
    /// # Errors
    ///
    /// As those of [`open`](Self::open).
    pub fn lay_out(
        &self,
        folder: &Path,
        parameters: &Parameters,
        config: &str,
    ) -> Result<(), EngineError> {
        fs::create_dir_all(folder).map_err(|error| outside(folder, &error))?;
        let files = self.model_files(parameters, config)?;
        let beside = self.beside.iter().map(|(name, bytes)| (name.as_str(), bytes));
        for (name, bytes) in files.iter().map(|(name, bytes)| (*name, bytes)).chain(beside) {
            // Another file: one that is mapped keeps what it was.
            let (path, new) = (folder.join(name), folder.join(format!("{name}.new")));
            let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path));
            written.map_err(|error| outside(&path, &error))?;
        }
        Ok(())
    }

    fn model_files(
        &self,
        parameters: &Parameters,
        config: &str,
    ) -> Result<Vec<(&'static str, Vec<u8>)>, EngineError> {
        Ok(match &self.adapter {
            Some(AdapterOf { lora, base }) => {
                let parameters = parameters.clone();
                Lora { parameters, ..lora.clone() }.files(base)?.into()
            }
            None => vec![
                (MODEL, parameters.to_safetensors()?),
                ("config.json", config.as_bytes().to_vec()),
            ],
        })
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
        let best = best_of(&paths);
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
    for name in manifest.files.keys().filter(|name| !name.ends_with(".safetensors")) {
        read(name)?;
    }
    let parameters = match manifest.files.contains_key(WEIGHTS) {
        true => Lora::parameters_of(&read(WEIGHTS)?)?,
        false => Parameters::from_safetensors(&read(MODEL)?)?,
    };
    Ok(Checkpoint {
        step: manifest.step,
        parameters,
        states: states::from_safetensors(&read("states.safetensors")?)?,
        hooks: states::hooks_from_safetensors(&read("hooks.safetensors")?)?,
        loader: LoaderPosition {
            epoch: manifest.epoch,
            sequences: manifest.sequences,
            dataset: manifest.dataset,
        },
        loss: manifest.loss.parse().unwrap_or(f64::NAN),
        evaluation: manifest.evaluation.map(|loss| loss.parse().unwrap_or(f64::NAN)),
        run: manifest.run,
    })
}

/// The one of the least loss: of held-out data where any has one.
fn best_of(paths: &[PathBuf]) -> Option<&PathBuf> {
    let number = |text: &str| text.parse().ok().filter(|loss: &f64| loss.is_finite());
    let losses = |path: &PathBuf| {
        let manifest = read_manifest(path).ok();
        let evaluation = manifest.as_ref().and_then(|m| number(m.evaluation.as_deref()?));
        (evaluation, manifest.and_then(|m| number(&m.loss)))
    };
    let losses: Vec<_> = paths.iter().map(losses).collect();
    let is_evaluated = losses.iter().any(|(evaluation, _)| evaluation.is_some());
    let loss = |(evaluation, loss): &(Option<f64>, Option<f64>)| {
        (if is_evaluated { evaluation } else { loss }).unwrap_or(f64::INFINITY)
    };
    let best = paths.iter().zip(&losses).min_by(|(_, a), (_, b)| loss(a).total_cmp(&loss(b)));
    best.map(|(path, _)| path)
}

pub(super) fn read_manifest(path: &Path) -> Result<Manifest, EngineError> {
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
const MODEL: &str = "model.safetensors";
