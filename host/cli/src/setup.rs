//! What every command needs: configuration, plugins, services, and the engine on request.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use anyhow::{Context, Result, bail};
use jackfield_engine::model::LoadOptions;
use jackfield_engine::{Engine, Wiring};
use jackfield_loader::{ConfigFile, LoadedPlugin, Plugins, load_builtins};
use jackfield_runtime::{Bus, Registry, SystemClock};
use plugin_api::events::Subscriptions;
use plugin_api::{Config, Hook, Host, Kind, ModelSource};

use crate::args::Common;
use crate::board::{self, LoadTable};
use crate::exchange;
use crate::folders::{cache_folder, config_path};
use crate::hosts::Hosts;
use crate::live_config::{LiveConfig, configured};
use crate::memory;
use crate::progress::Bar;

/// Configuration and plugins, with the flags of the command line applied.
pub(crate) struct Session {
    pub(crate) file: Option<ConfigFile>,
    pub(crate) config: Config,
    pub(crate) wiring: Wiring,
    /// What is linked in.
    pub(crate) builtins: Vec<LoadedPlugin>,
    /// What comes from files, and how to change it.
    pub(crate) plugins: Arc<Plugins>,
    pub(crate) load: LoadTable,
    pub(crate) live: Arc<LiveConfig>,
    pub(crate) bus: Bus,
    pub(crate) models_folder: PathBuf,
    pub(crate) is_json: bool,
    registry: Arc<RwLock<Registry>>,
    hosts: Arc<Hosts>,
}

/// A model source with its name and its handle on the host.
pub(crate) type Source = (String, Box<dyn ModelSource>, Host);

/// The model where none is named: small, free, and good enough to try things.
const DEFAULT_MODEL: &str = "SmolLM2-135M-Instruct";

impl Session {
    /// Reads the configuration and registers every plugin.
    pub(crate) fn open(common: &Common) -> Result<Self> {
        let path = config_path(common);
        let file = path.as_deref().map(ConfigFile::read).transpose()?;
        let written = file.as_ref().map_or_else(Config::new, |file| file.config().clone());
        let (config, mut wiring) = configured(&written, common)?;
        let models_folder = match &common.models_folder {
            Some(folder) => folder.clone(),
            None => match config.text("models_folder") {
                Ok(folder) => PathBuf::from(folder),
                Err(_) => cache_folder()?.join("models"),
            },
        };
        let (builtins, registry) = load_plugins()?;
        let registry = Arc::new(RwLock::new(registry));
        // Whole, as the system names files that change.
        let whole = path.as_deref().map(std::path::absolute).transpose()?;
        let here = whole.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let load = LoadTable::read(&config, here)?;
        let hosts = Arc::new(Hosts {
            config: config.clone(),
            services: memory::services(&config)?,
            models_folder: models_folder.clone(),
        });
        wiring.lend(hosts.lender(&builtins));
        let (bus, is_json) = (Bus::new(), common.json);
        let live =
            Arc::new(LiveConfig::new(whole.clone(), common.clone(), &written, &wiring, &load)?);
        let (tables, grants) = (Arc::clone(&live), Arc::clone(&hosts));
        let parts = board::Parts {
            registry: Arc::clone(&registry),
            builtins: builtins.iter().map(|plugin| plugin.manifest.clone()).collect(),
            bus: bus.clone(),
            config: Arc::new(move |name| tables.table(name)),
            host: Arc::new(move |manifest| grants.of_file(manifest)),
        };
        let plugins = board::open(&load, cache_folder()?, parts)?;
        Ok(Self {
            file,
            config,
            wiring,
            builtins,
            plugins,
            load,
            live,
            bus,
            models_folder,
            is_json,
            registry,
            hosts,
        })
    }

    /// The same, for other threads.
    pub(crate) fn shared_registry(&self) -> Arc<RwLock<Registry>> {
        Arc::clone(&self.registry)
    }

    /// Who provides what.
    pub(crate) fn registry(&self) -> RwLockReadGuard<'_, Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host handle of a plugin, with what the configuration grants it.
    pub(crate) fn host_of(&self, plugin: &str, model: Option<&Path>) -> Result<Host> {
        let manifest = self.builtins.iter().map(|p| &p.manifest).find(|m| m.name == plugin);
        self.hosts.of(plugin, manifest, model)
    }

    /// Subscribes the configured hooks.
    pub(crate) fn subscribe_hooks(&self) -> Result<()> {
        for (name, hook) in self.wiring.make_all::<dyn Hook>(&self.registry())? {
            let mut on = Subscriptions::new();
            hook.subscribe(&mut on).with_context(|| format!("hook `{name}`"))?;
            self.bus.subscribe(&self.host_of(&name, None)?, on);
        }
        Ok(())
    }

    /// The name of the model to work with.
    pub(crate) fn model_name(&self) -> Result<String> {
        Ok(self.config.text_or("model", DEFAULT_MODEL)?.to_owned())
    }

    /// The name of a model beside it, if there is to be one: `embedding_model`, `draft_model` or `precise_model`.
    pub(crate) fn other_model(&self, key: &str) -> Result<Option<String>> {
        Ok(self.config.has(key).then(|| self.config.text(key)).transpose()?.map(str::to_owned))
    }

    /// The model sources in the order they are asked, each with its host handle.
    pub(crate) fn sources(&self, model: &str) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        for name in self.wiring.names(<dyn ModelSource>::NAME) {
            let source = self.wiring.make::<dyn ModelSource>(&self.registry(), &name)?;
            let host = self.host_of(&name, Some(Path::new(model)))?;
            sources.push((name, source, host));
        }
        Ok(sources)
    }

    /// Brings a model onto this machine and returns its file or folder.
    pub(crate) fn fetch(&self, model: &str) -> Result<PathBuf> {
        let sources = self.sources(model)?;
        for (name, source, host) in &sources {
            let Some(entry) = source.resolve(model, host)? else { continue };
            let mut bar = Bar::bytes(self.is_json);
            let path = source
                .fetch(
                    &entry,
                    &self.models_folder,
                    &mut |p| bar.show(p.stage, p.done, p.total),
                    host,
                )
                .with_context(|| format!("model `{model}` from source `{name}`"))?;
            bar.clear();
            return Ok(path);
        }
        let known: Vec<String> =
            sources.iter().flat_map(|(_, source, _)| source.list()).map(|e| e.name).collect();
        bail!(
            "model `{model}`: expected a file, a user/repo of a hub, or one of {}; found no source \
             that knows it",
            known.join(", ")
        );
    }

    /// Sizes from the table `engine` of the configuration.
    pub(crate) fn load_options(&self) -> Result<LoadOptions> {
        let mut options = LoadOptions::default();
        if let Some(table) = self.config.table("engine")? {
            let size = |key, default: usize, max| {
                table.count_or(key, default as u64, 1..=max).map(|n| n as usize)
            };
            options.tokens_per_step_max =
                size("tokens_per_step", options.tokens_per_step_max, 1 << 16)?;
            options.num_seqs_max = size("num_seqs", options.num_seqs_max, 4096)?;
            options.logit_rows_max = size("logit_rows", options.num_seqs_max, 4096)?;
            options.context_length_max =
                size("context_length", options.context_length_max, 1 << 24)?;
            options.convert_bytes_per_step =
                table.count_or("convert_kib_per_step", 1024, 1..=1 << 30)? << 10;
            options.state_bytes_max = table.count_or("kv_memory_mib", 1024, 1..=1 << 20)? << 20;
            options.adapter = exchange::adapter(table)?;
        }
        Ok(options)
    }

    /// Fetches the model if need be, and those beside it, and loads it with its plugins.
    pub(crate) fn engine(&self, options: &LoadOptions) -> Result<Engine> {
        // A misspelt plugin is found before anything is fetched.
        self.wiring.check(&self.registry())?;
        let path = self.fetch(&self.model_name()?)?;
        let draft = self.other_model("draft_model")?;
        let draft_model = draft.map(|name| self.fetch(&name)).transpose()?;
        let precise = options.precise.clone();
        let precise = precise.map_or_else(|| exchange::precise(self), |there| Ok(Some(there)))?;
        self.engine_of(&path, &LoadOptions { draft_model, precise, ..options.clone() })
    }

    /// Loads the model at a path with its plugins.
    pub(crate) fn engine_of(&self, path: &Path, options: &LoadOptions) -> Result<Engine> {
        self.wiring.check(&self.registry())?;
        self.subscribe_hooks()?;
        let mut bar = Bar::elements(self.is_json);
        let (wiring, registry, bus) = (&self.wiring, &self.registry(), &self.bus);
        let clock = Arc::new(SystemClock::new());
        let mut tell = |done, total| bar.show("loading", done, Some(total));
        let engine = Engine::load(path, wiring, registry, bus, clock, options, &mut tell)?;
        bar.clear();
        self.plugins.attach(Arc::new(engine.swapper()));
        self.plugins.check()?;
        Ok(engine)
    }
}

/// A registry of every builtin plugin.
///
/// # Errors
///
/// What a plugin's manifest has wrong.
///
/// # Panics
///
/// If the linker dropped a plugin that is listed.
pub fn load_registry() -> Result<Registry> {
    Ok(load_plugins()?.1)
}

fn load_plugins() -> Result<(Vec<LoadedPlugin>, Registry)> {
    let plugins = load_builtins()?;
    assert!(
        plugins.len() >= crate::builtins::LISTED,
        "{} builtin plugins are listed, {} are linked: the linker dropped some",
        crate::builtins::LISTED,
        plugins.len(),
    );
    let mut registry = Registry::new();
    for plugin in &plugins {
        registry.add(plugin.info(), plugin.provided.clone())?;
    }
    Ok((plugins, registry))
}
