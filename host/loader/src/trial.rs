//! Trials: a native plugin runs in a process of its own before it runs in this one.
//!
//! What a library does when it is opened and started cannot be undone: it may crash, hang, end the
//! process or take all memory. So a child does it first, under limits, and this process follows
//! only where the child came back. A trial guards against broken plugins, not against ones that
//! behave while they are watched: those are never trusted with this lane.

use std::ffi::OsString;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_api::wire::{from_bytes, to_bytes};
use plugin_api::{Config, Error};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::error::LoadError;
use crate::manifest::PluginManifest;
use crate::native;
use crate::owner::Generation;

/// How trials are run.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Program and first arguments that call [`main`] with the arguments that follow.
    pub command: Vec<OsString>,
    /// Longest time that opening, starting and ending a plugin may take.
    pub limit: Duration,
    /// Most bytes of address space.
    pub memory_bytes_max: u64,
}

impl Trial {
    /// Trials by the program `command`, with the limits that suit a plugin.
    pub fn new(command: Vec<OsString>) -> Self {
        Self { command, limit: Duration::from_secs(5), memory_bytes_max: 4 << 30 }
    }

    /// Lets a child open the library at `path`, start and end an instance of it.
    pub(crate) fn run(
        &self,
        file: &str,
        path: &Path,
        symbol: &str,
        manifest: &PluginManifest,
        config: &Config,
    ) -> Result<(), LoadError> {
        let failed = |found: String| LoadError::Trial { file: file.to_owned(), found };
        let (program, first) = self
            .command
            .split_first()
            .ok_or_else(|| failed("no program is configured that could".to_owned()))?;
        // A socket both ways, as the child's standard input: what a plugin prints goes nowhere, so
        // that it can neither fill a pipe that nobody empties nor be taken for an answer.
        let (here, there) = UnixStream::pair().map_err(|error| failed(error.to_string()))?;
        let mut child = Command::new(program)
            .args(first)
            .arg(path)
            .args([symbol, &manifest.kind, &manifest.name, &self.memory_bytes_max.to_string()])
            .env_clear()
            .stdin(OwnedFd::from(there))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed(format!("cannot start: {error}")))?;
        let talked = self.talk(&mut child, here, &to_bytes(config));
        match talked.map_err(|error| failed(error.to_string()))? {
            (None, _) => Err(failed(format!("it hangs: nothing after {:?}", self.limit))),
            (Some(status), answer) => verdict(file, status, &answer),
        }
    }

    /// The child's status, nothing if it had to be killed, and what it answered.
    fn talk(
        &self,
        child: &mut Child,
        mut stream: UnixStream,
        config: &[u8],
    ) -> std::io::Result<(Option<ExitStatus>, Vec<u8>)> {
        let start = Instant::now();
        stream.set_write_timeout(Some(self.limit))?;
        // A child that is gone already says so by its status.
        let _ = stream.write_all(config);
        let _ = stream.shutdown(Shutdown::Write);
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        let mut is_open = true;
        loop {
            if is_open {
                stream.set_read_timeout(Some(PAUSE))?;
                is_open = take(&mut stream, &mut part, &mut answer);
            } else {
                // It has ended, or is about to.
                std::thread::sleep(Duration::from_micros(200));
            }
            if let Some(status) = child.try_wait()? {
                // Whoever it started may keep its end open for ever: what is there is all.
                stream.set_read_timeout(Some(Duration::from_micros(1)))?;
                while is_open {
                    let before = answer.len();
                    is_open = take(&mut stream, &mut part, &mut answer) && answer.len() > before;
                }
                return Ok((Some(status), answer));
            }
            if start.elapsed() > self.limit {
                child.kill()?;
                child.wait()?;
                return Ok((None, answer));
            }
        }
    }
}

/// Appends what has come, if anything did in time, up to the most that an answer has; whether more
/// may come.
fn take(stream: &mut UnixStream, part: &mut [u8], answer: &mut Vec<u8>) -> bool {
    match stream.read(part) {
        Ok(0) => false,
        Ok(n) => {
            let room = ANSWER_BYTES_MAX - answer.len();
            answer.extend_from_slice(&part[..n.min(room)]);
            true
        }
        Err(error) => {
            matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
            )
        }
    }
}

fn verdict(file: &str, status: ExitStatus, answer: &[u8]) -> Result<(), LoadError> {
    let failed = |found: String| LoadError::Trial { file: file.to_owned(), found };
    let answer = (!answer.is_empty()).then_some(answer);
    match (status.code(), status.signal(), answer) {
        (Some(0), _, Some(answer)) => match from_bytes::<Option<Error>>(answer) {
            Ok(None) => Ok(()),
            Ok(Some(source)) => {
                Err(LoadError::Start { file: file.to_owned(), stage: "starting it", source })
            }
            Err(error) => Err(failed(format!("an answer that cannot be read: {error}"))),
        },
        (Some(2), _, Some(message)) => Err(failed(String::from_utf8_lossy(message).into_owned())),
        (Some(3), _, Some(difference)) => {
            let difference = String::from_utf8_lossy(difference).into_owned();
            Err(LoadError::Abi { file: file.to_owned(), difference })
        }
        (Some(code), ..) => Err(failed(format!("it ended the process with status {code}"))),
        (None, Some(signal), _) => Err(failed(format!("the process died of signal {signal}"))),
        (None, None, _) => Err(failed("the process ended".to_owned())),
    }
}

/// What the child does: opens the library that its arguments name, starts and ends an instance
/// with the configuration from its standard input, a socket, and answers there.
pub fn main(args: &[OsString]) -> ExitCode {
    let Ok(stream) = std::io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let (answer, code) = match attempt(args) {
        Ok(error) => (to_bytes(&error), 0),
        Err(LoadError::Abi { difference, .. }) => (difference.into_bytes(), 3),
        Err(error) => (error.to_string().into_bytes(), 2),
    };
    match UnixStream::from(stream).write_all(&answer) {
        Ok(()) => ExitCode::from(code),
        Err(_) => ExitCode::FAILURE,
    }
}

/// The plugin's own error, if it has one; else ours.
fn attempt(args: &[OsString]) -> Result<Option<Error>, LoadError> {
    let text = |i: usize| args.get(i).and_then(|arg| arg.to_str()).unwrap_or_default();
    let path = Path::new(args.first().map_or("", |arg| arg.to_str().unwrap_or_default()));
    let file = path.display().to_string();
    let memory = text(4).parse::<u64>().unwrap_or(4 << 30);
    let limits = [(Resource::As, memory), (Resource::Core, 0)];
    for (resource, most) in limits {
        // A limit that the system refuses leaves the time limit.
        let _ = setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    let (kind, name) = (text(2), text(3));
    let foreign = native::open(&file, path, text(1), kind, None)?;
    let start = || {
        let config: Config = from_bytes(&bytes)?;
        let generation = Generation::unnamed(name);
        let owners = Arc::clone(&generation);
        let provided = foreign.provided(kind, name, move || owners.owner(None))?;
        for _ in 0..STARTS {
            drop((provided.make)(&config)?);
            // What making and ending it has no error for was told to its owner.
            if let (_, Some(fault)) = generation.faults() {
                return Err(fault);
            }
        }
        Ok(())
    };
    Ok(start().err())
}

const ANSWER_BYTES_MAX: usize = 1 << 16;
/// How long a look for an answer waits before it is looked for the end.
const PAUSE: Duration = Duration::from_millis(2);
/// The second start finds what the first left behind.
const STARTS: usize = 2;
