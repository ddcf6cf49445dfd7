//! A configuration file that changes while the process runs.
//!
//! What a change says of plugins is applied at once: another table of a plugin makes a new instance
//! of it, a new plugin file is loaded, and all that one save changes is one set. What it says of the
//! rest takes effect at the next start. A file with a mistake changes no plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, PoisonError, RwLock};

use anyhow::{Context as _, Result};
use jackfield_engine::Wiring;
use jackfield_engine::model::adapter;
use jackfield_loader::{Artifact, ConfigFile, Member, Plugins, Quotas, SwapReport};
use jackfield_runtime::SlotStatus;
use plugin_api::Config;

use crate::args::Common;
use crate::board::LoadTable;
use crate::changed_keys::changed_keys;

/// The configuration as it is.
pub(crate) struct LiveConfig {
    path: Option<PathBuf>,
    common: Common,
    state: RwLock<State>,
    /// Who else wants to know.
    listener: OnceLock<Listener>,
}

/// Applies what a configuration, whose relative paths start at the folder, says of something else.
type Listener = Box<dyn Fn(&Config, &Path) -> Result<()> + Send + Sync>;

struct State {
    /// As the file has it.
    config: Config,
    /// The tables of plugins, with what the command line adds.
    tables: BTreeMap<String, Config>,
    /// Plugin files that were asked for.
    files: BTreeSet<PathBuf>,
    /// What plugins may take.
    quotas: Quotas,
}

impl LiveConfig {
    pub(crate) fn new(
        path: Option<PathBuf>,
        common: Common,
        config: &Config,
        wiring: &Wiring,
        load: &LoadTable,
    ) -> Result<Self> {
        let (files, quotas) = (load.paths()?.into_iter().collect(), load.quotas());
        let (config, tables) = (config.clone(), wiring.tables().clone());
        let state = State { config, tables, files, quotas };
        let (state, listener) = (RwLock::new(state), OnceLock::new());
        Ok(Self { path, common, state, listener })
    }

    /// The file, if there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Where relative paths start.
    pub(crate) fn folder(&self) -> &Path {
        self.path().and_then(Path::parent).unwrap_or(Path::new(""))
    }

    /// Calls `listener` with every changed configuration. Only the first call counts.
    pub(crate) fn on_change(
        &self,
        listener: impl Fn(&Config, &Path) -> Result<()> + Send + Sync + 'static,
    ) {
        let _ = self.listener.set(Box::new(listener));
    }

    /// Applies the file as it is now.
    pub(crate) fn read_again(&self, plugins: &Plugins) -> Result<()> {
        let path = self.path().context("expected a configuration file, found none")?;
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        self.apply(&bytes, plugins)
    }

    /// The table of a plugin, to be read by one instance.
    pub(crate) fn table(&self, plugin: &str) -> Config {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match state.tables.get(plugin) {
            Some(table) => table.fresh(),
            None => Config::at(&format!("plugin.{plugin}")),
        }
    }

    /// Applies what the file says of plugins.
    pub(crate) fn apply(&self, text: &[u8], plugins: &Plugins) -> Result<()> {
        let path = self.path.as_deref().unwrap_or(Path::new("jackfield.toml"));
        let file = path.display().to_string();
        let text = std::str::from_utf8(text).with_context(|| format!("{file}: expected UTF-8"))?;
        let config = ConfigFile::parse(&file, text)?.config().clone();
        let (flagged, wiring) = configured(&config, &self.common)?;
        let load = LoadTable::read(&flagged, self.folder())?;
        if let Some(listener) = self.listener.get()
            && let Err(error) = listener(&flagged, self.folder())
        {
            tracing::warn!("{file}: [server] stays as it was: {error:#}");
        }

        let quotas = load.quotas();
        // What an operator has changed meanwhile stays where the file says what it said before.
        if std::mem::replace(&mut self.write().quotas, quotas) != quotas
            && let Err(error) = plugins.loader().set_quotas(&quotas)
        {
            tracing::warn!("{file}: quotas stay as they were: {error:#}");
        }
        let changed = self.names_with(wiring.tables());
        let is_new = |path: &PathBuf| !self.write().files.contains(path);
        let files: Vec<PathBuf> = load.paths()?.into_iter().filter(is_new).collect();
        match self.apply_set(&changed, &files, &wiring, plugins) {
            Ok(reports) => {
                for report in &reports {
                    let SwapReport { kind, slot, .. } = report;
                    tracing::warn!("{file}: configured anew: {kind}/{slot}");
                }
                self.write().files.extend(files);
            }
            // Tried again when the file is saved again.
            Err(error) => tracing::warn!("{file}: plugins stay as they were: {error:#}"),
        }
        let later = changed_keys(&self.write().config, &config)?;
        if !later.is_empty() {
            tracing::warn!("{file}: takes effect at the next start: {}", later.join(", "));
        }
        self.write().config = config;
        Ok(())
    }

    /// Plugins whose tables differ from `tables`.
    fn names_with(&self, tables: &BTreeMap<String, Config>) -> BTreeSet<String> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let names = state.tables.keys().chain(tables.keys());
        names.filter(|name| state.tables.get(*name) != tables.get(*name)).cloned().collect()
    }

    /// Gives plugins other tables, and lets those in `files` and what the others fill take their
    /// places together: one set.
    fn apply_set(
        &self,
        changed: &BTreeSet<String>,
        files: &[PathBuf],
        wiring: &Wiring,
        plugins: &Plugins,
    ) -> Result<Vec<SwapReport>> {
        let artifacts: Vec<Artifact> =
            files.iter().map(|path| Artifact::read(path)).collect::<Result<_, _>>()?;
        let before: Vec<(&String, Option<Config>)> = changed
            .iter()
            .map(|name| (name, self.set_table(name, wiring.tables().get(name).cloned())))
            .collect();
        let hooks = wiring.names("hook");
        // What a file is to provide is not made anew beside it.
        let is_provided = |slot: &(String, String)| {
            let (kind, slot) = slot;
            let mut of_kind = artifacts.iter().filter(|a| a.manifest.kind == *kind);
            of_kind.any(|a| a.manifest.name == *slot || kind == slot)
        };
        let mut slots: Vec<(String, String)> =
            changed.iter().flat_map(|name| slots_of(name, &hooks, plugins)).collect();
        slots.retain(|slot| !is_provided(slot));
        let of_files = artifacts.iter().map(|artifact| Member::File(artifact, None));
        let again = slots.iter().map(|(kind, slot)| Member::Again { kind, slot });
        let set: Vec<Member<'_>> = of_files.chain(again).collect();
        plugins.swap_all(&set).map_err(|error| {
            for (name, table) in before {
                self.set_table(name, table);
            }
            error.into()
        })
    }

    fn set_table(&self, name: &str, table: Option<Config>) -> Option<Config> {
        let tables = &mut self.write().tables;
        match table {
            Some(table) => tables.insert(name.to_owned(), table),
            None => tables.remove(name),
        }
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kind and slot of what a plugin fills: slots of the engine, and a hook's own.
fn slots_of(name: &str, hooks: &[String], plugins: &Plugins) -> Vec<(String, String)> {
    let is_it = |status: &SlotStatus| status.active.name == name && status.slot != adapter::SLOT;
    let filled = plugins.slots().into_iter().filter(is_it);
    let mut slots: Vec<_> = filled.map(|status| (status.kind, status.slot)).collect();
    if hooks.iter().any(|hook| hook == name) {
        slots.push(("hook".to_owned(), name.to_owned()));
    }
    slots
}

/// A configuration with the flags of the command line, and what it says of plugins.
pub(crate) fn configured(config: &Config, common: &Common) -> Result<(Config, Wiring)> {
    let mut config = config.clone();
    if let Some(model) = &common.model {
        config.set("model", model.as_str());
    }
    if let Some(model) = &common.draft_model {
        config.set("draft_model", model.as_str());
    }
    if let Some(threads) = common.threads {
        config.set("threads", threads);
    }
    let mut wiring = Wiring::from_config(&config)?;
    for (kind, name) in &common.plugins {
        wiring.choose(kind, name);
    }
    if config.has("threads") {
        let threads = config.count("threads", 1..=256)?;
        for backend in wiring.names("backend") {
            wiring.table_mut(&backend).set("threads", threads as i64);
        }
    }
    Ok((config, wiring))
}
