//! Children of a check: the same program, with one part to run, and how each of them ended.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::verdict::NOT_RUN;
use crate::args::Check;

/// Begins what a child answers, so that what a plugin prints is no answer.
pub(super) const MARK: &str = "\n\u{1}probe\u{1}";

/// What a child answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) passed: bool,
    pub(super) message: String,
    /// What the plugin did that a plugin must not, as the loader was told.
    pub(super) faults: Vec<String>,
}

/// A child that ran.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) ended: Ended,
    /// A stream that belongs to the host, and the first line that the plugin wrote to it.
    pub(super) printed: Option<(&'static str, String)>,
}

/// How a child ended.
#[derive(Debug)]
pub(super) enum Ended {
    Answered(Answer),
    Hung(Duration),
    OutOfMemory,
    Exited(i32),
    Signalled(i32),
    NotStarted(String),
    NotRun,
}

impl Ended {
    pub(super) fn has_passed(&self) -> bool {
        matches!(self, Self::Answered(answer) if answer.passed && answer.faults.is_empty())
    }

    pub(super) fn has_panicked(&self) -> bool {
        let others = [DEADLINE, MEMORY, MALFORMED];
        self.faults().any(|fault| !others.iter().any(|other| fault.contains(other)))
    }

    pub(super) fn has_hung(&self) -> bool {
        matches!(self, Self::Hung(_)) || self.faults().any(|fault| fault.contains(DEADLINE))
    }

    pub(super) fn has_run_out(&self) -> bool {
        matches!(self, Self::OutOfMemory) || self.faults().any(|fault| fault.contains(MEMORY))
    }

    fn faults(&self) -> impl Iterator<Item = &str> {
        let faults = if let Self::Answered(answer) = self { &answer.faults[..] } else { &[] };
        faults.iter().map(String::as_str)
    }

    pub(super) fn has_gone(&self) -> bool {
        matches!(self, Self::Exited(_) | Self::Signalled(_))
    }

    /// What the check says.
    pub(super) fn message(&self) -> Result<String> {
        if self.has_passed() { Ok(self.sentence()) } else { bail!(self.sentence()) }
    }

    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Answered(answer) => match answer.faults.first() {
                Some(fault) if answer.passed => fault.clone(),
                Some(fault) if !answer.message.contains(fault.as_str()) => {
                    format!("{}: {fault}", answer.message)
                }
                _ => answer.message.clone(),
            },
            Self::Hung(limit) => format!("it hangs: nothing after {} s", limit.as_secs()),
            Self::OutOfMemory => "it ran out of memory: more than 4 GiB".to_owned(),
            Self::Exited(status) => format!("it ended the process with status {status}"),
            Self::Signalled(signal) => match signal {
                6 => "it aborted the process".to_owned(),
                11 | 7 => "it crashed: memory that is not its own".to_owned(),
                other => format!("the process died of signal {other}"),
            },
            Self::NotStarted(why) => format!("the child could not be started: {why}"),
            Self::NotRun => NOT_RUN.to_owned(),
        }
    }
}

/// What the sandbox says when it stops an instance at one of its limits.
const DEADLINE: &str = "stopped at its deadline";
const MEMORY: &str = "`memory_bytes_max`";

/// What the host says of an answer that it cannot take.
const MALFORMED: &str = ": malformed: expected ";

/// Starts children for one plugin file, in a folder that goes away with this.
pub(super) struct Children<'a> {
    args: &'a Check,
    file: PathBuf,
    program: PathBuf,
    folder: PathBuf,
}

impl<'a> Children<'a> {
    pub(super) fn new(args: &'a Check) -> Result<Self> {
        let program = std::env::current_exe().context("the path of this program")?;
        let file = args.file.canonicalize()?;
        let name = format!("jackfield-check-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self { args, file, program, folder })
    }

    /// Runs one part to its end, whatever that is.
    pub(super) fn run(&self, part: &str) -> Ran {
        self.try_run(part).unwrap_or_else(|error| Ran {
            ended: Ended::NotStarted(crate::sentence(&error)),
            printed: None,
        })
    }

    fn try_run(&self, part: &str) -> Result<Ran> {
        // Files, not pipes: a plugin that prints without end fills no pipe that nobody reads.
        let (out, err) = (self.folder.join("out"), self.folder.join("err"));
        let mut child = Command::new(&self.program)
            .args(["plugin".as_ref(), "probe".as_ref(), OsStr::new(part)])
            .args([&self.file, &self.folder])
            .arg(self.args.seed.to_string())
            .args(&self.args.config)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .spawn()?;
        let limit = Duration::from_secs(self.args.seconds.max(1));
        let Some(status) = wait(&mut child, limit)? else {
            return Ok(Ran { ended: Ended::Hung(limit), printed: None });
        };
        let (out, err) = (tail(&out)?, tail(&err)?);
        let ended = ended(status, &out, &err);
        let printed = printed(&ended, &out, &err);
        Ok(Ran { ended, printed })
    }
}

impl Drop for Children<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The child's status; nothing if it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let (start, mut pause) = (Instant::now(), Duration::from_micros(200));
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn ended(status: ExitStatus, out: &str, err: &str) -> Ended {
    if err.contains("memory allocation of") && err.contains("failed") {
        return Ended::OutOfMemory;
    }
    let answer = out.rsplit_once(MARK).and_then(|(_, json)| serde_json::from_str(json).ok());
    match (answer, status.code(), status.signal()) {
        (Some(answer), Some(0), _) => Ended::Answered(answer),
        (_, Some(code), _) => Ended::Exited(code),
        (_, None, Some(9)) => Ended::OutOfMemory,
        (_, None, signal) => Ended::Signalled(signal.unwrap_or(0)),
    }
}

/// What a plugin wrote that did nothing worse: the stream and the first line.
fn printed(ended: &Ended, out: &str, err: &str) -> Option<(&'static str, String)> {
    let Ended::Answered(answer) = ended else { return None };
    // What a panic prints is told with the panic.
    let err = if answer.faults.is_empty() { err } else { "" };
    let before = out.rsplit_once(MARK).map_or("", |(before, _)| before);
    let streams = [("standard output", before), ("standard error", err)];
    let (stream, text) = streams.into_iter().find(|(_, text)| !text.is_empty())?;
    let line = text.lines().find(|line| !line.is_empty()).unwrap_or_default();
    Some((stream, line.chars().take(LINE_MAX).collect()))
}

/// The end of what a child wrote.
fn tail(path: &Path) -> Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

const TAIL_BYTES_MAX: u64 = 1 << 16;

/// Most characters of a printed line that are told.
const LINE_MAX: usize = 80;
