//! Under fire with plugin files: each swap loads a file anew, shared libraries until as many are
//! mapped as may be, components between them.

use std::any::Any;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jackfield::BuildLane;
use jackfield_loader::{Grants, LoadError, Loader, LoaderOptions, Services};
use jackfield_tests::root;
use plugin_api::{Config, Provided};

/// Shared libraries that may be mapped at a time.
const NATIVE_QUOTA: usize = 1024;
/// Kinds whose plugins are components every other time.
const IN_BOTH_LANES: [&str; 4] =
    ["logits-processor", "decoding-strategy", "rotary-embedding", "scheduler"];
/// Plugins of those kinds that need the tokens of the model, which components are not lent.
const NEVER_COMPONENTS: [&str; 2] = ["self-consistency", "chain-of-thought"];

/// Builds of in-tree plugins, and what was last loaded of each.
pub(super) struct Files {
    folder: PathBuf,
    loader: Loader,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    loads: usize,
    /// How often each plugin was asked for.
    times: BTreeMap<String, usize>,
    /// Loads that the quota refused.
    refused: usize,
    last: BTreeMap<PathBuf, Provided>,
}

impl Files {
    pub(super) fn new(folder: &Path) -> Self {
        let services = Services::new();
        let options = LoaderOptions {
            folder: folder.to_owned(),
            // What is tried in a child is tried by other tests: here it is speed that counts.
            trial: None,
            native_quota: NATIVE_QUOTA,
            wasm: None,
            hashes: Default::default(),
            trusted: Vec::new(),
            unload: Vec::new(),
            host: Arc::new(move |manifest| services.host(&manifest.name, Grants::none())),
            on_fault: Arc::new(|generation, error| panic!("{}: {error}", generation.label())),
        };
        let (folder, loader) = (folder.to_owned(), Loader::new(options).unwrap());
        Self { folder, loader, state: Mutex::default() }
    }

    /// An instance of the plugin called `name`, out of a file that is loaded for it.
    pub(super) fn make(&self, kind: &str, name: &str) -> Box<dyn Any + Send> {
        let mut state = self.state.lock().unwrap();
        state.loads += 1;
        let times = state.times.entry(format!("{kind}/{name}")).or_default();
        *times += 1;
        let may_be_wasm = IN_BOTH_LANES.contains(&kind) && !NEVER_COMPONENTS.contains(&name);
        let is_wasm = times.is_multiple_of(2) && may_be_wasm;
        let (lane, ending) =
            if is_wasm { (BuildLane::Wasm, "wasm") } else { (BuildLane::Native, "so") };
        let file = self.folder.join(format!("{kind}-{name}.{ending}"));
        if !file.is_file() {
            let source = match kind {
                "backend" => root().join("backends").join(name),
                _ => root().join("plugins").join(kind).join(name),
            };
            jackfield::build_plugin(&source, lane, Some(&file)).unwrap();
        }
        match self.loader.load(&file, &Config::new()) {
            Ok(mut plugin) => {
                state.last.insert(file.clone(), plugin.provided.remove(0));
            }
            Err(LoadError::Quota { .. }) => state.refused += 1,
            Err(error) => panic!("{error}"),
        }
        (state.last[&file].make)(&Config::new()).unwrap()
    }

    /// Loads that were asked for, and those that the quota refused.
    pub(super) fn loads(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.loads, state.refused)
    }
}
