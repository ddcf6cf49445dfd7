//! The WASM lane: components in a sandbox, of any language, that give everything back.
//!
//! A file is scanned, compiled (or taken from the cache), checked against the world of its kind
//! and linked; nothing of it runs before an instance is made. One instance of the component is
//! one plugin instance. `docs/adr/0013-wasm-lane.md` says why things are as they are.

mod bindings;
mod cache;
mod convert;
mod curriculum;
mod decoding_strategy;
mod engine;
mod error;
mod graph;
mod hook;
mod instance;
mod lend;
mod logits_processor;
mod memory;
mod mixer;
mod model_source;
mod norm;
mod output_parser;
mod quantizer;
mod reward;
mod rotary_embedding;
mod rows;
mod scan;
mod scheduler;
mod services;
mod settings;
mod state;
mod traced;
mod wasi;
mod world;

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plugin_api::kinds::Kind;
use plugin_api::{Config, Error, Host, Provided, Result as PluginResult};
use wasmtime::component::{Component, InstancePre};

use crate::error::LoadError;
use crate::manifest::PluginManifest;
use crate::owner::Generation;
use crate::quotas::{Live, MEMORY_BYTES, Quotas};
use cache::Cache;
use engine::Lane;
pub use error::WasmError;
use instance::Plugin;
use state::State;

/// Limits of WASM plugins, and where their compiled code is kept.
#[derive(Debug, Clone)]
pub struct WasmOptions {
    /// Where compiled code is kept between runs. It has to be a folder of its own.
    pub cache_folder: PathBuf,
    /// Most memory of one instance, in bytes.
    pub memory_bytes_max: usize,
    /// How long one call of an untrusted instance may take.
    pub call_limit: Duration,
    /// How long making an untrusted instance may take, its `create` included.
    pub create_limit: Duration,
    /// How long an untrusted model source may take for a model, what the host does for it aside.
    pub fetch_limit: Duration,
    /// Most instances at a time, of trusted and of untrusted plugins each. Address space (4 GiB
    /// an instance) is set aside for them, no memory.
    pub instances_max: usize,
}

impl WasmOptions {
    /// The defaults: 256 MiB, half a second a call, five seconds to create, an hour to fetch, 128
    /// instances.
    pub fn new(cache_folder: impl Into<PathBuf>) -> Self {
        Self {
            cache_folder: cache_folder.into(),
            memory_bytes_max: 256 << 20,
            call_limit: Duration::from_millis(500),
            create_limit: Duration::from_secs(5),
            fetch_limit: Duration::from_secs(3600),
            instances_max: 128,
        }
    }
}

/// Runs plugins that are WASM components.
pub struct WasmLane {
    options: WasmOptions,
    quotas: Arc<Live>,
    /// Untrusted and trusted, made when a plugin needs them: most hosts run one of them or none.
    lanes: [Mutex<Option<Arc<Lane>>>; 2],
    cache: Option<Cache>,
}

impl WasmLane {
    /// A lane with these limits. Without a usable cache folder everything is compiled anew, which
    /// is logged.
    ///
    /// # Errors
    ///
    /// [`LoadError::Wasm`] for limits with which nothing could run.
    pub fn new(options: WasmOptions) -> Result<Self, LoadError> {
        let quotas = Arc::new(Live::new(0, &options));
        Self::with(options, quotas)
    }

    /// The same with quotas that others know, too.
    pub(crate) fn with(options: WasmOptions, quotas: Arc<Live>) -> Result<Self, LoadError> {
        if options.instances_max == 0 || !MEMORY_BYTES.contains(&options.memory_bytes_max) {
            let message = "expected `instances_max` from 1 and `memory_bytes_max` from 64 KiB to \
                           4 GiB"
                .to_owned();
            return Err(wrong("the WASM lane", WasmError::Engine { message }));
        }
        let cache = Cache::open(&options.cache_folder).inspect_err(|error| {
            let folder = options.cache_folder.display();
            tracing::warn!(%folder, %error, "compiled plugins are not kept");
        });
        Ok(Self { options, quotas, lanes: Default::default(), cache: cache.ok() })
    }

    /// What its instances may take.
    pub fn quotas(&self) -> Quotas {
        self.quotas.read()
    }

    /// Changes that, from the next call of each instance on.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for what is out of its range; everything stays as it was.
    pub fn set_quotas(&self, to: &Quotas) -> Result<(), Error> {
        self.quotas.change(to)
    }

    /// The text of the manifest in a component, read without compiling or running it. `file` only
    /// names it in errors.
    ///
    /// # Errors
    ///
    /// [`LoadError::Wasm`] for bytes that are no whole component or hold no manifest.
    pub fn manifest(file: &str, bytes: &[u8]) -> Result<String, LoadError> {
        scan::manifest(bytes).map_err(|error| wrong(file, error))
    }

    /// Makes a component ready to be instantiated. `hash` is the SHA-256 of `bytes`, in
    /// hexadecimal: compiled code is kept under it. A trusted plugin runs without deadlines.
    ///
    /// # Errors
    ///
    /// [`LoadError::Wasm`] that says what does not fit the kind of the manifest, or that this
    /// machine cannot run WASM. Nothing of the component has run then.
    pub fn open(
        &self,
        file: &str,
        bytes: &[u8],
        hash: &str,
        manifest: &PluginManifest,
        is_trusted: bool,
        host: &Host,
    ) -> Result<Provided, LoadError> {
        let generation = Generation::unnamed(&manifest.name);
        self.open_as(&generation, file, bytes, hash, manifest, is_trusted, host)
    }

    /// The same for a load whose instances are counted and whose faults are told.
    #[allow(clippy::too_many_arguments, reason = "what one load is made of, each named once")]
    pub(crate) fn open_as(
        &self,
        generation: &Arc<Generation>,
        file: &str,
        bytes: &[u8],
        hash: &str,
        manifest: &PluginManifest,
        is_trusted: bool,
        host: &Host,
    ) -> Result<Provided, LoadError> {
        let lane = self.lane(is_trusted).map_err(|error| wrong(file, error))?;
        let plugin = Plugin {
            name: manifest.name.as_str().into(),
            host: host.clone(),
            generation: Arc::clone(generation),
            lane: Arc::clone(&lane),
            quotas: Arc::clone(&self.quotas),
            is_trusted,
        };
        let provided = || {
            let component = self.component(&lane, bytes, hash)?;
            world::check(&lane.engine, &component, &manifest.kind)?;
            let linked = lane.linker.instantiate_pre(&component).map_err(incompatible)?;
            provided(&Arc::new(plugin), &manifest.kind, linked)
        };
        provided().map_err(|error| wrong(file, error))
    }

    fn lane(&self, is_trusted: bool) -> Result<Arc<Lane>, WasmError> {
        let place = &self.lanes[usize::from(is_trusted)];
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = &*place {
            return Ok(Arc::clone(lane));
        }
        let lane = Arc::new(Lane::new(&self.options, &self.quotas, is_trusted)?);
        Ok(Arc::clone(place.insert(lane)))
    }

    fn component(&self, lane: &Lane, bytes: &[u8], hash: &str) -> Result<Component, WasmError> {
        if let Some(cache) = &self.cache
            && let Some(component) = cache.load(&lane.engine, hash)
        {
            return Ok(component);
        }
        // Says what is wrong with bytes that are no component at all.
        scan::check(bytes)?;
        let component = Component::from_binary(&lane.engine, bytes)
            .map_err(|error| WasmError::Compile { message: format!("{error:#}") })?;
        if let Some(cache) = &self.cache
            && let Err(error) = cache.store(&lane.engine, hash, &component)
        {
            tracing::warn!(%error, hash, "a compiled plugin is not kept");
        }
        Ok(component)
    }
}

impl fmt::Debug for WasmLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmLane").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What a linked component provides, by the kind of its manifest.
fn provided(
    plugin: &Arc<Plugin>,
    kind: &str,
    linked: InstancePre<State>,
) -> Result<Provided, WasmError> {
    match kind {
        "adapter" => norm::adapter(plugin, linked),
        "curriculum" => curriculum::provided(plugin, linked),
        "output-parser" => output_parser::provided(plugin, linked),
        "decoding-strategy" => decoding_strategy::provided(plugin, linked),
        "encoder" => norm::encoder(plugin, linked),
        "lr-schedule" => norm::lr_schedule(plugin, linked),
        "objective" => norm::objective(plugin, linked),
        "optimizer" => norm::optimizer(plugin, linked),
        "feed-forward" => norm::feed_forward(plugin, linked),
        "hook" => hook::provided(plugin, linked),
        "logits-processor" => logits_processor::provided(plugin, linked),
        "memory" => memory::provided(plugin, linked),
        "mixer" => mixer::provided(plugin, linked),
        "model-source" => model_source::provided(plugin, linked),
        "moe-router" => norm::moe_router(plugin, linked),
        "norm" => norm::norm(plugin, linked),
        "quantizer" => quantizer::provided(plugin, linked),
        "residual" => norm::residual(plugin, linked),
        "reward" => reward::provided(plugin, linked),
        "rotary-embedding" => rotary_embedding::provided(plugin, linked),
        "scheduler" => scheduler::provided(plugin, linked),
        _ => return Err(WasmError::Kind { kind: kind.to_owned() }),
    }
    .map_err(incompatible)
}

/// The capability whose instances `make` makes.
fn capability<K: Kind + ?Sized>(
    plugin: &Arc<Plugin>,
    make: impl Fn(&Config) -> PluginResult<Box<K>> + Send + Sync + 'static,
) -> Provided
where
    Box<K>: Send,
{
    Provided {
        kind: K::NAME,
        pin: K::PIN,
        is_traced: K::IS_TRACED,
        name: plugin.name.to_string().into(),
        make: Arc::new(move |config| Ok(Box::new(make(config)?) as Box<dyn Any + Send>)),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "`map_err` gives it by value")]
fn incompatible(error: wasmtime::Error) -> WasmError {
    WasmError::Incompatible { message: format!("{error:#}") }
}

fn wrong(file: &str, source: WasmError) -> LoadError {
    LoadError::Wasm { file: file.to_owned(), source }
}
