//! A machine in memory for plugins that use host services: files, scripted answers and programs.
//!
//! Nothing is denied unless a test says so. Not the host of a traced plugin: those need none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::host::{
    Change, Command, Ended, Host, HostServices, HttpPiece, Level, ReadSeek, Row, is_session,
};
use crate::vocabulary::Vocabulary;

/// The machine. Clones are the same machine.
#[derive(Clone, Default)]
pub struct Machine {
    state: Arc<Mutex<State>>,
}

/// What a machine answers for one address.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Everything that the address holds.
    pub body: Vec<u8>,
    /// Status code instead of 200 and 206.
    pub status: Option<u16>,
    /// Whether every answer holds the whole body, whatever was asked for.
    pub ignores_offset: bool,
    /// The first connections break after this many bytes each.
    pub breaks_after: Vec<usize>,
}

type Program = Arc<dyn Fn(&Command, &Machine) -> Result<Ended> + Send + Sync>;

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Vec<u8>>,
    answers: BTreeMap<String, Answer>,
    programs: BTreeMap<String, Program>,
    denied: BTreeSet<&'static str>,
    requests: Vec<(String, u64)>,
    commands: Vec<Command>,
    log: Vec<String>,
    vocabulary: Option<Arc<Vocabulary>>,
    /// What plugins keep, by session and key.
    rows: BTreeMap<(String, String), Vec<u8>>,
}

impl Machine {
    /// An empty machine.
    pub fn new() -> Self {
        Self::default()
    }

    /// The host of the plugin called `plugin` on this machine.
    pub fn host(&self, plugin: &str) -> Host {
        Host::new(plugin, Arc::new(self.clone()))
    }

    /// Puts a file there.
    pub fn put(&self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) {
        self.state().files.insert(path.into(), bytes.into());
    }

    /// The bytes of a file.
    pub fn file(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.state().files.get(path.as_ref()).cloned()
    }

    /// The paths of all files, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state().files.keys().cloned().collect()
    }

    /// What `url` is answered with; other addresses answer 404.
    pub fn answer(&self, url: &str, answer: Answer) {
        self.state().answers.insert(url.to_owned(), answer);
    }

    /// What happens when `program` is run; other programs are not found.
    pub fn program(
        &self,
        program: &str,
        run: impl Fn(&Command, &Self) -> Result<Ended> + Send + Sync + 'static,
    ) {
        self.state().programs.insert(program.to_owned(), Arc::new(run));
    }

    /// Lets plugins see the tokens of a model; without, there is none.
    pub fn speak(&self, vocabulary: Vocabulary) {
        self.state().vocabulary = Some(Arc::new(vocabulary));
    }

    /// Denies a service from now on: `files`, `network`, `processes`, `clock`, `vocabulary` or `store`.
    pub fn deny(&self, service: &'static str) {
        self.state().denied.insert(service);
    }

    /// Addresses that were asked for, each with its offset.
    pub fn requests(&self) -> Vec<(String, u64)> {
        self.state().requests.clone()
    }

    /// Programs that were run.
    pub fn commands(&self) -> Vec<Command> {
        self.state().commands.clone()
    }

    /// What was logged.
    pub fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, service: &'static str, wanted: &str) -> Result<()> {
        if self.state().denied.contains(service) {
            let (plugin, wanted) = ("test".to_owned(), wanted.to_owned());
            return Err(Error::Denied {
                plugin,
                service: service.into(),
                wanted,
                grant: "a grant".to_owned(),
            });
        }
        Ok(())
    }

    fn check_session(&self, session: &str) -> Result<()> {
        self.check("store", session)?;
        let fair = is_session(session);
        let wrong =
            || Error::malformed("session", "1 to 128 bytes without control characters", session);
        fair.then_some(()).ok_or_else(wrong)
    }

    fn check_path(&self, path: &Path) -> Result<()> {
        self.check("files", &path.display().to_string())
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("files", &self.files()).finish_non_exhaustive()
    }
}

impl HostServices for Machine {
    fn log(&self, plugin: &str, _level: Level, message: fmt::Arguments<'_>) {
        self.state().log.push(format!("{plugin}: {message}"));
    }

    fn monotonic_us(&self) -> u64 {
        0
    }

    fn unix_seconds(&self) -> Result<f64> {
        self.check("clock", "the time of day")?;
        Ok(1_000_000.5)
    }

    fn open(&self, path: &Path) -> Result<Box<dyn ReadSeek>> {
        self.check_path(path)?;
        let bytes =
            self.file(path).ok_or_else(|| Error::outside(path.display(), "no such file"))?;
        Ok(Box::new(Cursor::new(bytes)))
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>> {
        self.check_path(folder)?;
        let first = |path: &PathBuf| path.strip_prefix(folder).ok()?.iter().next().map(str_of);
        let names: BTreeSet<String> = self.state().files.keys().filter_map(first).collect();
        Ok(names.into_iter().collect())
    }

    fn size_bytes(&self, path: &Path) -> Result<Option<u64>> {
        self.check_path(path)?;
        let state = self.state();
        let below = state.files.iter().filter(|(file, _)| file.starts_with(path));
        Ok(below.map(|(_, bytes)| bytes.len() as u64).reduce(|a, b| a + b))
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.check_path(path)?;
        self.state().files.entry(path.to_owned()).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.check_path(to)?;
        let mut state = self.state();
        let bytes = state.files.remove(from);
        let bytes = bytes.ok_or_else(|| Error::outside(from.display(), "no such file"))?;
        state.files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.check_path(path)?;
        self.state().files.retain(|file, _| !file.starts_with(path));
        Ok(())
    }

    fn run(&self, command: &Command, tick: &mut dyn FnMut()) -> Result<Ended> {
        self.check("processes", &command.program)?;
        self.state().commands.push(command.clone());
        let program = self.state().programs.get(&command.program).cloned();
        let not_found = || Error::NotFound {
            kind: "program".to_owned(),
            name: command.program.clone(),
            known: String::new(),
        };
        let program = program.ok_or_else(not_found)?;
        tick();
        program(command, self)
    }

    fn http_get(
        &self,
        url: &str,
        offset: u64,
        piece: &mut dyn FnMut(HttpPiece<'_>) -> Result<()>,
    ) -> Result<()> {
        self.check("network", url)?;
        self.state().requests.push((url.to_owned(), offset));
        let (answer, breaks_after) = {
            let mut state = self.state();
            let Some(answer) = state.answers.get_mut(url) else {
                drop(state);
                return piece(HttpPiece::Start { status: 404, len: Some(0) });
            };
            let breaks = (!answer.breaks_after.is_empty()).then(|| answer.breaks_after.remove(0));
            (answer.clone(), breaks)
        };
        let start = if answer.ignores_offset { 0 } else { offset as usize };
        let usual = if start > 0 { 206 } else { 200 };
        let Some(rest) = answer.body.get(start..).filter(|rest| start == 0 || !rest.is_empty())
        else {
            return piece(HttpPiece::Start { status: 416, len: Some(0) });
        };
        let status = answer.status.unwrap_or(usual);
        piece(HttpPiece::Start { status, len: Some(rest.len() as u64) })?;
        let sent = &rest[..breaks_after.unwrap_or(rest.len()).min(rest.len())];
        for bytes in sent.chunks(7) {
            piece(HttpPiece::Bytes(bytes))?;
        }
        if sent.len() < rest.len() {
            return Err(Error::outside(url, "the connection broke"));
        }
        Ok(())
    }

    fn vocabulary(&self) -> Result<Arc<Vocabulary>> {
        self.check("vocabulary", "the tokens of the model")?;
        let vocabulary = self.state().vocabulary.clone();
        vocabulary.ok_or_else(|| Error::unsupported("vocabulary", "no model is there"))
    }

    /// The longest token that fits, piece by piece; the text has to be one of tokens.
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let vocabulary = self.vocabulary()?;
        let (mut rest, mut ids) = (text.as_bytes(), Vec::new());
        while !rest.is_empty() {
            let fits = |id: &u32| {
                let token = vocabulary.bytes(*id);
                !token.is_empty() && !vocabulary.is_special(*id) && rest.starts_with(token)
            };
            let fitting = (0..vocabulary.len() as u32).filter(fits);
            let longest = fitting.max_by_key(|id| vocabulary.bytes(*id).len());
            let id = longest.ok_or_else(|| Error::malformed("text", "one of tokens", text))?;
            rest = &rest[vocabulary.bytes(id).len()..];
            ids.push(id);
        }
        Ok(ids)
    }

    fn store_rows(&self, session: &str, prefix: &str) -> Result<Vec<Row>> {
        self.check_session(session)?;
        let state = self.state();
        let rows =
            state.rows.iter().filter(|((of, key), _)| of == session && key.starts_with(prefix));
        Ok(rows.map(|((_, key), value)| Row { key: key.clone(), value: value.clone() }).collect())
    }

    fn store_change(&self, session: &str, changes: &[Change]) -> Result<bool> {
        self.check_session(session)?;
        let mut state = self.state();
        let mut rows = state.rows.clone();
        for change in changes {
            match change {
                Change::Put(Row { key, value }) => {
                    rows.insert((session.to_owned(), key.clone()), value.clone());
                }
                Change::Create(Row { key, value }) => {
                    let place = (session.to_owned(), key.clone());
                    if rows.insert(place, value.clone()).is_some() {
                        return Ok(false);
                    }
                }
                Change::Remove(key) => _ = rows.remove(&(session.to_owned(), key.clone())),
            }
        }
        state.rows = rows;
        Ok(true)
    }
}

fn str_of(name: &std::ffi::OsStr) -> String {
    name.to_string_lossy().into_owned()
}
