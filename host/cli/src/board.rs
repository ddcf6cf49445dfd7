//! Plugin files: what the table `load` of the configuration asks for, and how it is kept up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, RwLock, Weak};
use std::time::Duration;

use anyhow::{Context as _, Result};
use jackfield_loader::plugins::{Plugins, Restart};
use jackfield_loader::{
    Artifact, Generation, Loader, LoaderOptions, Member, PluginManifest, PluginsOptions, Quotas,
    Trial, WasmOptions, Watch, loader::NATIVE_QUOTA,
};
use jackfield_runtime::{Bus, Registry};
use plugin_api::{Config, Host, Value};

use crate::control::Server;
use crate::live_config::LiveConfig;
use crate::setup::Session;

/// What is read of the table `load`.
pub(crate) struct LoadTable {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    trusted: Vec<String>,
    unload: Vec<String>,
    hashes: BTreeMap<String, String>,
    quotas: Quotas,
    probation: Duration,
    restart_pause_max: Duration,
    is_watching: bool,
}

impl LoadTable {
    /// Reads `[load]`; relative paths start at `base`, the configuration file's folder.
    pub(crate) fn read(config: &Config, base: &Path) -> Result<Self> {
        let none = Config::at("load");
        let table = config.table("load")?.unwrap_or(&none);
        let paths = |key| -> Result<Vec<PathBuf>> {
            Ok(texts(table, key)?.into_iter().map(|path| base.join(path)).collect())
        };
        let mut hashes = BTreeMap::new();
        if let Some(pinned) = table.table("sha256")? {
            for name in pinned.keys() {
                hashes.insert(name.to_owned(), pinned.text(name)?.to_owned());
            }
        }
        let wasm = WasmOptions::new("");
        let ms = |key, or: Duration| {
            let ms = table.count_or(key, or.as_millis() as u64, 1..=86_400_000);
            ms.map(Duration::from_millis)
        };
        let quotas = Quotas {
            native_mapped: table.count_or("quota", NATIVE_QUOTA as u64, 0..=16_000)? as usize,
            memory_bytes: (table.count_or("wasm_memory_mib", 256, 1..=4096)? as usize) << 20,
            call: ms("wasm_call_ms", wasm.call_limit)?,
            create: ms("wasm_create_ms", wasm.create_limit)?,
            fetch: ms("wasm_fetch_ms", wasm.fetch_limit)?,
            instances: table.count_or("wasm_instances", 128, 1..=4096)? as usize,
        };
        let seconds = |key| table.count_or(key, 60, 0..=86_400).map(Duration::from_secs);
        Ok(Self {
            files: paths("files")?,
            folders: paths("folders")?,
            trusted: texts(table, "trusted")?,
            unload: texts(table, "unload")?,
            hashes,
            quotas,
            probation: seconds("probation_seconds")?,
            restart_pause_max: seconds("restart_pause_seconds")?,
            is_watching: table.flag_or("watch", true)?,
        })
    }

    /// What plugins may take.
    pub(crate) fn quotas(&self) -> Quotas {
        self.quotas
    }

    /// Every plugin file that is asked for, in the order of the configuration.
    pub(crate) fn paths(&self) -> Result<Vec<PathBuf>> {
        let mut paths = self.files.clone();
        for folder in &self.folders {
            let entries = folder.read_dir().with_context(|| {
                format!("load.folders: {}: expected a folder", folder.display())
            })?;
            let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            found.retain(|path| is_plugin_file(path));
            found.sort();
            paths.append(&mut found);
        }
        Ok(paths)
    }
}

fn texts(table: &Config, key: &str) -> Result<Vec<String>> {
    let texts = table.list(key)?.iter().map(|value| match value {
        Value::Text(text) => Ok(text.clone()),
        other => Err(table.wrong(key, "a list of text", Some(other))),
    });
    Ok(texts.collect::<plugin_api::Result<_>>()?)
}

fn is_plugin_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "so" || extension == "wasm")
}

/// What the board needs of a session.
pub(crate) struct Parts {
    pub(crate) registry: Arc<RwLock<Registry>>,
    pub(crate) builtins: Vec<PluginManifest>,
    pub(crate) bus: Bus,
    pub(crate) config: Arc<dyn Fn(&str) -> Config + Send + Sync>,
    pub(crate) host: Arc<dyn Fn(&PluginManifest) -> Host + Send + Sync>,
}

/// Loads the plugin files of the configuration and keeps a board for them.
pub(crate) fn open(table: &LoadTable, folder: PathBuf, parts: Parts) -> Result<Arc<Plugins>> {
    let board: Arc<OnceLock<Weak<Plugins>>> = Arc::default();
    let told = Arc::clone(&board);
    // A fault is told from the step thread: what follows from it happens elsewhere.
    let faults = jackfield_runtime::Backstage::start("plugin faults");
    let on_fault = Arc::new(move |generation: &Arc<Generation>, error: &plugin_api::Error| {
        let (told, generation, error) = (Arc::clone(&told), Arc::clone(generation), error.clone());
        faults.run(move || {
            let Some(board) = told.get() else { return };
            let restart = board.upgrade().and_then(|board| board.on_fault(&generation, &error));
            if let Some(restart) = restart {
                restart_later(Weak::clone(board), restart);
            }
        });
    });
    let program = std::env::current_exe().context("the path of this program")?;
    let trial = Trial::new(vec![program.into(), "plugin".into(), "trial".into()]);
    let Quotas { memory_bytes, call, create, fetch, instances, native_mapped } = table.quotas;
    let wasm = WasmOptions {
        cache_folder: folder.join("wasm"),
        memory_bytes_max: memory_bytes,
        call_limit: call,
        create_limit: create,
        fetch_limit: fetch,
        instances_max: instances,
    };
    let loader = Loader::new(LoaderOptions {
        folder,
        trial: Some(trial),
        native_quota: native_mapped,
        wasm: Some(wasm),
        hashes: table.hashes.clone(),
        trusted: table.trusted.clone(),
        unload: table.unload.clone(),
        host: parts.host,
        on_fault,
    })?;
    let plugins = Arc::new(Plugins::new(PluginsOptions {
        loader,
        registry: parts.registry,
        builtins: parts.builtins,
        bus: parts.bus,
        config: parts.config,
        probation: table.probation,
        restart_pause_max: table.restart_pause_max,
        wait: Duration::from_secs(2),
    }));
    let _ = board.set(Arc::downgrade(&plugins));
    plugins.load_files(&table.paths()?)?;
    Ok(plugins)
}

/// Fills a slot anew after its pause, again and again until it lasts. A thread that waits for each: one
/// slot has one restart at a time.
fn restart_later(plugins: Weak<Plugins>, restart: Restart) {
    let wait = move || {
        let mut next = Some(restart);
        while let Some(restart) = next {
            std::thread::sleep(restart.pause);
            next = plugins.upgrade().and_then(|plugins| plugins.restart(&restart));
        }
    };
    if let Err(error) = std::thread::Builder::new().name("restart".to_owned()).spawn(wait) {
        tracing::warn!("no thread to start a plugin again: {error}");
    }
}

/// Swaps in plugin files that change while the process runs, and applies a changed configuration.
fn watch(
    table: &LoadTable,
    live: &Arc<LiveConfig>,
    plugins: &Arc<Plugins>,
) -> Result<Option<Watch>> {
    let config = live.path().map(Path::to_owned);
    let parents = table.files.iter().chain(&config).filter_map(|file| file.parent());
    let mut folders: Vec<_> =
        table.folders.iter().cloned().chain(parents.map(Path::to_owned)).collect();
    folders.sort();
    folders.dedup();
    if !table.is_watching || folders.is_empty() {
        return Ok(None);
    }
    let (files, inside, own) = (table.files.clone(), table.folders.clone(), config.clone());
    let concerns = move |path: &Path| {
        let is_inside = path.parent().is_some_and(|parent| inside.iter().any(|f| f == parent));
        let is_listed = files.iter().chain(&own).any(|file| file == path);
        is_listed || (is_inside && is_plugin_file(path))
    };
    let (plugins, live) = (Arc::clone(plugins), Arc::clone(live));
    let swap = |plugins: &Plugins, path: &Path, bytes: Vec<u8>| {
        plugins.swap_all(&[Member::File(&Artifact::from_bytes(path, bytes)?, None)])
    };
    let changed = move |path: &Path, bytes: Vec<u8>| {
        if config.as_deref() == Some(path) {
            if let Err(error) = live.apply(&bytes, &plugins) {
                tracing::warn!("changed, and not applied: {error:#}");
            }
            return;
        }
        match swap(&plugins, path, bytes) {
            Ok(reports) => reports.iter().for_each(|report| {
                tracing::warn!("{}: swapped in as {}", path.display(), report.slot);
            }),
            Err(error) => tracing::warn!("changed, and not swapped in: {error}"),
        }
    };
    Ok(Some(Watch::start(&folders, concerns, changed)?))
}

/// Orders are taken for as long as this lives.
pub(crate) struct Orders {
    _server: Option<Server>,
    _watch: Option<Watch>,
}

/// Takes orders about plugins on a local socket, and watches plugin folders and the configuration,
/// until what is returned is dropped. Where that is not possible, everything else goes on without.
pub(crate) fn take_orders(session: &Session) -> Orders {
    let Session { load, live, plugins, .. } = session;
    let server = Server::start(Arc::clone(plugins))
        .inspect_err(|error| tracing::warn!("no orders are taken: {error:#}"));
    let watch = watch(load, live, plugins)
        .inspect_err(|error| tracing::warn!("plugin files are not watched: {error:#}"));
    Orders { _server: server.ok(), _watch: watch.ok().flatten() }
}
