//! Who provides what: every loaded plugin and its capabilities, by kind and name.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;

use plugin_api::{Config, Kind, Provided};

use crate::error::RuntimeError;

/// How a plugin runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Linked into the process.
    Builtin,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin => f.pad("builtin"),
        }
    }
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
}

/// Every loaded plugin and what it provides.
#[derive(Debug, Default)]
pub struct Registry {
    plugins: Vec<PluginInfo>,
    /// By kind, then name; the index is into `plugins`.
    provided: BTreeMap<(&'static str, &'static str), (usize, Provided)>,
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
        for (i, new) in provided.iter().enumerate() {
            let key = (new.kind, new.name);
            let is_twice = provided[..i].iter().any(|other| (other.kind, other.name) == key);
            let owner = match self.provided.get(&key) {
                Some((owner, _)) => self.plugins[*owner].name.clone(),
                None if is_twice => plugin.name.clone(),
                None => continue,
            };
            let (kind, name) = (new.kind.to_owned(), new.name.to_owned());
            return Err(RuntimeError::NameTaken { kind, name, owner, plugin: plugin.name });
        }
        let index = self.plugins.len();
        self.plugins.push(plugin);
        for new in provided {
            self.provided.insert((new.kind, new.name), (index, new));
        }
        Ok(())
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
        let entry = self.provided.iter().find(|((k, n), _)| (*k, *n) == (kind, name));
        entry.map(|(_, (_, provided))| provided)
    }

    /// Names that are provided for `kind`, in order.
    pub fn names<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'static str> + 'a {
        self.provided.keys().filter(move |(k, _)| *k == kind).map(|(_, name)| *name)
    }

    /// Every capability with the plugin that provides it, by kind and name.
    pub fn iter(&self) -> impl Iterator<Item = (&Provided, &PluginInfo)> {
        self.provided.values().map(|(plugin, provided)| (provided, &self.plugins[*plugin]))
    }
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
        fn pick(&mut self, _: &[Waiting], _: &Limits, _: &mut Vec<Picked>) {}
    }

    fn plugin(name: &str) -> (PluginInfo, Vec<Provided>) {
        let mut registrar = Registrar::new();
        registrar.provide::<dyn Scheduler, Idle>();
        let (name, description, api) = (name.to_owned(), String::new(), "0.0".to_owned());
        (PluginInfo { name, description, api, lane: Lane::Builtin }, registrar.into_provided())
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
}
