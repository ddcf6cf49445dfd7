//! Who provides what: every loaded plugin and its capabilities, by kind and name.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use plugin_api::{Config, Kind, Provided};

use crate::error::RuntimeError;

/// How a plugin runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Linked into the process.
    Builtin,
    /// From a shared library, in the process.
    Native,
    /// As a component, in a sandbox.
    Wasm,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Builtin => "builtin",
            Self::Native => "native",
            Self::Wasm => "wasm",
        })
    }
}

/// Which file a plugin came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub path: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub hash: String,
}

/// What is known about a loaded plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginInfo {
    /// Name in its manifest.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Version of the boundary that it was built for.
    pub api: String,
    /// How it runs.
    pub lane: Lane,
    /// Where it came from; nothing for what is linked in.
    pub origin: Option<Origin>,
}

/// A plugin that is no longer registered, with what it provided: enough to put it back.
pub type Removed = (PluginInfo, Vec<Provided>);

/// Kind and name.
type Key = (&'static str, Cow<'static, str>);

/// Every loaded plugin and what it provides.
#[derive(Debug, Default)]
pub struct Registry {
    provided: BTreeMap<Key, (Arc<PluginInfo>, Provided)>,
}

impl Registry {
    /// Nothing loaded.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a plugin with everything it provides, or nothing of it.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::NameTaken`] if one of its capabilities is provided already.
    pub fn add(&mut self, plugin: PluginInfo, provided: Vec<Provided>) -> Result<(), RuntimeError> {
        self.check(&plugin, &provided, None)?;
        self.insert(plugin, provided);
        Ok(())
    }

    /// Lets `plugin` provide what another has provided so far, which is returned with all that it
    /// provided: replacing `plugin` by that puts it back. Adds what nobody has provided.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::NameTaken`] if the capabilities belong to several plugins; nothing has
    /// changed then.
    pub fn replace(
        &mut self,
        plugin: PluginInfo,
        provided: Vec<Provided>,
    ) -> Result<Option<Removed>, RuntimeError> {
        let mut owners = provided.iter().filter_map(|new| self.provided.get(&key(new)));
        let owner = owners.next().map(|(owner, _)| Arc::clone(owner));
        self.check(&plugin, &provided, owner.as_ref())?;
        let removed = owner.map(|owner| self.take(&owner));
        self.insert(plugin, provided);
        Ok(removed)
    }

    /// Removes the plugin that provides `kind` under `name`, with all that it provides.
    pub fn remove(&mut self, kind: &str, name: &str) -> Option<Removed> {
        let mut entries = self.provided.values();
        let (owner, _) = entries.find(|(_, p)| (p.kind, &*p.name) == (kind, name))?;
        let owner = Arc::clone(owner);
        Some(self.take(&owner))
    }

    /// Checks that the capabilities are free, or `replaced`'s, and named once.
    fn check(
        &self,
        plugin: &PluginInfo,
        provided: &[Provided],
        replaced: Option<&Arc<PluginInfo>>,
    ) -> Result<(), RuntimeError> {
        for (i, new) in provided.iter().enumerate() {
            let is_twice = provided[..i].iter().any(|other| key(other) == key(new));
            let owner = match self.provided.get(&key(new)) {
                _ if is_twice => &plugin.name,
                Some((owner, _)) if !replaced.is_some_and(|r| Arc::ptr_eq(r, owner)) => &owner.name,
                _ => continue,
            };
            return Err(RuntimeError::NameTaken {
                kind: new.kind.to_owned(),
                name: new.name.to_string(),
                owner: owner.clone(),
                plugin: plugin.name.clone(),
            });
        }
        Ok(())
    }

    fn insert(&mut self, plugin: PluginInfo, provided: Vec<Provided>) {
        let plugin = Arc::new(plugin);
        for new in provided {
            self.provided.insert(key(&new), (Arc::clone(&plugin), new));
        }
    }

    fn take(&mut self, owner: &Arc<PluginInfo>) -> Removed {
        let is_theirs = |plugin: &Arc<PluginInfo>| Arc::ptr_eq(plugin, owner);
        let theirs = self.provided.extract_if(.., |_, (plugin, _)| is_theirs(plugin));
        let provided = theirs.map(|(_, (_, provided))| provided).collect();
        (PluginInfo::clone(owner), provided)
    }

    /// Makes an instance of the kind `K` under `name`.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::NotProvided`] with the names that exist, or [`RuntimeError::Make`] with
    /// what the plugin said.
    pub fn make<K: Kind + ?Sized>(
        &self,
        name: &str,
        config: &Config,
    ) -> Result<Box<K>, RuntimeError> {
        let (kind, name) = (K::NAME.to_owned(), name.to_owned());
        let Some(provided) = self.find(K::NAME, &name) else {
            let known = self.names(K::NAME).map(str::to_owned).collect();
            return Err(RuntimeError::NotProvided { kind, name, known });
        };
        let instance: Box<dyn Any + Send> = match (provided.make)(config) {
            Ok(instance) => instance,
            Err(source) => return Err(RuntimeError::Make { kind, name, source }),
        };
        let instance = instance.downcast::<Box<K>>();
        Ok(*instance.expect("a capability registered under a kind is of that kind"))
    }

    /// The capability of `kind` under `name`.
    pub fn find(&self, kind: &str, name: &str) -> Option<&Provided> {
        let mut entries = self.provided.values().map(|(_, provided)| provided);
        entries.find(|provided| (provided.kind, &*provided.name) == (kind, name))
    }

    /// Names that are provided for `kind`, in order.
    pub fn names<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.provided.keys().filter(move |(k, _)| *k == kind).map(|(_, name)| &**name)
    }

    /// Every capability with the plugin that provides it, by kind and name.
    pub fn iter(&self) -> impl Iterator<Item = (&Provided, &PluginInfo)> {
        self.provided.values().map(|(plugin, provided)| (provided, &**plugin))
    }
}

fn key(provided: &Provided) -> Key {
    (provided.kind, provided.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::kinds::scheduler::{Limits, Picked, Scheduler, Waiting};
    use plugin_api::{Capability, Registrar};

    struct Idle;

    impl Capability for Idle {
        const NAME: &'static str = "idle";

        fn from_config(config: &Config) -> plugin_api::Result<Self> {
            config.count_or("rest", 1, 1..=9).map(|_| Self)
        }
    }

    impl Scheduler for Idle {
        fn pick(
            &mut self,
            _: &[Waiting],
            _: &Limits,
            _: &mut Vec<Picked>,
        ) -> plugin_api::Result<()> {
            Ok(())
        }
    }

    fn plugin(name: &str) -> (PluginInfo, Vec<Provided>) {
        let mut registrar = Registrar::new();
        registrar.provide::<dyn Scheduler, Idle>();
        let (name, description, api) = (name.to_owned(), String::new(), "0.0".to_owned());
        let info = PluginInfo { name, description, api, lane: Lane::Builtin, origin: None };
        (info, registrar.into_provided())
    }

    #[test]
    fn makes_what_was_registered() {
        let mut registry = Registry::new();
        let (info, provided) = plugin("idle");
        registry.add(info, provided).unwrap();
        assert!(registry.make::<dyn Scheduler>("idle", &Config::new()).is_ok());
        let wrong = registry.make::<dyn Scheduler>("idle", &Config::new().with("rest", 10));
        let expected = "scheduler `idle`: rest: expected a whole number in 1..=9, found 10";
        assert_eq!(wrong.err().unwrap().to_string(), expected);
        let missing = registry.make::<dyn Scheduler>("busy", &Config::new());
        let expected = "scheduler `busy`: no plugin provides it; expected one of idle";
        assert_eq!(missing.err().unwrap().to_string(), expected);
    }

    #[test]
    fn refuses_a_name_twice_and_keeps_the_first() {
        let mut registry = Registry::new();
        let (info, provided) = plugin("first");
        registry.add(info, provided).unwrap();
        let (info, provided) = plugin("second");
        let error = registry.add(info, provided).unwrap_err();
        assert!(error.to_string().contains("already provided by plugin `first`"), "{error}");
        assert_eq!(registry.iter().count(), 1);
        assert_eq!(registry.iter().next().unwrap().1.name, "first");
    }

    #[test]
    fn a_replaced_plugin_comes_back_whole() {
        let mut registry = Registry::new();
        let (info, provided) = plugin("first");
        registry.add(info, provided).unwrap();
        let (mut info, provided) = plugin("second");
        info.lane = Lane::Native;
        let old = registry.replace(info, provided).unwrap().unwrap();
        assert_eq!(registry.iter().next().unwrap().1.name, "second");
        let newer = registry.replace(old.0, old.1).unwrap().unwrap();
        assert_eq!((newer.0.lane.to_string(), newer.1.len()), ("native".to_owned(), 1));
        assert_eq!(registry.iter().next().unwrap().1.name, "first");
        assert!(registry.make::<dyn Scheduler>("idle", &Config::new()).is_ok());
        assert_eq!(registry.remove("scheduler", "idle").unwrap().0.name, "first");
        assert_eq!(registry.iter().count(), 0);
        let (info, provided) = plugin("third");
        assert_eq!(registry.replace(info, provided).unwrap().map(|(info, _)| info), None);
    }

    #[test]
    fn a_replacement_that_names_something_twice_changes_nothing() {
        let mut registry = Registry::new();
        let (info, provided) = plugin("first");
        registry.add(info, provided).unwrap();
        let (info, mut provided) = plugin("second");
        provided.push(provided[0].clone());
        assert!(registry.replace(info, provided).is_err());
        assert_eq!(registry.iter().next().unwrap().1.name, "first");
    }
}
