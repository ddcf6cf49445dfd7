//! The store service: rows that plugins keep, one SQLite database for each plugin.
//!
//! What a plugin keeps no other reads, and damage to one database is no damage to another. The plugin sees
//! sessions, keys and values: no file, and no language of queries.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plugin_api::host::{Change, KEY_BYTES_MAX, Row, SESSION_BYTES_MAX, is_session};
use plugin_api::{Config, Error, Result};
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};

/// Where rows are kept, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// The folder of the databases, made when something is kept.
    pub folder: PathBuf,
    /// Most bytes of the keys and values of one session.
    pub session_bytes_max: u64,
    /// Most bytes of the database of one plugin.
    pub plugin_bytes_max: u64,
}

impl StoreOptions {
    /// The defaults: 16 MiB a session, 1 GiB a plugin.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), session_bytes_max: 16 << 20, plugin_bytes_max: 1 << 30 }
    }

    /// Reads the table `store`: `folder`, `session_kib`, `plugin_mib`. `folder` is where nothing else is said.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for values out of their range.
    pub fn from_config(table: Option<&Config>, folder: impl Into<PathBuf>) -> Result<Self> {
        let mut options = Self::new(folder);
        let Some(table) = table else { return Ok(options) };
        if table.has("folder") {
            options.folder = table.text("folder")?.into();
        }
        options.session_bytes_max = table.count_or("session_kib", 16 << 10, 1..=1 << 20)? << 10;
        options.plugin_bytes_max = table.count_or("plugin_mib", 1 << 10, 1..=1 << 20)? << 20;
        Ok(options)
    }
}

/// The databases of all plugins, each opened when it is first asked.
pub(super) struct Stores {
    options: StoreOptions,
    open: Mutex<BTreeMap<String, Arc<Mutex<Connection>>>>,
}

impl Stores {
    pub(super) fn new(options: StoreOptions) -> Self {
        Self { options, open: Mutex::default() }
    }

    /// The rows of a session whose keys begin with `prefix`, by key ascending.
    pub(super) fn rows(&self, plugin: &str, session: &str, prefix: &str) -> Result<Vec<Row>> {
        check_session(session)?;
        let held = self.connection(plugin)?;
        let connection = lock(&held);
        let read = || -> rusqlite::Result<Vec<Row>> {
            let select =
                "SELECT key, value FROM rows WHERE session = ?1 AND key >= ?2 ORDER BY key";
            let mut select = connection.prepare_cached(select)?;
            let row = |row: &rusqlite::Row<'_>| Ok(Row { key: row.get(0)?, value: row.get(1)? });
            let mut rows = Vec::new();
            for row in select.query_map(params![session, prefix], row)? {
                let row = row?;
                if !row.key.starts_with(prefix) {
                    break;
                }
                rows.push(row);
            }
            Ok(rows)
        };
        read().map_err(|error| failed(plugin, &error))
    }

    /// Takes in all changes, or none.
    pub(super) fn change(&self, plugin: &str, session: &str, changes: &[Change]) -> Result<bool> {
        check_session(session)?;
        changes.iter().try_for_each(check_key)?;
        let held = self.connection(plugin)?;
        let mut connection = lock(&held);
        let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = begun.map_err(|error| failed(plugin, &error))?;
        // Dropped before its end, a transaction leaves everything as it was.
        match apply(&transaction, session, changes)
            .map_err(|error| full(plugin, &error, changes))?
        {
            None => return Ok(false),
            Some(used) if used > self.options.session_bytes_max => {
                let what = format!("store of plugin `{plugin}`, one session, in bytes");
                let needed = used - self.options.session_bytes_max;
                return Err(Error::NoSpace { what: what.into(), needed, free: 0 });
            }
            Some(_) => {}
        }
        let done = transaction.commit();
        done.map_err(|error| full(plugin, &error, changes))?;
        Ok(true)
    }

    fn connection(&self, plugin: &str) -> Result<Arc<Mutex<Connection>>> {
        let mut open = lock(&self.open);
        if let Some(connection) = open.get(plugin) {
            return Ok(Arc::clone(connection));
        }
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if plugin.is_empty() || !plugin.chars().all(is_name) {
            return Err(Error::malformed("store", "a plugin with a name in kebab-case", plugin));
        }
        let path = self.options.folder.join(format!("{plugin}.sqlite3"));
        let opened = open_database(plugin, &path, self.options.plugin_bytes_max);
        // The path is for operators: what the plugin is told may reach its clients.
        let opened = opened.inspect_err(|error| {
            tracing::error!(plugin, path = %path.display(), %error, "the store cannot be opened");
        })?;
        let connection = Arc::new(Mutex::new(opened));
        open.insert(plugin.to_owned(), Arc::clone(&connection));
        Ok(connection)
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Opens a database that is whole, or makes one where there is none.
fn open_database(plugin: &str, path: &Path, bytes_max: u64) -> Result<Connection> {
    if !path.exists() {
        create(path)
            .map_err(|error| Error::outside(format!("store of plugin `{plugin}`"), error))?;
    }
    let open = || -> rusqlite::Result<(Connection, i64, i64, String)> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIME)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (id, version) = (number("application_id")?, number("user_version")?);
        let pages = bytes_max / number("page_size")?.max(1) as u64;
        connection.pragma_update(None, "max_page_count", pages.max(2) as i64)?;
        let said = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
        Ok((connection, id, version, said))
    };
    let (connection, id, version, said) = open().map_err(|error| failed(plugin, &error))?;
    let expected = format!("a whole database of version {VERSION}");
    let found = match (id, version, &*said) {
        (APPLICATION_ID, VERSION, "ok") => return Ok(connection),
        (APPLICATION_ID, VERSION, said) => said.to_owned(),
        (APPLICATION_ID, version, _) => format!("version {version}"),
        _ => "a file that is empty or something else".to_owned(),
    };
    Err(Error::malformed(format!("store of plugin `{plugin}`"), expected, found))
}

/// Makes an empty database beside its place and moves it there whole, unless somebody else was faster: a file in
/// that place that is empty is then always damage.
fn create(path: &Path) -> Result<(), String> {
    let folder = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    // Hosts of one process make them side by side.
    static MADE: AtomicU64 = AtomicU64::new(0);
    let nth = MADE.fetch_add(1, Ordering::Relaxed);
    let new = path.with_extension(format!("new-{}-{nth}", std::process::id()));
    let _ = std::fs::remove_file(&new);
    let make = || -> rusqlite::Result<()> {
        let connection = Connection::open(&new)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        connection.execute_batch(SCHEMA)?;
        connection.pragma_update(None, "user_version", VERSION)?;
        connection.close().map_err(|(_, error)| error)
    };
    let made = make().map_err(|error| error.to_string());
    let moved = made.and_then(|()| match std::fs::hard_link(&new, path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.to_string()),
        _ => Ok(()),
    });
    let _ = std::fs::remove_file(&new);
    moved
}

/// Makes the changes. Returns the bytes that the session has then; nothing where a row was not to be there.
fn apply(
    transaction: &Transaction<'_>,
    session: &str,
    changes: &[Change],
) -> rusqlite::Result<Option<u64>> {
    for change in changes {
        match change {
            Change::Put(Row { key, value }) => {
                let put = "INSERT INTO rows VALUES (?1, ?2, ?3) \
                           ON CONFLICT DO UPDATE SET value = excluded.value";
                transaction.prepare_cached(put)?.execute(params![session, key, value])?;
            }
            Change::Create(Row { key, value }) => {
                let create = "INSERT INTO rows VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
                let made =
                    transaction.prepare_cached(create)?.execute(params![session, key, value])?;
                if made == 0 {
                    return Ok(None);
                }
            }
            Change::Remove(key) => {
                let remove = "DELETE FROM rows WHERE session = ?1 AND key = ?2";
                transaction.prepare_cached(remove)?.execute(params![session, key])?;
            }
        }
    }
    let used = "SELECT coalesce(sum(octet_length(key) + octet_length(value)), 0) FROM rows WHERE session = ?1";
    let used: i64 = transaction.prepare_cached(used)?.query_row([session], |row| row.get(0))?;
    Ok(Some(used.unsigned_abs()))
}

fn check_session(session: &str) -> Result<()> {
    let expected = || format!("1 to {SESSION_BYTES_MAX} bytes without control characters");
    let wrong = || Error::malformed("session", expected(), format!("{session:?}"));
    is_session(session).then_some(()).ok_or_else(wrong)
}

fn check_key(change: &Change) -> Result<()> {
    let (Change::Put(Row { key, .. }) | Change::Create(Row { key, .. }) | Change::Remove(key)) =
        change;
    let is_fair = (1..=KEY_BYTES_MAX).contains(&key.len());
    let wrong =
        || Error::malformed("key of a row", format!("1 to {KEY_BYTES_MAX} bytes"), key.len());
    is_fair.then_some(()).ok_or_else(wrong)
}

/// The error of a change, where the database may have no room for it.
fn full(plugin: &str, error: &rusqlite::Error, changes: &[Change]) -> Error {
    if error.sqlite_error_code() != Some(ErrorCode::DiskFull) {
        return failed(plugin, error);
    }
    let bytes = |row: &Row| row.key.len() + row.value.len();
    let needed = changes.iter().map(|change| match change {
        Change::Put(row) | Change::Create(row) => bytes(row) as u64,
        Change::Remove(_) => 0,
    });
    let what = format!("store of plugin `{plugin}`, in bytes");
    Error::NoSpace { what: what.into(), needed: needed.sum(), free: 0 }
}

/// What the database says, without the path: it may reach clients.
fn failed(plugin: &str, error: &rusqlite::Error) -> Error {
    let what = format!("store of plugin `{plugin}`");
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            let expected = format!("a whole database of version {VERSION}");
            let hint = "restore it from a copy, or move it away to begin anew";
            Error::malformed(what, expected, format!("{}: {hint}", said(error)))
        }
        Some(ErrorCode::DatabaseBusy) => Error::outside(
            what,
            format!("another process has held it for {} s", BUSY_TIME.as_secs()),
        ),
        _ => Error::outside(what, said(error)),
    }
}

fn said(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(code, _) => code.to_string(),
        other => other.to_string(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a call waits for another process.
const BUSY_TIME: Duration = Duration::from_secs(5);

/// "jfst" as a number: says that a file is a store.
const APPLICATION_ID: i64 = 0x6A66_7374;

/// Of the table below.
const VERSION: i64 = 1;

const SCHEMA: &str = "CREATE TABLE rows (\
    session TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (session, key)\
) STRICT, WITHOUT ROWID";
