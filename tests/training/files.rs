//! Parts of a run that are replaced by files while it goes on: a rebuilt optimizer and schedule as shared
//! libraries, a hook as a component.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use jackfield::BuildLane;
use jackfield_loader::{Grants, Loader, LoaderOptions, Plugins, PluginsOptions, Services};
use jackfield_tests::{Setup, root};
use plugin_api::Config;

use crate::{batches, loader, setup, trainer};

/// Before this step a file is swapped in.
const AT: usize = 3;
const STEPS: usize = 7;

/// The plugin of the tree in a workspace of its own, `from` in its source written as `to`, built.
fn rebuilt(folder: &Path, plugin: &str, lane: BuildLane, [from, to]: [&str; 2]) -> PathBuf {
    let (source, copy) = (root().join("plugins").join(plugin), folder.join(plugin));
    let name = source.file_name().unwrap().to_string_lossy().into_owned();
    fs::create_dir_all(copy.join("src")).unwrap();
    fs::copy(source.join("plugin.toml"), copy.join("plugin.toml")).unwrap();
    fs::copy(root().join("Cargo.lock"), copy.join("Cargo.lock")).unwrap();
    let code = fs::read_to_string(source.join("src/lib.rs")).unwrap();
    assert!(code.contains(from), "{plugin} has no `{from}`");
    fs::write(copy.join("src/lib.rs"), code.replacen(from, to, 1)).unwrap();
    let api = root().join("plugin-api");
    let manifest = format!(
        "[package]\nname = \"plugin-{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n\
         [dependencies]\nplugin-api = {{ path = {api:?} }}\n"
    );
    fs::write(copy.join("Cargo.toml"), manifest).unwrap();
    let ending = if lane == BuildLane::Native { "so" } else { "wasm" };
    let file = folder.join(format!("{name}.{ending}"));
    jackfield::build_plugin(&copy, lane, Some(&file)).unwrap()
}

/// A board for the run: what `jackfield train` attaches its swapper to.
fn board(setup: &Setup, folder: &Path) -> Plugins {
    let services = Services::new();
    let loader = Loader::new(LoaderOptions {
        folder: folder.join("state"),
        trial: None,
        native_quota: 8,
        wasm: None,
        hashes: Default::default(),
        trusted: Vec::new(),
        unload: Vec::new(),
        host: Arc::new(move |manifest| services.host(&manifest.name, Grants::none())),
        on_fault: Arc::new(|generation, error| panic!("{}: {error}", generation.label())),
    });
    Plugins::new(PluginsOptions {
        loader: loader.unwrap(),
        registry: Arc::new(RwLock::new(jackfield::load_registry().unwrap())),
        builtins: Vec::new(),
        bus: setup.bus.clone(),
        config: Arc::new(|_| Config::new()),
        probation: Duration::ZERO,
        restart_pause_max: Duration::ZERO,
        // The step that would take it in is run by the same thread.
        wait: Duration::ZERO,
    })
}

/// The losses of a run into which `file` is swapped before step [`AT`].
fn losses(folder: &Path, file: Option<&Path>) -> Vec<f64> {
    let setup = setup("cpu");
    let (mut trainer, mut text) = (trainer(&setup), loader());
    let plugins = board(&setup, folder);
    plugins.attach(Arc::new(trainer.swapper(&setup.bus)));
    let step = |step| {
        if let (AT, Some(file)) = (step, file) {
            plugins.swap(file, None).unwrap_or_else(|error| panic!("{error}"));
        }
        trainer.step(&batches(&mut text)).unwrap().loss
    };
    (0..STEPS).map(step).collect()
}

#[test]
fn a_file_is_seen_from_the_step_after_its_swap_on() {
    let folder = tempfile::tempdir().unwrap();
    let whole = losses(folder.path(), None);
    #[rustfmt::skip]
    let cases = [
        // plugin                lane               what is changed                                        is it seen
        ("optimizer/adamw",      BuildLane::Native, ["weight_decay\", 0.01", "weight_decay\", 0.01"],        false),
        ("optimizer/adamw",      BuildLane::Native, ["weight_decay\", 0.01", "weight_decay\", 0.9"],         true),
        ("lr-schedule/constant", BuildLane::Native, ["", ""],                                              true),
        ("hook/grad-clip",       BuildLane::Wasm,   ["\"max_norm\", 1.0", "\"max_norm\", 1e-3"],             true),
    ];
    for (plugin, lane, change, is_seen) in cases {
        let file = rebuilt(folder.path(), plugin, lane, change);
        let found = losses(folder.path(), Some(&file));
        if !is_seen {
            assert_eq!(found, whole, "{plugin}: states are handed over, and not a bit changes");
            continue;
        }
        // The update of that step is another, which the loss of the next one shows.
        assert_eq!(found[..=AT], whole[..=AT], "{plugin}");
        let mut later = found[AT + 1..].iter().zip(&whole[AT + 1..]);
        assert!(later.all(|(a, b)| a != b), "{plugin}: {found:?} {whole:?}");
    }
}
