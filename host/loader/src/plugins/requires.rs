//! What plugins cannot do without: checked for everything that would run after a set.

use plugin_api::{Hook, Kind as _};

use super::set::Candidate;
use super::{Key, Plugins, PluginsError, State};
use crate::manifest::PluginManifest;

/// A plugin that runs, or would.
struct Running {
    kind: String,
    name: String,
    requires: Vec<String>,
}

impl Running {
    fn of(manifest: &PluginManifest) -> Self {
        let (kind, name) = (manifest.kind.clone(), manifest.name.clone());
        Self { kind, name, requires: manifest.requires.clone() }
    }
}

impl Plugins {
    /// Whether everything that runs has what it requires.
    ///
    /// # Errors
    ///
    /// [`PluginsError::Requires`] for the first that has not.
    pub fn check(&self) -> Result<(), PluginsError> {
        self.check_requires(&self.state(), &[], &[])
    }

    /// The same for what would run after `set` has filled its slots and `removed` are gone.
    pub(super) fn check_requires(
        &self,
        state: &State,
        set: &[Candidate],
        removed: &[Key],
    ) -> Result<(), PluginsError> {
        let running = self.running(state, set, removed);
        let is_gone =
            |kind: &str, name: &str| removed.iter().any(|(k, n)| (&**k, &**n) == (kind, name));
        for plugin in &running {
            for required in &plugin.requires {
                let (kind, name) = required.split_once('/').unwrap_or((required, ""));
                let beside: Vec<&Running> = running.iter().filter(|r| r.kind == kind).collect();
                // Kinds that fill no slot are used by whoever asks for them.
                let is_slotless = beside.is_empty() || kind == <dyn Hook>::NAME;
                let is_there = beside.iter().any(|other| other.name == name)
                    || (is_slotless && !is_gone(kind, name) && self.is_provided(kind, name));
                if !is_there {
                    let found = beside.iter().map(|other| format!("`{kind}/{}`", other.name));
                    let found: Vec<String> = found.collect();
                    let by = format!("{}/{}", plugin.kind, plugin.name);
                    return Err(PluginsError::requires(by, required, &found));
                }
            }
        }
        Ok(())
    }

    /// Checks files that are loaded before anything runs: what they require has to be provided.
    pub(super) fn check_provided(&self, files: &[&PluginManifest]) -> Result<(), PluginsError> {
        for manifest in files {
            for required in &manifest.requires {
                let (kind, name) = required.split_once('/').unwrap_or((required, ""));
                let is_beside = files.iter().any(|other| other.capability() == *required);
                if !is_beside && !self.is_provided(kind, name) {
                    return Err(PluginsError::requires(manifest.capability(), required, &[]));
                }
            }
        }
        Ok(())
    }

    fn running(&self, state: &State, set: &[Candidate], removed: &[Key]) -> Vec<Running> {
        let slots = self.slots();
        let is_slot = |c: &&Candidate| {
            slots.iter().any(|status| (&status.kind, &status.slot) == (&c.kind, &c.slot))
        };
        let mut running: Vec<Running> =
            set.iter().filter(|c| !is_slot(c)).map(|c| Running::of(&c.manifest)).collect();
        for status in &slots {
            let mut next =
                set.iter().filter(|c| (&c.kind, &c.slot) == (&status.kind, &status.slot));
            running.push(match next.next() {
                Some(candidate) => Running::of(&candidate.manifest),
                None => {
                    let (kind, name) = (status.kind.clone(), status.active.name.clone());
                    let manifest = self.manifest_named(state, &kind, &name);
                    Running {
                        kind,
                        name,
                        requires: manifest.map(|m| m.requires).unwrap_or_default(),
                    }
                }
            });
        }
        for loaded in state.loaded.iter().filter(|l| l.manifest.kind == <dyn Hook>::NAME) {
            let name = &loaded.manifest.name;
            let is_told = running.iter().any(|r| r.kind == <dyn Hook>::NAME && r.name == *name);
            let is_gone =
                removed.iter().any(|(kind, slot)| kind == <dyn Hook>::NAME && slot == name);
            let current = self.manifest_named(state, <dyn Hook>::NAME, name);
            if !is_told && !is_gone && current.as_ref() == Some(&loaded.manifest) {
                running.push(Running::of(&loaded.manifest));
            }
        }
        running
    }

    fn is_provided(&self, kind: &str, name: &str) -> bool {
        let registry = self.options.registry.read();
        registry.unwrap_or_else(std::sync::PoisonError::into_inner).find(kind, name).is_some()
    }

    /// The manifest of what is provided under a name.
    fn manifest_named(&self, state: &State, kind: &str, name: &str) -> Option<PluginManifest> {
        let registry = self.options.registry.read();
        let registry = registry.unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut entries = registry.iter();
        let (_, info) = entries.find(|(p, _)| (p.kind, &*p.name) == (kind, name))?;
        self.manifest_of(state, info, kind)
    }
}

impl PluginsError {
    fn requires(by: String, required: &str, found: &[String]) -> Self {
        let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
        Self::Requires { by, required: required.to_owned(), found }
    }
}
