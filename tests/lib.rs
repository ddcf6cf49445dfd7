//! What the tests of more than one crate share: where things are, and engines made of them.

pub mod chat;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jackfield::BuildLane;
use jackfield_engine::model::LoadOptions;
use jackfield_engine::{Engine, EngineError, Wiring};
use jackfield_loader::{Grants, LoadedPlugin, Loader, LoaderOptions, Services};
use jackfield_runtime::{Bus, Registry, SystemClock};
use plugin_api::events::Subscriptions;
use plugin_api::{Config, Hook, Host};
use tempfile::TempDir;

/// The part `q` of a list, from 0 for its least to 1 for its greatest number.
///
/// # Panics
///
/// If the list is empty.
pub fn quantile(list: &[f64], q: f64) -> f64 {
    let mut sorted = list.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * q) as usize]
}

/// The root of the project.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// A file of the golden vectors.
pub fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(name)
}

/// A tiny seeded model of the golden vectors, laid out as a model folder.
///
/// # Panics
///
/// If the files are not there.
pub fn tiny_model(name: &str) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let own = format!("{name}.safetensors");
    // Some are `tiny` with other hyperparameters.
    let weights = if golden(&own).exists() { own } else { "tiny.safetensors".to_owned() };
    for (from, to) in [
        (format!("{name}.config.json"), "config.json"),
        (weights, "model.safetensors"),
        ("tiny.tokenizer.json".to_owned(), "tokenizer.json"),
    ] {
        fs::copy(golden(&from), folder.path().join(to)).expect(&from);
    }
    folder
}

/// The tiny seeded BERT of the golden vectors, laid out as a model folder.
///
/// # Panics
///
/// If the files are not there.
pub fn tiny_encoder() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    for (from, to) in [
        ("tiny_bert.config.json", "config.json"),
        ("tiny_bert.safetensors", "model.safetensors"),
        ("tiny_bert.tokenizer.json", "tokenizer.json"),
    ] {
        fs::copy(golden(from), folder.path().join(to)).expect(from);
    }
    folder
}

/// A real model in the folder that `JACKFIELD_MODELS` names; nothing, with the reason printed, if
/// it is not there.
#[allow(clippy::print_stderr, reason = "a skipped test says why")]
pub fn real_model(name: &str, file: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("JACKFIELD_MODELS").map(PathBuf::from);
    let candidates = folder.iter().flat_map(|f| [f.join(name).join(file), f.join(file)]);
    let found = candidates.into_iter().find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIP {name}: {file} is not in JACKFIELD_MODELS; `jackfield model pull {name}`");
    }
    found
}

/// A plugin of this tree as a component, loaded; `state` is the folder for its file
/// and what the lane keeps.
///
/// # Panics
///
/// If it cannot be built or loaded, and whenever it fails.
pub fn component(state: &Path, plugin: &str) -> LoadedPlugin {
    built(state, plugin, BuildLane::Wasm)
}

/// A plugin of this tree as a file of a lane, loaded.
///
/// # Panics
///
/// If it cannot be built or loaded, and whenever it fails.
pub fn built(state: &Path, plugin: &str, lane: BuildLane) -> LoadedPlugin {
    let source = root().join("plugins").join(plugin);
    built_from(state, &source, lane, |error| panic!("{error}"))
}

/// The plugin in a folder as a component, loaded; `on_fault` is told what it fails with.
///
/// # Panics
///
/// If it cannot be built or loaded.
pub fn component_of(
    state: &Path,
    source: &Path,
    on_fault: impl Fn(&str) + Send + Sync + 'static,
) -> LoadedPlugin {
    built_from(state, source, BuildLane::Wasm, on_fault)
}

fn built_from(
    state: &Path,
    source: &Path,
    lane: BuildLane,
    on_fault: impl Fn(&str) + Send + Sync + 'static,
) -> LoadedPlugin {
    let name = source.file_name().unwrap_or_default().to_string_lossy();
    let extension = if lane == BuildLane::Wasm { "wasm" } else { "so" };
    let file = state.join(format!("{name}.{extension}"));
    jackfield::build_plugin(source, lane, Some(&file)).expect("it builds");
    let services = Services::new();
    let loader = Loader::new(LoaderOptions {
        folder: state.to_owned(),
        trial: None,
        native_quota: 64,
        wasm: None,
        hashes: Default::default(),
        trusted: Vec::new(),
        unload: Vec::new(),
        host: Arc::new(move |manifest| services.host(&manifest.name, Grants::none())),
        on_fault: Arc::new(move |generation, error| {
            on_fault(&format!("{}: {error}", generation.label()));
        }),
    });
    loader.expect("a loader").load(&file, &Config::new()).expect("a fair plugin")
}

/// An engine with parts to choose.
pub struct Setup {
    /// Every builtin plugin, and what a test adds.
    pub registry: Registry,
    /// Which of them run.
    pub wiring: Wiring,
    /// Where hooks listen.
    pub bus: Bus,
    /// Sizes.
    pub options: LoadOptions,
}

impl Setup {
    /// The default plugins with this backend.
    ///
    /// # Panics
    ///
    /// If the builtin plugins cannot be loaded.
    pub fn new(backend: &str) -> Self {
        let registry = jackfield::load_registry().expect("builtin plugins load");
        let mut wiring = Wiring::from_config(&Config::new()).expect("defaults are right");
        wiring.choose("backend", backend);
        let services = Services::new();
        wiring.lend(move |plugin, tokens| {
            services.host_beside(plugin, Grants::for_builtin(), tokens)
        });
        Self { registry, wiring, bus: Bus::new(), options: LoadOptions::default() }
    }

    /// The same with another plugin for a kind.
    #[must_use]
    pub fn with(mut self, kind: &str, name: &str) -> Self {
        self.wiring.choose(kind, name);
        self
    }

    /// The same with a value in a plugin's table.
    #[must_use]
    pub fn set(mut self, plugin: &str, key: &str, value: impl Into<plugin_api::Value>) -> Self {
        self.wiring.table_mut(plugin).set(key, value);
        self
    }

    /// Subscribes the hooks of the wiring, without any grants.
    ///
    /// # Panics
    ///
    /// If a hook refuses.
    pub fn subscribe_hooks(&self, host: impl Fn(&str) -> Host) {
        let hooks = self.wiring.make_all::<dyn Hook>(&self.registry).expect("hooks are made");
        for (name, hook) in hooks {
            let mut on = Subscriptions::new();
            hook.subscribe(&mut on).expect("hooks subscribe");
            self.bus.subscribe(&host(&name), on);
        }
    }

    /// Loads a model.
    ///
    /// # Errors
    ///
    /// What [`Engine::load`] returns.
    pub fn load(&self, model: &Path) -> Result<Engine, EngineError> {
        let clock = Arc::new(SystemClock::new());
        let (wiring, registry, bus) = (&self.wiring, &self.registry, &self.bus);
        Engine::load(model, wiring, registry, bus, clock, &self.options, &mut |_, _| {})
    }
}

/// The answer to a request: text and tokens.
///
/// # Panics
///
/// If the engine fails.
pub fn answer(engine: &mut Engine, request: jackfield_engine::Request) -> (String, Vec<u32>) {
    let (mut text, mut tokens) = (String::new(), Vec::new());
    engine.submit(request).expect("the request is taken");
    let result = engine.run_to_end(&mut |output| match output {
        jackfield_engine::Output::Token { token, .. } => tokens.push(token),
        jackfield_engine::Output::Finished { answer, error, .. } => {
            assert_eq!(error, None);
            answer.clone_into(&mut text);
        }
    });
    result.expect("steps run");
    (text, tokens)
}
