//! Which plugins an engine is made of: read from configuration, made from the registry.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jackfield_runtime::{Label, Registry, RuntimeError};
use plugin_api::{
    Adapter, Backend, Config, Curriculum, DecodingStrategy, Encoder, FeedForward, Host, Kind,
    KvCache, LogitsProcessor, Mixer, MoeRouter, Norm, Quantizer, Residual, RotaryEmbedding,
    Scheduler, Tokens, Traced, Value,
};

use crate::error::EngineError;
use crate::model::Architecture;
use crate::model::adapter::is_adapted;
use crate::model::trace::{TracedPart, TracedParts};
use crate::model::weights::Quantizers;

/// The operator's choice of plugins: `[plugins]` names them by kind, `[plugin.NAME]` configures
/// one. What is not chosen is decided by the model's blueprint or by the defaults here.
#[derive(Debug, Clone, Default)]
pub struct Wiring {
    chosen: BTreeMap<String, Vec<String>>,
    tables: BTreeMap<String, Config>,
    hosts: Hosts,
}

/// Makes the handle on the host of a plugin, by its name, beside a model with these tokens.
type MakeHost = dyn Fn(&str, &Arc<dyn Tokens>) -> Host + Send + Sync;

/// What plugins are lent of the host; nothing where nobody says how.
#[derive(Clone, Default)]
pub(crate) struct Hosts(Option<Arc<MakeHost>>);

impl Hosts {
    /// The handle on the host of a plugin, by its name.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](plugin_api::Error::Unsupported) where nobody says how.
    pub(crate) fn of(&self, name: &str, tokens: &Arc<dyn Tokens>) -> plugin_api::Result<Host> {
        let missing = || plugin_api::Error::unsupported("a handle on the host", "nobody lends any");
        self.0.as_ref().map(|make| make(name, tokens)).ok_or_else(missing)
    }

    /// Opens a processor, if there is something to lend.
    ///
    /// # Errors
    ///
    /// What the processor says.
    pub(crate) fn open(
        &self,
        name: &str,
        processor: &mut dyn LogitsProcessor,
        tokens: &Arc<dyn Tokens>,
    ) -> plugin_api::Result<()> {
        self.0.as_ref().map_or(Ok(()), |make| processor.open(&make(name, tokens)))
    }

    /// Attaches a strategy, if there is something to lend.
    ///
    /// # Errors
    ///
    /// What the strategy says.
    pub(crate) fn attach(
        &self,
        name: &str,
        strategy: &mut dyn DecodingStrategy,
        tokens: &Arc<dyn Tokens>,
    ) -> plugin_api::Result<()> {
        self.0.as_ref().map_or(Ok(()), |make| strategy.attach(&make(name, tokens)))
    }
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "hosts" } else { "no hosts" })
    }
}

/// What runs where nothing is configured.
#[rustfmt::skip]
const DEFAULTS: [(&str, &[&str]); 15] = [
    ("adapter",           &["lora"]),
    ("backend",           &["cpu"]),
    ("curriculum",        &["sequential"]),
    ("kv-cache",          &["paged"]),
    ("scheduler",         &["continuous"]),
    ("logits-processor",  &["guided", "repetition-penalty", "occurrence-penalty", "logit-bias", "temperature", "top-k", "top-p", "min-p"]),
    ("decoding-strategy", &["sample", "greedy", "prompt-lookup", "speculative", "beam", "self-consistency", "chain-of-thought"]),
    ("encoder",           &["bert"]),
    ("hook",              &["stop-words"]),
    ("lr-schedule",       &["cosine"]),
    ("memory",            &["basic-memory"]),
    ("model-source",      &["file", "pypi", "hf-hub"]),
    ("objective",         &["causal-lm"]),
    ("optimizer",         &["adamw"]),
    ("output-parser",     &["reasoning", "tool-calls"]),
];

impl Wiring {
    /// Reads the tables `plugins` and `plugin` of a configuration.
    ///
    /// # Errors
    ///
    /// [`EngineError::Plugin`] for values that are neither a name nor a list of names.
    pub fn from_config(config: &Config) -> Result<Self, EngineError> {
        let read = || {
            let mut wiring = Self::default();
            if let Some(plugins) = config.table("plugins")? {
                for kind in plugins.keys() {
                    let names = names_of(plugins, kind)?;
                    wiring.chosen.insert(kind.to_owned(), names);
                }
            }
            if let Some(tables) = config.table("plugin")? {
                for name in tables.keys() {
                    if let Some(table) = tables.table(name)? {
                        wiring.tables.insert(name.to_owned(), table.clone());
                    }
                }
            }
            Ok(wiring)
        };
        read().map_err(EngineError::plugin("configuration"))
    }

    /// Chooses one plugin for a kind.
    pub fn choose(&mut self, kind: &str, name: &str) {
        self.chosen.insert(kind.to_owned(), vec![name.to_owned()]);
    }

    /// The table of a plugin, to add to.
    pub fn table_mut(&mut self, name: &str) -> &mut Config {
        self.tables.entry(name.to_owned()).or_insert_with(|| Config::at(&format!("plugin.{name}")))
    }

    /// Says what plugins beside a model are lent of the host, by their names; without, nothing.
    pub fn lend(&mut self, host: impl Fn(&str, &Arc<dyn Tokens>) -> Host + Send + Sync + 'static) {
        self.hosts = Hosts(Some(Arc::new(host)));
    }

    pub(crate) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// The tables of plugins, by their names.
    pub fn tables(&self) -> &BTreeMap<String, Config> {
        &self.tables
    }

    /// The table of a plugin, if there is one.
    pub fn table(&self, name: &str) -> Option<&Config> {
        self.tables.get(name)
    }

    /// Looks up every chosen plugin, without making any.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::NotProvided`] for the first that is not there.
    pub fn check(&self, registry: &Registry) -> Result<(), RuntimeError> {
        for (kind, names) in &self.chosen {
            for name in names {
                if registry.find(kind, name).is_none() {
                    return Err(RuntimeError::NotProvided {
                        kind: kind.clone(),
                        name: name.clone(),
                        known: registry.names(kind).map(str::to_owned).collect(),
                    });
                }
            }
        }
        Ok(())
    }

    /// The plugins chosen for a kind, or the defaults.
    pub fn names(&self, kind: &str) -> Vec<String> {
        if let Some(names) = self.chosen.get(kind) {
            return names.clone();
        }
        let default = DEFAULTS.iter().find(|(other, _)| *other == kind);
        default.map_or_else(Vec::new, |(_, names)| names.iter().map(|&n| n.to_owned()).collect())
    }

    /// Kinds that the configuration chooses plugins for.
    pub fn chosen_kinds(&self) -> impl Iterator<Item = &str> {
        self.chosen.keys().map(String::as_str)
    }

    /// Makes the plugin `name` of kind `K` with its table.
    ///
    /// # Errors
    ///
    /// What [`Registry::make`] returns.
    pub fn make<K: Kind + ?Sized>(
        &self,
        registry: &Registry,
        name: &str,
    ) -> Result<Box<K>, RuntimeError> {
        match self.tables.get(name) {
            Some(table) => registry.make(name, table),
            None => registry.make(name, &Config::at(&format!("plugin.{name}"))),
        }
    }

    /// Makes every plugin chosen for the kind `K`, in order.
    ///
    /// # Errors
    ///
    /// What [`Registry::make`] returns.
    pub fn make_all<K: Kind + ?Sized>(
        &self,
        registry: &Registry,
    ) -> Result<Vec<(String, Box<K>)>, RuntimeError> {
        let names = self.names(K::NAME).into_iter();
        names.map(|name| Ok((name.clone(), self.make(registry, &name)?))).collect()
    }

    fn make_one<K: Kind + ?Sized>(
        &self,
        registry: &Registry,
    ) -> Result<(String, Box<K>), EngineError> {
        let names = self.names(K::NAME);
        let [name] = &names[..] else {
            return Err(EngineError::inconsistent(
                format!("plugins.{}", K::NAME),
                "one plugin",
                names.len(),
            ));
        };
        Ok((name.clone(), self.make(registry, name)?))
    }

    /// Makes the backend.
    ///
    /// # Errors
    ///
    /// What [`Registry::make`] returns; likewise for the others.
    pub fn backend(&self, registry: &Registry) -> Result<(String, Box<dyn Backend>), EngineError> {
        self.make_one(registry)
    }

    /// Makes the encoder.
    pub fn encoder(&self, registry: &Registry) -> Result<(String, Box<dyn Encoder>), EngineError> {
        self.make_one(registry)
    }

    /// Makes the one plugin of the kind `K`: parts of training.
    pub fn one<K: Kind + ?Sized>(&self, registry: &Registry) -> Result<Box<K>, EngineError> {
        Ok(self.make_one(registry)?.1)
    }

    /// Makes what describes products with an adapter.
    pub fn adapter(&self, registry: &Registry) -> Result<(String, Box<dyn Traced>), EngineError> {
        let (name, instance) = self.make_one::<dyn Adapter>(registry)?;
        Ok((name, instance))
    }

    /// Makes the cache.
    pub fn kv_cache(&self, registry: &Registry) -> Result<(String, Box<dyn KvCache>), EngineError> {
        self.make_one(registry)
    }

    /// Makes the curriculum.
    pub fn curriculum(
        &self,
        registry: &Registry,
    ) -> Result<(String, Box<dyn Curriculum>), EngineError> {
        self.make_one(registry)
    }

    /// Makes the scheduler.
    pub fn scheduler(
        &self,
        registry: &Registry,
    ) -> Result<(String, Box<dyn Scheduler>), EngineError> {
        self.make_one(registry)
    }

    /// Makes every quantizer there is, by the name of its format.
    pub fn quantizers(&self, registry: &Registry) -> Result<Quantizers, EngineError> {
        let mut quantizers = Quantizers::new();
        for name in registry.names(<dyn Quantizer>::NAME) {
            let quantizer: Box<dyn Quantizer> = self.make(registry, name)?;
            quantizers.insert(quantizer.format().name.into_owned(), (name.to_owned(), quantizer));
        }
        Ok(quantizers)
    }

    /// Makes the traced plugins of a model.
    pub fn traced(
        &self,
        registry: &Registry,
        architecture: &Architecture,
    ) -> Result<TracedParts, EngineError> {
        let mut parts = TracedParts::new();
        for slot in architecture.blueprint.slots.keys() {
            let chosen = self.chosen.get(slot).and_then(|names| names.first()).cloned();
            let name = chosen.or_else(|| architecture.default_plugin(slot)).unwrap_or_default();
            let instance: Box<dyn Traced> = match slot.as_str() {
                <dyn Norm>::NAME => self.make::<dyn Norm>(registry, &name)?,
                <dyn Residual>::NAME => self.make::<dyn Residual>(registry, &name)?,
                <dyn RotaryEmbedding>::NAME => self.make::<dyn RotaryEmbedding>(registry, &name)?,
                <dyn Mixer>::NAME => self.make::<dyn Mixer>(registry, &name)?,
                <dyn FeedForward>::NAME => self.make::<dyn FeedForward>(registry, &name)?,
                <dyn MoeRouter>::NAME => self.make::<dyn MoeRouter>(registry, &name)?,
                other => {
                    return Err(EngineError::inconsistent(
                        format!("blueprint `{}`: slot", architecture.blueprint.name),
                        "a traced kind",
                        other,
                    ));
                }
            };
            let label = Label::first(&name);
            parts.insert(slot.clone(), Arc::new(TracedPart { label, instance }));
        }
        if is_adapted(&architecture.config) {
            let (name, instance) = self.make_one::<dyn Adapter>(registry)?;
            let (label, slot) = (Label::first(&name), <dyn Adapter>::NAME.to_owned());
            parts.insert(slot, Arc::new(TracedPart { label, instance }));
        }
        Ok(parts)
    }
}

fn names_of(plugins: &Config, kind: &str) -> plugin_api::Result<Vec<String>> {
    match plugins.get(kind) {
        Some(Value::Text(name)) => Ok(vec![name.clone()]),
        Some(Value::List(names)) => names
            .iter()
            .map(|name| match name {
                Value::Text(name) => Ok(name.clone()),
                other => Err(plugins.wrong(kind, "names of plugins", Some(other))),
            })
            .collect(),
        other => Err(plugins.wrong(kind, "the name of a plugin or a list of names", other)),
    }
}
