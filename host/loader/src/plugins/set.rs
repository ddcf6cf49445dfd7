//! Sets: several slots that are refilled together, or none of them. A swap is a set of one.

use std::sync::Arc;
use std::time::Instant;

use jackfield_runtime::{PluginInfo, Replacement, Swapped};
use plugin_api::events::Subscriptions;
use plugin_api::{Hook, Host, Kind as _, Provided};

use super::{Key, Plugins, PluginsError, State, SwapReport, Undo};
use crate::artifact::Artifact;
use crate::builtin::LoadedPlugin;
use crate::error::LoadError;
use crate::manifest::PluginManifest;

/// What is to fill a slot.
#[derive(Debug, Clone, Copy)]
pub enum Member<'a> {
    /// The plugin in a file: the slot that is named, or the one of its own name.
    File(&'a Artifact, Option<&'a str>),
    /// What fills the slot already, made anew with its configuration as it is.
    Again {
        /// The kind.
        kind: &'a str,
        /// The slot.
        slot: &'a str,
    },
}

/// A plugin that is to fill a slot.
pub(super) struct Candidate {
    pub(super) kind: String,
    pub(super) slot: String,
    pub(super) manifest: PluginManifest,
    info: PluginInfo,
    provided: Vec<Provided>,
    /// The file that was loaded for it.
    loaded: Option<LoadedPlugin>,
}

impl Candidate {
    fn key(&self) -> Key {
        (self.kind.clone(), self.slot.clone())
    }

    fn path(&self) -> Option<String> {
        self.info.origin.as_ref().map(|origin| origin.path.clone())
    }

    /// What it is called in messages.
    fn file(&self) -> String {
        self.path().unwrap_or_else(|| self.info.name.clone())
    }

    fn is_hook(&self) -> bool {
        self.kind == <dyn Hook>::NAME
    }

    fn report(&self, swapped: Option<Swapped>) -> SwapReport {
        let (kind, slot) = self.key();
        SwapReport { kind, slot, path: self.path(), swapped }
    }
}

/// Instances of the members of a set, ready to be put in.
#[derive(Default)]
struct Made {
    replacements: Vec<Replacement>,
    hooks: Vec<(Host, Subscriptions)>,
}

impl Plugins {
    /// Refills every slot of a set at one boundary, or none; answers in the order of the set. Hooks
    /// follow once the engine has taken the rest in.
    ///
    /// # Errors
    ///
    /// [`PluginsError`]; what ran before goes on.
    pub fn swap_all(&self, set: &[Member<'_>]) -> Result<Vec<SwapReport>, PluginsError> {
        let mut state = self.state();
        let candidates = set.iter().map(|member| self.candidate(&state, member));
        let candidates: Vec<Candidate> = candidates.collect::<Result<_, _>>()?;
        check_names(&candidates)?;
        let before: Vec<_> = candidates.iter().map(|c| self.filling(&c.kind, &c.slot)).collect();
        let swapped = self.fill(&state, &candidates, &[])?;
        let of_files = candidates.iter().filter(|candidate| candidate.loaded.is_some());
        let with: Arc<[Key]> = of_files.map(Candidate::key).collect();
        let mut reports = Vec::with_capacity(candidates.len());
        for ((candidate, before), swapped) in candidates.iter().zip(before).zip(swapped) {
            reports.push(candidate.report(swapped));
            let Some(plugin) = &candidate.loaded else { continue };
            self.registry_mut().replace(plugin.info(), plugin.provided.clone())?;
            state.remember(plugin);
            let generation = plugin.generation.as_ref().map(Arc::downgrade).unwrap_or_default();
            let undo = Undo { before, generation, at: Instant::now(), with: Arc::clone(&with) };
            state.breakers.remove(&candidate.key());
            state.undo.insert(candidate.key(), undo);
        }
        Ok(reports)
    }

    /// Puts back what the latest swap of a slot replaced, and with it all that was swapped in the
    /// same set.
    ///
    /// # Errors
    ///
    /// [`PluginsError`]; what ran before goes on.
    pub fn rollback(&self, kind: &str, slot: &str) -> Result<Vec<SwapReport>, PluginsError> {
        let mut state = self.state();
        let slot = self.slot_of(kind, slot);
        let nothing = || PluginsError::NothingToUndo { kind: kind.to_owned(), slot: slot.clone() };
        let undo = state.undo.get(&(kind.to_owned(), slot.clone())).ok_or_else(nothing)?;
        let with = Arc::clone(&undo.with);
        let (mut candidates, mut removed) = (Vec::new(), Vec::new());
        for key in with.iter() {
            let undo = state.undo.get(key).filter(|undo| Arc::ptr_eq(&undo.with, &with));
            let Some(undo) = undo else {
                let (kind, slot, other) =
                    (kind.to_owned(), slot.clone(), key.0.clone() + "/" + &key.1);
                return Err(PluginsError::Parted { kind, slot, other });
            };
            match undo.before.clone() {
                Some((info, provided)) => {
                    let manifest = self.manifest_of(&state, &info, &key.0).ok_or_else(nothing)?;
                    let (kind, slot) = key.clone();
                    candidates.push(Candidate {
                        kind,
                        slot,
                        manifest,
                        info,
                        provided,
                        loaded: None,
                    });
                }
                // Nobody listened before it.
                None if key.0 == <dyn Hook>::NAME => removed.push(key.clone()),
                None => return Err(nothing()),
            }
        }
        let swapped = self.fill(&state, &candidates, &removed)?;
        let mut reports = Vec::with_capacity(with.len());
        for (candidate, swapped) in candidates.into_iter().zip(swapped) {
            reports.push(candidate.report(swapped));
            self.registry_mut().replace(candidate.info, candidate.provided)?;
        }
        for (kind, slot) in removed {
            self.options.bus.unsubscribe(&slot);
            self.registry_mut().remove(&kind, &slot);
            reports.push(SwapReport { kind, slot, path: None, swapped: None });
        }
        for key in with.iter() {
            state.undo.remove(key);
            state.breakers.remove(key);
        }
        Ok(reports)
    }

    /// Loads what a member needs.
    fn candidate(&self, state: &State, member: &Member<'_>) -> Result<Candidate, PluginsError> {
        match *member {
            Member::File(artifact, slot) => {
                let config = (self.options.config)(&artifact.manifest.name);
                let plugin = self.options.loader.load_artifact(artifact, &config)?;
                let manifest = plugin.manifest.clone();
                let kind = manifest.kind.clone();
                let slot = self.slot_of(&kind, slot.unwrap_or(&manifest.name));
                let (info, provided) = (plugin.info(), plugin.provided.clone());
                Ok(Candidate { kind, slot, manifest, info, provided, loaded: Some(plugin) })
            }
            Member::Again { kind, slot } => {
                let slot = self.slot_of(kind, slot);
                let (info, provided) = self.filling(kind, &slot).ok_or(PluginsError::NoTarget)?;
                let manifest =
                    self.manifest_of(state, &info, kind).ok_or(PluginsError::NoTarget)?;
                let kind = kind.to_owned();
                Ok(Candidate { kind, slot, manifest, info, provided, loaded: None })
            }
        }
    }

    /// Makes an instance of each and puts them in together; `removed` goes with them.
    fn fill(
        &self,
        state: &State,
        candidates: &[Candidate],
        removed: &[Key],
    ) -> Result<Vec<Option<Swapped>>, PluginsError> {
        self.check_requires(state, candidates, removed)?;
        let mut made = Made::default();
        for candidate in candidates {
            self.make(candidate, &mut made)?;
        }
        let mut swapped = Vec::new();
        if !made.replacements.is_empty() {
            let target = self.target().ok_or(PluginsError::NoTarget)?;
            let refused = |source| {
                let files: Vec<String> = candidates.iter().map(Candidate::file).collect();
                PluginsError::Swap { file: files.join(", "), source }
            };
            swapped = target.swap_all(made.replacements, self.options.wait).map_err(refused)?;
        }
        for (host, on) in made.hooks {
            self.options.bus.replace(&host, on);
        }
        let mut swapped = swapped.into_iter();
        let of = |candidate: &Candidate| if candidate.is_hook() { None } else { swapped.next() };
        Ok(candidates.iter().map(of).collect())
    }

    fn make(&self, candidate: &Candidate, made: &mut Made) -> Result<(), PluginsError> {
        let Candidate { kind, slot, manifest, provided, .. } = candidate;
        let (file, name) = (candidate.file(), manifest.name.clone());
        let start = |source| LoadError::Start { file: file.clone(), stage: "starting it", source };
        let wanted = provided.iter().find(|p| p.kind == kind).ok_or(PluginsError::NoTarget)?;
        let config = (self.options.config)(&name);
        let instance = (wanted.make)(&config).map_err(start)?;
        let keys: Vec<_> = config.unread().collect();
        if !keys.is_empty() {
            let keys = keys.join(", ");
            return Err(PluginsError::UnknownKeys { file, name, keys });
        }
        if !candidate.is_hook() {
            let slot = format!("{kind}/{slot}");
            made.replacements.push(Replacement { slot, name, instance });
            return Ok(());
        }
        let hook = instance.downcast::<Box<dyn Hook>>();
        let hook = *hook.expect("a capability registered under a kind is of that kind");
        let mut on = Subscriptions::new();
        hook.subscribe(&mut on).map_err(start)?;
        made.hooks.push((self.options.loader.host(manifest), on));
        Ok(())
    }
}

/// Two files of one set that provide the same would replace each other.
fn check_names(candidates: &[Candidate]) -> Result<(), LoadError> {
    for (i, one) in candidates.iter().enumerate() {
        let capability = one.manifest.capability();
        let mut earlier = candidates[..i].iter().filter(|other| other.loaded.is_some());
        let twin = earlier.find(|other| other.manifest.capability() == capability);
        if let Some(twin) = twin.filter(|_| one.loaded.is_some()) {
            let (file, owner) = (one.file(), twin.file());
            return Err(LoadError::NameTaken { file, capability, owner });
        }
    }
    Ok(())
}
