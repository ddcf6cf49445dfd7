//! What is exchanged while a server runs, beside plugins: the adapter, and the weights that are read in more bits.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jackfield_engine::Engine;
use jackfield_engine::model::LoadOptions;
use jackfield_engine::model::precise::PreciseOptions;
use jackfield_engine::quantize::{SensitiveLayers, Weighed};
use jackfield_runtime::{Registry, Swapped};
use jackfield_server::Exchange;
use plugin_api::{Config, Value};

use crate::setup::Session;

/// What the operators of a server exchange.
#[derive(Clone, Default)]
pub(crate) struct Exchanges {
    pub(crate) adapter: Exchange<Option<PathBuf>>,
    pub(crate) mask: Exchange<Vec<String>>,
    /// Where the model in more bits is, if there is one.
    precise: Arc<OnceLock<PathBuf>>,
}

impl Exchanges {
    /// Lets them do so with an engine that was loaded with `options`. It is offered once.
    pub(crate) fn offer(&self, session: &Session, engine: &Engine, options: &LoadOptions) {
        if let Some(precise) = &options.precise {
            let _ = self.precise.set(precise.path.clone());
        }
        let lend = || (engine.swapper(), session.wiring.clone(), session.shared_registry());
        let (swapper, wiring, registry) = lend();
        let _ = self.adapter.set(Box::new(move |folder| {
            swapper.exchange_adapter(folder.as_deref(), &wiring, &read(&registry), LIMIT)
        }));
        let (swapper, wiring, registry) = lend();
        let _ = self.mask.set(Box::new(move |patterns| {
            swapper.exchange_mask(patterns, &wiring, &read(&registry), LIMIT)
        }));
    }

    /// Keeps up with a configuration that changes from `first`.
    pub(crate) fn follow(&self, first: &Config) -> impl Fn(&Config) + Send + Sync + use<> {
        let engine = |config: &Config| config.table("engine").ok().flatten().cloned();
        let mask_of = |table: &Config| table.get("mask").cloned();
        let first = engine(first);
        let adapter = first.as_ref().and_then(|table| adapter(table).ok()).flatten();
        let adapter = Followed { what: "adapter", last: Mutex::new(adapter) };
        let mask = Followed { what: "mask", last: Mutex::new(first.as_ref().and_then(mask_of)) };
        let own = self.clone();
        move |config| {
            let table = engine(config).unwrap_or_else(|| Config::at("engine"));
            adapter.follow(self::adapter(&table), |folder| {
                own.adapter.get().map(|exchange| Ok(exchange(folder)?))
            });
            mask.follow(Ok(mask_of(&table)), |_| {
                let (exchange, precise) = own.mask.get().zip(own.precise.get())?;
                Some(self::mask(&table, precise).and_then(|patterns| Ok(exchange(&patterns)?)))
            });
        }
    }
}

/// Something that a configuration names, and what it named last.
struct Followed<T> {
    what: &'static str,
    last: Mutex<T>,
}

impl<T: PartialEq> Followed<T> {
    /// Exchanges it if another one is named than before, and there is something to exchange.
    fn follow(&self, named: Result<T>, exchange: impl FnOnce(&T) -> Option<Result<Swapped>>) {
        let what = self.what;
        let stays = |error| tracing::warn!("the {what} stays as it was: {error:#}");
        let named = match named {
            Ok(named) => named,
            Err(error) => return stays(error),
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == named {
            return;
        }
        match exchange(&named) {
            Some(Ok(swapped)) => {
                tracing::warn!("new requests have the {what} {}", swapped.active);
                *last = named;
            }
            Some(Err(error)) => stays(error),
            None => {}
        }
    }
}

/// The folder of an adapter that the table `engine` names.
pub(crate) fn adapter(table: &Config) -> Result<Option<PathBuf>> {
    let named = table.has("adapter").then(|| table.text("adapter")).transpose()?;
    Ok(named.map(PathBuf::from))
}

/// Fetches the model in more bits if need be; nothing where none is named.
pub(crate) fn precise(session: &Session) -> Result<Option<PreciseOptions>> {
    check(&session.config)?;
    let Some(name) = session.other_model("precise_model")? else { return Ok(None) };
    let path = session.fetch(&name)?;
    let none = Config::at("engine");
    let table = session.config.table("engine")?.unwrap_or(&none);
    let (mask, fallback) = (mask(table, &path)?, table.flag_or("fallback", false)?);
    Ok(Some(PreciseOptions { path, mask, fallback }))
}

/// The weights of the model at `precise` that the table `engine` names: patterns, or a file of `jackfield quantize --to mixed`.
pub(crate) fn mask(table: &Config, precise: &Path) -> Result<Vec<String>> {
    match table.get("mask") {
        None => Ok(Vec::new()),
        Some(Value::Text(file)) => {
            let weighed = Weighed::of(precise).context("engine.mask")?;
            Ok(SensitiveLayers::read(Path::new(file), &weighed).context("engine.mask")?)
        }
        Some(Value::List(patterns)) => {
            let text = |pattern: &Value| match pattern {
                Value::Text(text) => Ok(text.clone()),
                other => Err(table.wrong("mask", EXPECTED, Some(other))),
            };
            Ok(patterns.iter().map(text).collect::<plugin_api::Result<_>>()?)
        }
        Some(other) => Err(table.wrong("mask", EXPECTED, Some(other)).into()),
    }
}

/// Refuses keys of a model in more bits where none is named, and values of other types.
pub(crate) fn check(config: &Config) -> Result<()> {
    let is_named = config.has("precise_model") && !config.text("precise_model")?.is_empty();
    let Some(table) = config.table("engine")? else { return Ok(()) };
    table.flag_or("fallback", false)?;
    if let Some(Value::List(_)) | None = table.get("mask") {
        mask(table, Path::new(""))?;
    }
    match ["mask", "fallback"].into_iter().find(|key| !is_named && table.has(key)) {
        Some(key) => bail!(
            "engine.{key}: expected the key `precise_model`, which names the model in more bits"
        ),
        None => Ok(()),
    }
}

fn read(registry: &RwLock<Registry>) -> RwLockReadGuard<'_, Registry> {
    registry.read().unwrap_or_else(PoisonError::into_inner)
}

const EXPECTED: &str = "a list of patterns of names, or a sensitive_layers.json";
/// How long a boundary is waited for.
const LIMIT: Duration = Duration::from_secs(10);
