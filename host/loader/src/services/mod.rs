//! The services behind a plugin's `Host`, each guarded by its grants.
//!
//! A denial is an error for the plugin, a line in the log and an entry that
//! [`Services::denials`] shows.

mod files;
mod http;
mod process;
mod store;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use plugin_api::host::{Change, Command, Ended, HostServices, HttpPiece, Level, ReadSeek, Row};
use plugin_api::{Error, Host, Result, Tokens, Vocabulary};

use crate::grants::Grants;
pub use store::StoreOptions;
use store::Stores;

/// Where all plugins of one process get their services from. Dropping it ends programs that
/// plugins are running.
#[derive(Debug)]
pub struct Services {
    shared: Arc<Shared>,
}

/// One refused request of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Who asked.
    pub plugin: String,
    /// For which service.
    pub service: &'static str,
    /// For which path, host or program.
    pub wanted: String,
    /// When, in microseconds since the services started.
    pub at_us: u64,
}

impl Services {
    /// Services, with a clock that starts now, that keep no rows.
    pub fn new() -> Self {
        Self::of(None)
    }

    /// The same, that keep rows.
    pub fn with_store(options: StoreOptions) -> Self {
        Self::of(Some(Stores::new(options)))
    }

    fn of(stores: Option<Stores>) -> Self {
        let shared = Shared {
            start: Instant::now(),
            is_stopping: AtomicBool::new(false),
            agent: http::agent(),
            stores,
            denials: Mutex::new(VecDeque::new()),
            num_denials: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The handle of the plugin called `plugin`, with its grants.
    pub fn host(&self, plugin: &str, grants: Grants) -> Host {
        self.host_of(plugin, grants, None)
    }

    /// The same beside a model with these tokens.
    pub fn host_beside(&self, plugin: &str, grants: Grants, tokens: &Arc<dyn Tokens>) -> Host {
        self.host_of(plugin, grants, Some(Arc::clone(tokens)))
    }

    fn host_of(&self, plugin: &str, grants: Grants, tokens: Option<Arc<dyn Tokens>>) -> Host {
        let (name, shared) = (plugin.to_owned(), Arc::clone(&self.shared));
        let services = PluginServices { plugin: name, grants, tokens, shared };
        Host::new(plugin, Arc::new(services))
    }

    /// The latest denials, oldest first, at most [`DENIALS_MAX`].
    pub fn denials(&self) -> Vec<Denial> {
        let denials = self.shared.denials.lock().unwrap_or_else(PoisonError::into_inner);
        denials.iter().cloned().collect()
    }

    /// How many requests were ever denied.
    pub fn num_denials(&self) -> u64 {
        self.shared.num_denials.load(Ordering::Relaxed)
    }
}

impl Default for Services {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
    }
}

/// How many denials are kept for [`Services::denials`].
pub const DENIALS_MAX: usize = 256;

#[derive(Debug)]
struct Shared {
    start: Instant,
    is_stopping: AtomicBool,
    agent: ureq::Agent,
    stores: Option<Stores>,
    denials: Mutex<VecDeque<Denial>>,
    num_denials: AtomicU64,
}

/// The services as one plugin sees them.
struct PluginServices {
    plugin: String,
    grants: Grants,
    /// Of the model that the plugin works beside.
    tokens: Option<Arc<dyn Tokens>>,
    shared: Arc<Shared>,
}

impl PluginServices {
    /// Records a denial and returns its error. `grant` is what the plugin's table should say.
    fn deny(&self, service: &'static str, wanted: &str, grant: &str) -> Error {
        let (plugin, wanted) = (self.plugin.clone(), wanted.to_owned());
        self.shared.num_denials.fetch_add(1, Ordering::Relaxed);
        let at_us = self.monotonic_us();
        let denial = Denial { plugin: plugin.clone(), service, wanted: wanted.clone(), at_us };
        let mut denials = self.shared.denials.lock().unwrap_or_else(PoisonError::into_inner);
        // A plugin that asks again and again is in the log once, and counted every time.
        let is_same = |d: &Denial| (&d.plugin, d.service, &d.wanted) == (&plugin, service, &wanted);
        if !denials.iter().any(is_same) {
            tracing::warn!(plugin, service, wanted, "denied");
        }
        if denials.len() == DENIALS_MAX {
            denials.pop_front();
        }
        denials.push_back(denial);
        let grant = format!("`{grant}` in [grants.{plugin}]");
        Error::Denied { plugin, service: service.into(), wanted, grant }
    }
}

impl HostServices for PluginServices {
    fn log(&self, plugin: &str, level: Level, message: fmt::Arguments<'_>) {
        match level {
            Level::Info => tracing::info!(plugin, "{message}"),
            Level::Warn => tracing::warn!(plugin, "{message}"),
        }
    }

    fn monotonic_us(&self) -> u64 {
        u64::try_from(self.shared.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn unix_seconds(&self) -> Result<f64> {
        if !self.grants.allows_clock() {
            return Err(self.deny("clock", "the time of day", "clock = true"));
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(since_1970.as_secs_f64())
    }

    fn open(&self, path: &Path) -> Result<Box<dyn ReadSeek>> {
        files::open(&self.readable(path)?)
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>> {
        files::list(&self.readable(folder)?)
    }

    fn size_bytes(&self, path: &Path) -> Result<Option<u64>> {
        files::size_bytes(&self.readable(path)?)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        files::append(&self.writable(path)?, bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        files::rename(&self.writable(from)?, &self.writable(to)?)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        files::remove(&self.writable(path)?)
    }

    fn run(&self, command: &Command, tick: &mut dyn FnMut()) -> Result<Ended> {
        if !self.grants.allows_program(&command.program) {
            let grant = format!("process = [{:?}]", command.program);
            return Err(self.deny("process", &command.program, &grant));
        }
        let folder = command.folder.as_deref().map(|folder| self.writable(folder)).transpose()?;
        process::run(command, folder.as_deref(), &self.shared.is_stopping, tick)
    }

    fn http_get(
        &self,
        url: &str,
        offset: u64,
        piece: &mut dyn FnMut(HttpPiece<'_>) -> Result<()>,
    ) -> Result<()> {
        let check = |host: &str, port: u16| {
            if self.grants.allows_host(host, port) {
                return Ok(());
            }
            Err(self.deny("network", &format!("{host}:{port}"), &format!("network = [{host:?}]")))
        };
        http::get(&self.shared.agent, url, offset, &check, piece)
    }

    fn vocabulary(&self) -> Result<Arc<Vocabulary>> {
        Ok(self.tokens()?.vocabulary())
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokens()?.encode(text)
    }

    fn store_rows(&self, session: &str, prefix: &str) -> Result<Vec<Row>> {
        self.stores()?.rows(&self.plugin, session, prefix)
    }

    fn store_change(&self, session: &str, changes: &[Change]) -> Result<bool> {
        self.stores()?.change(&self.plugin, session, changes)
    }
}

impl PluginServices {
    fn tokens(&self) -> Result<&dyn Tokens> {
        if !self.grants.allows_vocabulary() {
            return Err(self.deny("vocabulary", "the tokens of the model", "vocabulary = true"));
        }
        let none = || Error::unsupported("vocabulary", "this plugin works beside no model");
        self.tokens.as_deref().ok_or_else(none)
    }

    fn stores(&self) -> Result<&Stores> {
        if !self.grants.allows_store() {
            return Err(self.deny("store", "rows of its own", "store = true"));
        }
        let none = || Error::unsupported("store", "this host keeps no rows");
        self.shared.stores.as_ref().ok_or_else(none)
    }

    fn readable(&self, path: &Path) -> Result<std::path::PathBuf> {
        self.grants.readable(path).ok_or_else(|| {
            let wanted = path.display().to_string();
            self.deny("files", &wanted, &format!("read = [{wanted:?}]"))
        })
    }

    fn writable(&self, path: &Path) -> Result<std::path::PathBuf> {
        self.grants.writable(path).ok_or_else(|| {
            let wanted = path.display().to_string();
            self.deny("files", &wanted, &format!("write = [{wanted:?}]"))
        })
    }
}

/// The error of something that the operating system refused.
fn outside(what: impl fmt::Display, error: &io::Error) -> Error {
    Error::outside(what, error)
}
