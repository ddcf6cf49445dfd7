//! What a plugin may ask of the host, and what it was granted.
//!
//! Plugins reach files, network, processes, clocks, the tokens of the model and rows of their own only through a
//! [`Host`]. Everything is denied unless the configuration grants it; each denial is an error that names the line which
//! would allow it, and is recorded.

use std::fmt;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::vocabulary::Vocabulary;

/// A plugin's handle on the host: services, with this plugin's grants.
#[derive(Clone)]
pub struct Host {
    plugin: Arc<str>,
    services: Arc<dyn HostServices>,
}

impl Host {
    /// A handle for the plugin called `plugin`.
    pub fn new(plugin: &str, services: Arc<dyn HostServices>) -> Self {
        Self { plugin: plugin.into(), services }
    }

    /// The plugin that this handle was made for.
    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Logs for people who run the service.
    pub fn info(&self, message: fmt::Arguments<'_>) {
        self.services.log(&self.plugin, Level::Info, message);
    }

    /// Logs what somebody should look at.
    pub fn warn(&self, message: fmt::Arguments<'_>) {
        self.services.log(&self.plugin, Level::Warn, message);
    }

    /// Everything else: files, network, processes, clock, store.
    pub fn services(&self) -> &dyn HostServices {
        &*self.services
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For people who run the service.
    Info,
    /// Somebody should look at it.
    Warn,
}

/// Something that can be read and searched.
pub trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

/// The services behind a [`Host`]. Each checks the plugin's grants first.
///
/// # Errors
///
/// Every method that returns a result may return [`Error::Denied`](crate::Error::Denied) and, for
/// what the world does, [`Error::Outside`](crate::Error::Outside).
pub trait HostServices: Send + Sync {
    /// Takes a log line. Never denied.
    fn log(&self, plugin: &str, level: Level, message: fmt::Arguments<'_>);

    /// Microseconds since the host started. Never denied.
    fn monotonic_us(&self) -> u64;

    /// Seconds since 1970. Needs the grant `clock`.
    fn unix_seconds(&self) -> Result<f64>;

    /// Opens a file to read. Needs the grant `read` for the path.
    fn open(&self, path: &Path) -> Result<Box<dyn ReadSeek>>;

    /// Names in a folder, in order; empty if there is no such folder. Needs `read`.
    fn list(&self, folder: &Path) -> Result<Vec<String>>;

    /// Size of a file, or of all files below a folder, in bytes; nothing if it does not exist.
    /// Needs `read`.
    fn size_bytes(&self, path: &Path) -> Result<Option<u64>>;

    /// Appends to a file, creating it and its folder. Needs the grant `write` for the path.
    fn append(&self, path: &Path, bytes: &[u8]) -> Result<()>;

    /// Renames within a folder tree, atomically. Needs `write` for both.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Removes a file, or a folder with everything below. Needs `write`.
    fn remove(&self, path: &Path) -> Result<()>;

    /// Runs a program until it ends, calling `tick` about ten times a second. Needs the grant
    /// `process` for the program.
    fn run(&self, command: &Command, tick: &mut dyn FnMut()) -> Result<Ended>;

    /// Fetches `url` from byte `offset` on, handing out pieces as they come. Needs the grant
    /// `network` for the host of the URL.
    fn http_get(
        &self,
        url: &str,
        offset: u64,
        piece: &mut dyn FnMut(HttpPiece<'_>) -> Result<()>,
    ) -> Result<()>;

    /// The tokens of the model that the plugin works beside. Needs the grant `vocabulary`.
    ///
    /// # Errors
    ///
    /// Also [`Error::Unsupported`](crate::Error::Unsupported) for plugins that work beside no model.
    fn vocabulary(&self) -> Result<Arc<Vocabulary>>;

    /// Cuts text that stands within a text into tokens of that model; nothing in it is structure. Needs the grant
    /// `vocabulary`.
    ///
    /// # Errors
    ///
    /// As for [`vocabulary`](Self::vocabulary).
    fn encode(&self, text: &str) -> Result<Vec<u32>>;

    /// Rows that this plugin keeps of a session, those whose keys begin with `prefix`, by key ascending. Needs the
    /// grant `store`.
    ///
    /// # Errors
    ///
    /// Also [`Error::Malformed`](crate::Error::Malformed) for a session that is none: one is 1 to
    /// [`SESSION_BYTES_MAX`] bytes without control characters. [`Error::Unsupported`](crate::Error::Unsupported)
    /// where the host keeps nothing.
    fn store_rows(&self, session: &str, prefix: &str) -> Result<Vec<Row>>;

    /// Takes in all changes of a session, in order, or none of them; they outlive the host from then on. False, and
    /// nothing has changed, where a row that was to be [created](Change::Create) is there already. Needs the grant
    /// `store`.
    ///
    /// # Errors
    ///
    /// As for [`store_rows`](Self::store_rows); also [`Error::NoSpace`](crate::Error::NoSpace) beyond what the
    /// operator allows a session or a plugin, and [`Error::Malformed`](crate::Error::Malformed) for a key of more
    /// than [`KEY_BYTES_MAX`] bytes or an empty one.
    fn store_change(&self, session: &str, changes: &[Change]) -> Result<bool>;
}

/// Something that a plugin keeps. A session has one row for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name, by which rows are ordered as bytes.
    pub key: String,
    /// What the plugin keeps there.
    pub value: Vec<u8>,
}

/// What is to become of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is there with this value, whether it was there before or not.
    Put(Row),
    /// It is there with this value, and was not there before.
    Create(Row),
    /// The row of this key is not there.
    Remove(String),
}

/// Bytes of the longest session.
pub const SESSION_BYTES_MAX: usize = 128;

/// Bytes of the longest key of a row.
pub const KEY_BYTES_MAX: usize = 512;

/// Whether a text may name a session: 1 to [`SESSION_BYTES_MAX`] bytes without control characters.
pub fn is_session(text: &str) -> bool {
    (1..=SESSION_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// A program with its arguments: no shell in between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// Name or path of the program.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables set on top of the host's own.
    pub env: Vec<(String, String)>,
    /// Where it runs.
    pub folder: Option<PathBuf>,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status; nothing if a signal ended it.
    pub status: Option<i32>,
    /// Standard output, at most the last 64 KiB.
    pub output: String,
    /// Standard error, at most the last 64 KiB.
    pub errors: String,
}

/// Part of an HTTP answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpPiece<'a> {
    /// The answer begins.
    Start {
        /// Status code.
        status: u16,
        /// Bytes that follow, if announced.
        len: Option<u64>,
    },
    /// The next bytes.
    Bytes(&'a [u8]),
}
