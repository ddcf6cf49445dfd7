//! The board: which file fills which slot, what filled it before, and how to change that while
//! everything runs.
//!
//! A swap is a transaction over three parties: the loader makes an instance of a file, the target
//! takes it into a slot at a boundary, the registry remembers who provides what. The registry
//! changes last, so that a failure before leaves everything as it was.

mod requires;
mod restarts;
mod set;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use jackfield_runtime::{
    Bus, HookFault, Lane, PluginInfo, Registry, Removed, RuntimeError, SlotStatus, SwapError,
    SwapTarget, Swapped,
};
use plugin_api::{Config, Error, Hook, Kind as _};
use thiserror::Error as ThisError;

use crate::artifact::Artifact;
use crate::builtin::LoadedPlugin;
use crate::error::LoadError;
use crate::loader::Loader;
use crate::manifest::PluginManifest;
use crate::native::{self, Fate};
use crate::owner::Generation;

use restarts::Breaker;
pub use restarts::Restart;
pub use set::Member;

/// What the board works with.
pub struct PluginsOptions {
    /// Makes plugins of files.
    pub loader: Loader,
    /// Who provides what; shared with whoever makes instances.
    pub registry: Arc<RwLock<Registry>>,
    /// Manifests of what is linked in.
    pub builtins: Vec<PluginManifest>,
    /// Where hooks subscribe.
    pub bus: Bus,
    /// The table of a plugin in the configuration.
    pub config: Arc<dyn Fn(&str) -> Config + Send + Sync>,
    /// How long after a swap a fault takes it back.
    pub probation: Duration,
    /// How long at most a plugin that fails again and again is left alone before its next start.
    pub restart_pause_max: Duration,
    /// How long a swap waits for a boundary.
    pub wait: Duration,
}

/// Which file fills which slot, and how to change it.
pub struct Plugins {
    options: PluginsOptions,
    target: RwLock<Option<Arc<dyn SwapTarget>>>,
    /// One swap at a time.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Files that were loaded and of which something is left, oldest first.
    loaded: Vec<Loaded>,
    /// What the latest swap of each slot replaced, by kind and slot.
    undo: BTreeMap<Key, Undo>,
    /// What failed of late, by kind and slot.
    breakers: BTreeMap<Key, Breaker>,
}

/// Kind and slot.
type Key = (String, String);

struct Loaded {
    info: PluginInfo,
    manifest: PluginManifest,
    generation: Arc<Generation>,
}

struct Undo {
    /// What filled the slot before; nothing if it was empty.
    before: Option<Removed>,
    /// What fills the slot since.
    generation: Weak<Generation>,
    at: Instant,
    /// Every slot that was swapped in the same set, this one included: one set, one pointer.
    with: Arc<[Key]>,
}

/// Why a swap or rollback did not happen. Nothing has changed when one is returned.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum PluginsError {
    /// The file did not become a plugin.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The engine did not take it in.
    #[error("{file}: {source}")]
    Swap {
        /// The file.
        file: String,
        /// What the engine says.
        source: SwapError,
    },
    /// The registry has it otherwise.
    #[error(transparent)]
    Registry(#[from] RuntimeError),
    /// The configuration has keys that the plugin does not know.
    #[error("{file}: [plugin.{name}]: expected keys that the plugin reads, found {keys}")]
    UnknownKeys {
        /// The file.
        file: String,
        /// The plugin.
        name: String,
        /// What nobody read, comma separated.
        keys: String,
    },
    /// A plugin would run without what it requires.
    #[error("`{by}` requires `{required}` beside it: expected it to run, found {found}")]
    Requires {
        /// `kind/name` of whoever requires something.
        by: String,
        /// `kind/name` of what it requires.
        required: String,
        /// What would run in its place.
        found: String,
    },
    /// A set cannot be taken back as a whole.
    #[error(
        "{kind} `{slot}`: expected to take it back with {other}, which it was swapped with and which has been swapped since: swap both"
    )]
    Parted {
        /// The kind.
        kind: String,
        /// The slot.
        slot: String,
        /// `kind/slot` of another member of the set.
        other: String,
    },
    /// There is nothing to go back to.
    #[error("{kind} `{slot}`: nothing was swapped there that could be taken back")]
    NothingToUndo {
        /// The kind.
        kind: String,
        /// The slot.
        slot: String,
    },
    /// Nothing runs whose slots could be swapped.
    #[error("no engine runs: there is nothing to swap")]
    NoTarget,
}

/// What became of a swap or rollback.
#[derive(Debug, Clone)]
pub struct SwapReport {
    /// The kind.
    pub kind: String,
    /// The slot.
    pub slot: String,
    /// The file; nothing if what came back is linked in.
    pub path: Option<String>,
    /// How the engine took it in; nothing for hooks, which are called from the next event on.
    pub swapped: Option<Swapped>,
}

/// What a swap would do, from reading the file alone.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The file, read whole.
    pub artifact: Artifact,
    /// The slot that it would fill.
    pub slot: String,
    /// Who provides what fills it; nothing if nobody does.
    pub before: Option<PluginInfo>,
}

/// One plugin file that was loaded.
#[derive(Debug, Clone)]
pub struct LoadedStatus {
    /// What is known about it.
    pub info: PluginInfo,
    /// The kind.
    pub kind: String,
    /// Instances that are alive.
    pub instances: usize,
    /// Calls into it so far; nothing for a library, whose calls nobody counts.
    pub calls: Option<u64>,
    /// Faults so far.
    pub faults: usize,
    /// What became of its memory, truthfully.
    pub memory: String,
}

impl Plugins {
    /// A board; no slot can be swapped before [`attach`](Self::attach).
    pub fn new(options: PluginsOptions) -> Self {
        Self { options, target: RwLock::new(None), state: Mutex::default() }
    }

    /// Names the engine whose slots are swapped.
    pub fn attach(&self, target: Arc<dyn SwapTarget>) {
        *self.target.write().unwrap_or_else(PoisonError::into_inner) = Some(target);
    }

    /// Loads files before anything runs: each provides its capability from then on, whoever did so
    /// before.
    ///
    /// # Errors
    ///
    /// [`PluginsError`] for the first file that fails, and [`LoadError::NameTaken`] for two files
    /// of one name. Nothing of any file is registered then.
    pub fn load_files(&self, paths: &[PathBuf]) -> Result<(), PluginsError> {
        let mut loaded: Vec<(String, LoadedPlugin)> = Vec::new();
        for path in paths {
            let artifact = Artifact::read(path)?;
            let capability = artifact.manifest.capability();
            if let Some((owner, _)) =
                loaded.iter().find(|(_, other)| other.manifest.capability() == capability)
            {
                let (file, owner) = (artifact.file, owner.clone());
                return Err(LoadError::NameTaken { file, capability, owner }.into());
            }
            let config = (self.options.config)(&artifact.manifest.name);
            loaded.push((
                artifact.file.clone(),
                self.options.loader.load_artifact(&artifact, &config)?,
            ));
        }
        let manifests: Vec<_> = loaded.iter().map(|(_, plugin)| &plugin.manifest).collect();
        self.check_provided(&manifests)?;
        let mut state = self.state();
        for (_, plugin) in loaded {
            self.registry_mut().replace(plugin.info(), plugin.provided.clone())?;
            state.remember(&plugin);
        }
        Ok(())
    }

    /// What [`swap`](Self::swap) would do, without opening the file or changing anything.
    ///
    /// # Errors
    ///
    /// [`PluginsError`] for files that cannot be read or are no plugins.
    pub fn preview(&self, path: &Path, slot: Option<&str>) -> Result<Preview, PluginsError> {
        let artifact = Artifact::read(path)?;
        let manifest = &artifact.manifest;
        let slot = self.slot_of(&manifest.kind, slot.unwrap_or(&manifest.name));
        let before = self.filling(&manifest.kind, &slot).map(|(info, _)| info);
        Ok(Preview { artifact, slot, before })
    }

    /// Loads the plugin in a file and lets it fill a slot of its kind: the one that `slot` names,
    /// or the one of its own name. A set of one.
    ///
    /// # Errors
    ///
    /// As for [`swap_all`](Self::swap_all).
    pub fn swap(&self, path: &Path, slot: Option<&str>) -> Result<SwapReport, PluginsError> {
        self.swap_one(Member::File(&Artifact::read(path)?, slot))
    }

    /// The same for several files, each with the slot that it is to fill: a set.
    ///
    /// # Errors
    ///
    /// As for [`swap_all`](Self::swap_all).
    pub fn swap_files(
        &self,
        files: &[(PathBuf, Option<String>)],
    ) -> Result<Vec<SwapReport>, PluginsError> {
        let read = files.iter().map(|(path, slot)| Ok((Artifact::read(path)?, slot.as_deref())));
        let read = read.collect::<Result<Vec<_>, PluginsError>>()?;
        let set: Vec<_> =
            read.iter().map(|(artifact, slot)| Member::File(artifact, *slot)).collect();
        self.swap_all(&set)
    }

    /// Makes what fills a slot anew, with its configuration as it is. A set of one.
    ///
    /// # Errors
    ///
    /// As for [`swap_all`](Self::swap_all).
    pub fn configure(&self, kind: &str, slot: &str) -> Result<SwapReport, PluginsError> {
        self.swap_one(Member::Again { kind, slot })
    }

    fn swap_one(&self, member: Member<'_>) -> Result<SwapReport, PluginsError> {
        let report = self.swap_all(&[member])?.pop();
        Ok(report.expect("a set of one has one answer"))
    }

    /// Tells whoever listens of a hook that failed, and takes back a swap whose plugin failed within
    /// its probation. Where nothing can be taken back, says when to [`restart`](Self::restart) it.
    pub fn on_fault(&self, generation: &Arc<Generation>, error: &Error) -> Option<Restart> {
        let key = {
            let state = self.state();
            let mut loaded = state.loaded.iter();
            let failed = loaded.find(|loaded| Arc::ptr_eq(&loaded.generation, generation));
            // What other kinds fail with comes out of what they were asked for.
            if let Some(failed) = failed.filter(|l| l.manifest.kind == <dyn Hook>::NAME) {
                let (plugin, error) = (failed.manifest.name.clone(), error.clone());
                self.options.bus.report(HookFault { plugin, error });
            }
            let mut swaps = state.undo.iter();
            let swap = swaps.find(|(_, undo)| {
                std::ptr::eq(undo.generation.as_ptr(), Arc::as_ptr(generation))
                    && undo.at.elapsed() < self.options.probation
            });
            swap.map(|(key, _)| key.clone())
        };
        let label = generation.label();
        if let Some((kind, slot)) = key {
            match self.rollback(&kind, &slot) {
                Ok(_) => {
                    tracing::warn!("{kind} `{slot}`: {label} failed on probation: taken back");
                    return None;
                }
                Err(error) => tracing::warn!("{kind} `{slot}`: {label} failed, and stays: {error}"),
            }
        }
        self.schedule(generation)
    }

    /// What fills each slot of the engine.
    pub fn slots(&self) -> Vec<SlotStatus> {
        self.target().map_or_else(Vec::new, |target| target.slots())
    }

    /// Files that were loaded and of which something is left, oldest first.
    pub fn loaded(&self) -> Vec<LoadedStatus> {
        let mut state = self.state();
        state.forget();
        state.loaded.iter().map(Loaded::status).collect()
    }

    /// Native plugins that are mapped.
    pub fn native_mapped(&self) -> usize {
        native::mapped()
    }

    /// What plugins may take, and how to change that: see [`Loader::set_quotas`].
    pub fn loader(&self) -> &Loader {
        &self.options.loader
    }

    /// Who provides what.
    pub fn registry(&self) -> &RwLock<Registry> {
        &self.options.registry
    }

    /// What fills a slot, as the registry has it. Hooks fill slots of their own names.
    fn filling(&self, kind: &str, slot: &str) -> Option<Removed> {
        let slots = self.slots();
        let mut slots = slots.iter().filter(|status| status.kind == kind);
        let active = slots.find(|status| status.slot == slot);
        let name = active.map_or(slot, |status| status.active.name.as_str());
        let registry = self.options.registry.read().unwrap_or_else(PoisonError::into_inner);
        let mut entries = registry.iter();
        let (provided, info) = entries.find(|(p, _)| p.kind == kind && p.name == name)?;
        Some((info.clone(), vec![provided.clone()]))
    }

    /// The manifest of what was registered before.
    fn manifest_of(&self, state: &State, info: &PluginInfo, kind: &str) -> Option<PluginManifest> {
        let mut loaded = state.loaded.iter().rev();
        if let Some(loaded) = loaded.find(|l| l.info == *info && l.manifest.kind == kind) {
            return Some(loaded.manifest.clone());
        }
        let mut builtins = self.options.builtins.iter();
        builtins.find(|m| m.kind == kind && m.name == info.name).cloned()
    }

    /// Kinds of which an engine has one are slots of their own name.
    fn slot_of(&self, kind: &str, name: &str) -> String {
        let slots = self.slots();
        let mut of_kind = slots.iter().filter(|status| status.kind == kind);
        match (of_kind.next(), of_kind.next()) {
            (Some(only), None) if only.slot == kind => only.slot.clone(),
            _ => name.to_owned(),
        }
    }

    fn target(&self) -> Option<Arc<dyn SwapTarget>> {
        self.target.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn registry_mut(&self) -> std::sync::RwLockWriteGuard<'_, Registry> {
        self.options.registry.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Keeps a loaded file in the list.
    fn remember(&mut self, plugin: &LoadedPlugin) {
        self.forget();
        let Some(generation) = &plugin.generation else { return };
        self.loaded.push(Loaded {
            info: plugin.info(),
            manifest: plugin.manifest.clone(),
            generation: Arc::clone(generation),
        });
    }

    /// Drops what has given everything back.
    fn forget(&mut self) {
        self.loaded.retain(|loaded| {
            let stays = loaded.generation.fate() != Some(&Fate::Unloaded);
            loaded.is_held() || (loaded.info.lane == Lane::Native && stays)
        });
    }
}

impl Loaded {
    /// Whether anybody else has it: an instance, the registry, or a swap that can be taken back.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.generation) > 1
    }

    fn status(&self) -> LoadedStatus {
        let instances = self.generation.instances();
        let memory = match (instances, self.generation.fate()) {
            (0, _) if self.is_held() => "kept; no instance runs".to_owned(),
            (0, Some(Fate::Stays(reason))) => format!("retired; stays mapped: {reason}"),
            (0, _) => "retired; stays mapped, as native plugins do".to_owned(),
            _ => "in use".to_owned(),
        };
        let (info, kind) = (self.info.clone(), self.manifest.kind.clone());
        let calls = (self.info.lane == Lane::Wasm).then(|| self.generation.calls());
        let faults = self.generation.faults().0;
        LoadedStatus { info, kind, instances, calls, faults, memory }
    }
}
