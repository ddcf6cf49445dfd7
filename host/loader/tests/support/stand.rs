//! A board with one slot, and what stands around it.

#![allow(dead_code, reason = "each test uses a part")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use jackfield_loader::{
    Generation, Grants, LoadedPlugin, Loader, LoaderOptions, OnFault, Plugins, PluginsOptions,
    Services, Trial,
};
use jackfield_runtime::{
    Bus, Label, Reach, Registry, Replacement, SlotStatus, SwapError, SwapTarget, Swapped,
};
use plugin_api::kinds::logits_processor::LogitsRows;
use plugin_api::testing::rows::Rows;
use plugin_api::{Config, Error, Kind as _, LogitsProcessor};
use tempfile::TempDir;

/// Faults that were told of: whose, and the error.
pub(crate) type Faults = Arc<Mutex<Vec<(Arc<Generation>, String)>>>;

/// The options of a loader that works in `folder` and tries plugins with `trial`.
pub(crate) fn options(folder: &Path, trial: Option<Trial>) -> (LoaderOptions, Faults) {
    let services = Services::new();
    let faults = Faults::default();
    let told = Arc::clone(&faults);
    let on_fault: OnFault = Arc::new(move |generation, error| {
        let told = &mut told.lock().expect("nobody panics here");
        told.push((Arc::clone(generation), error.to_string()));
    });
    let options = LoaderOptions {
        folder: folder.to_owned(),
        trial,
        native_quota: 10_000,
        wasm: None,
        hashes: Default::default(),
        trusted: Vec::new(),
        unload: Vec::new(),
        host: Arc::new(move |manifest| services.host(&manifest.name, Grants::none())),
        on_fault,
    };
    (options, faults)
}

/// A trial by the program of this package, patient with a machine that is busy.
pub(crate) fn trial(program: &str) -> Trial {
    let mut trial = Trial::new(vec![program.into()]);
    trial.limit = Duration::from_secs(60);
    trial
}

/// An instance of what was loaded.
pub(crate) fn made(
    loaded: &LoadedPlugin,
    config: &Config,
) -> Result<Box<dyn LogitsProcessor>, Error> {
    let instance = (loaded.provided[0].make)(config)?;
    Ok(*instance.downcast::<Box<dyn LogitsProcessor>>().expect("the kind of its manifest"))
}

/// The first logit that a processor leaves of a row of ones.
pub(crate) fn answer(processor: &mut dyn LogitsProcessor) -> Result<f32, Error> {
    let mut rows = Rows::new(&[&[1.0, 1.0]]);
    processor.apply(&mut LogitsRows::new(&mut rows))?;
    Ok(rows.logits[0][0])
}

/// A board with its one slot.
pub(crate) struct Stand {
    pub(crate) folder: TempDir,
    pub(crate) plugins: Plugins,
    pub(crate) slot: Arc<Slot>,
    pub(crate) config: Arc<Mutex<Config>>,
    pub(crate) faults: Faults,
}

impl Stand {
    /// An empty board; `change` has the last word on how it loads.
    pub(crate) fn new(trial: Option<Trial>, change: impl FnOnce(&mut LoaderOptions)) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let (mut options, faults) = options(&folder.path().join("state"), trial);
        change(&mut options);
        let config = Arc::new(Mutex::new(Config::new()));
        let table = Arc::clone(&config);
        let plugins = Plugins::new(PluginsOptions {
            loader: Loader::new(options).expect("a loader"),
            registry: Arc::new(RwLock::new(Registry::new())),
            builtins: Vec::new(),
            bus: Bus::new(),
            config: Arc::new(move |_| table.lock().expect("nobody panics here").fresh()),
            probation: PROBATION,
            restart_pause_max: Duration::from_secs(60),
            wait: Duration::ZERO,
        });
        let slot = Arc::new(Slot::default());
        plugins.attach(Arc::clone(&slot) as Arc<dyn SwapTarget>);
        Self { folder, plugins, slot, config, faults }
    }

    /// A file in the folder of the board.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).expect("the folder takes files");
        path
    }

    /// Everything that the registry knows, as text.
    pub(crate) fn registered(&self) -> String {
        let registry = self.plugins.registry().read().expect("nobody panics here");
        let mut lines = registry.iter().map(|(provided, info)| format!("{provided:?} {info:?}\n"));
        lines.by_ref().collect()
    }

    /// Copies that were not removed.
    pub(crate) fn staged(&self) -> usize {
        super::process::count(&self.folder.path().join("state/stage"))
    }
}

/// One slot for a logits processor.
#[derive(Default)]
pub(crate) struct Slot {
    filled: Mutex<Option<(String, Box<dyn LogitsProcessor>)>>,
}

impl Slot {
    /// What the processor in the slot makes of a row of ones.
    pub(crate) fn answer(&self) -> Result<f32, Error> {
        let mut filled = self.filled.lock().expect("nobody panics here");
        answer(&mut *filled.as_mut().expect("something fills the slot").1)
    }
}

impl SwapTarget for Slot {
    fn swap_all(&self, set: Vec<Replacement>, _limit: Duration) -> Result<Vec<Swapped>, SwapError> {
        let mut swapped = Vec::new();
        for Replacement { slot, name, instance } in set {
            let wrong = |_| SwapError::WrongInstance { kind: slot.clone(), name: name.clone() };
            let instance = instance.downcast::<Box<dyn LogitsProcessor>>().map_err(wrong)?;
            let active = Label::first(&name);
            *self.filled.lock().expect("nobody panics here") = Some((name, *instance));
            let reach = Reach::NewRequests;
            swapped.push(Swapped { retired: None, active, reach, prepare_us: 0, wait_us: 0 });
        }
        Ok(swapped)
    }

    fn slots(&self) -> Vec<SlotStatus> {
        let filled = self.filled.lock().expect("nobody panics here");
        let status = |(name, _): &(String, Box<dyn LogitsProcessor>)| SlotStatus {
            kind: <dyn LogitsProcessor>::NAME.to_owned(),
            slot: name.clone(),
            active: Label::first(name),
            requests: 0,
            draining: Vec::new(),
            is_swapping: false,
        };
        filled.iter().map(status).collect()
    }
}

/// No test lasts longer.
const PROBATION: Duration = Duration::from_secs(3600);
