//! Loading as a transaction: read, seal, hash, manifest, stage, trial, open, judge. Whatever fails
//! leaves everything as it was.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jackfield_runtime::{Lane, Origin};
use plugin_api::{Config, Error, Host, Provided};

use crate::artifact::Artifact;
use crate::builtin::LoadedPlugin;
use crate::elf;
use crate::error::LoadError;
use crate::manifest::PluginManifest;
use crate::native::{self, Fate, Mapping};
use crate::owner::{Generation, OnFault};
use crate::quotas::{Live, Quotas};
use crate::stage::Stage;
use crate::trial::Trial;
use crate::wasm::{WasmLane, WasmOptions};

/// How plugin files are loaded.
pub struct LoaderOptions {
    /// Folder for copies and caches of this user; made if need be, for its owner only.
    pub folder: PathBuf,
    /// How native plugins are tried first; without one they are opened untried.
    pub trial: Option<Trial>,
    /// Native plugins that may be mapped.
    pub native_quota: usize,
    /// Limits of the WASM lane; nothing for those that suit a plugin.
    pub wasm: Option<WasmOptions>,
    /// SHA-256 that the file of a plugin must have, in hexadecimal, by the plugin's name.
    pub hashes: BTreeMap<String, String>,
    /// Components that run without deadlines, by name.
    pub trusted: Vec<String>,
    /// Native plugins whose libraries are unmapped once nothing of them is left, by name. All calls
    /// into such a plugin are made on a thread of its own, one after the other.
    pub unload: Vec<String>,
    /// The handle on the host that a plugin gets.
    pub host: Arc<dyn Fn(&PluginManifest) -> Host + Send + Sync>,
    /// Who is told when a plugin failed in a way that a plugin must not.
    pub on_fault: OnFault,
}

impl fmt::Debug for LoaderOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoaderOptions").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Makes plugins of files.
#[derive(Debug)]
pub struct Loader {
    options: LoaderOptions,
    stage: Stage,
    wasm: WasmLane,
    quotas: Arc<Live>,
}

/// Native plugins that may be mapped where the configuration says nothing.
pub const NATIVE_QUOTA: usize = 256;

impl Loader {
    /// A loader.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the WASM lane cannot be set up.
    pub fn new(mut options: LoaderOptions) -> Result<Self, LoadError> {
        let stage = Stage::new(&options.folder);
        let wasm = options.wasm.take();
        let wasm = wasm.unwrap_or_else(|| WasmOptions::new(options.folder.join("wasm")));
        let quotas = Arc::new(Live::new(options.native_quota, &wasm));
        Ok(Self { stage, wasm: WasmLane::with(wasm, Arc::clone(&quotas))?, quotas, options })
    }

    /// Loads the plugin in a file, to be started with `config`.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; whatever was loaded before is untouched.
    pub fn load(&self, path: &Path, config: &Config) -> Result<LoadedPlugin, LoadError> {
        self.load_artifact(&Artifact::read(path)?, config)
    }

    /// Loads a plugin file that has been read.
    ///
    /// # Errors
    ///
    /// As for [`load`](Self::load).
    pub fn load_artifact(
        &self,
        artifact: &Artifact,
        config: &Config,
    ) -> Result<LoadedPlugin, LoadError> {
        let manifest = artifact.manifest.clone();
        if let Some(expected) = self.options.hashes.get(&manifest.name)
            && !expected.eq_ignore_ascii_case(&artifact.hash)
        {
            let (file, expected) = (artifact.file.clone(), expected.clone());
            return Err(LoadError::Hash { file, expected, found: artifact.hash.clone() });
        }
        let label = format!("{} ({:.8})", manifest.name, artifact.hash);
        let generation = Generation::new(label, Arc::clone(&self.options.on_fault));
        let provided = match artifact.format.lane() {
            Lane::Wasm => self.open_component(artifact, &generation)?,
            _ => self.open_library(artifact, config, &generation)?,
        };
        let (path, hash) = (artifact.file.clone(), artifact.hash.clone());
        let origin = Some(Origin { path, hash });
        let (lane, generation) = (artifact.format.lane(), Some(generation));
        Ok(LoadedPlugin { manifest, provided: vec![provided], lane, origin, generation })
    }

    /// What plugins may take.
    pub fn quotas(&self) -> Quotas {
        self.quotas.read()
    }

    /// Changes that while they run: native plugins from the next load on, components from their next
    /// call on. Instances of components may be fewer than the loader was made with, never more.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for what is out of its range; everything stays as it was.
    pub fn set_quotas(&self, to: &Quotas) -> Result<(), Error> {
        self.quotas.change(to)
    }

    /// The handle on the host that a plugin gets.
    pub fn host(&self, manifest: &PluginManifest) -> Host {
        (self.options.host)(manifest)
    }

    fn open_component(
        &self,
        artifact: &Artifact,
        generation: &Arc<Generation>,
    ) -> Result<Provided, LoadError> {
        let manifest = &artifact.manifest;
        let is_trusted = self.options.trusted.contains(&manifest.name);
        let host = self.host(manifest);
        let Artifact { file, bytes, hash, .. } = artifact;
        self.wasm.open_as(generation, file, bytes, hash, manifest, is_trusted, &host)
    }

    fn open_library(
        &self,
        artifact: &Artifact,
        config: &Config,
        generation: &Arc<Generation>,
    ) -> Result<Provided, LoadError> {
        let (file, manifest) = (&artifact.file, &artifact.manifest);
        let (mapped, quota) = (native::mapped(), self.quotas.native_mapped());
        if mapped >= quota {
            return Err(LoadError::Quota { file: file.clone(), mapped, quota });
        }
        let symbol = elf::entry_symbol(file, &artifact.bytes)?;
        let staged = self.stage.copy(artifact)?;
        if let Some(trial) = &self.options.trial {
            trial.run(file, &staged.path, &symbol, manifest, config)?;
        }
        let mut mapping = None;
        if self.options.unload.contains(&manifest.name) {
            match elf::pinned(file, &artifact.bytes)? {
                None => match Mapping::new(Arc::clone(generation), &staged.path) {
                    Ok(opened) => mapping = Some(Arc::new(opened)),
                    Err(error) => generation.decide(Fate::Stays(format!("no thread: {error}"))),
                },
                Some(reason) => generation.decide(Fate::Stays(reason)),
            }
        }
        let (kind, opening) = (&manifest.kind, mapping.as_deref());
        let foreign = native::open(file, &staged.path, &symbol, kind, opening)?;
        let generation = Arc::clone(generation);
        let owner = move || generation.owner(mapping.as_ref());
        let provided = foreign.provided(&manifest.kind, &manifest.name, owner);
        provided.map_err(|source| LoadError::Start {
            file: file.clone(),
            stage: "looking up its kind",
            source,
        })
    }
}
