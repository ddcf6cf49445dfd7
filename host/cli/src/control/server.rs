//! The side that takes orders: a thread beside the engine.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jackfield_loader::{Plugins, PluginsError, SwapReport};
use jackfield_runtime::Reach;

use super::{Answer, Ask, Done, File, Slot, folder};

/// Takes orders until it is dropped.
pub(crate) struct Server {
    path: PathBuf,
}

impl Server {
    /// Listens under the number of this process.
    pub(crate) fn start(plugins: Arc<Plugins>) -> Result<Self> {
        let folder = folder();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let meta = std::fs::symlink_metadata(&folder)?;
        let mine = rustix::process::getuid().as_raw();
        ensure!(
            meta.is_dir() && meta.uid() == mine && meta.permissions().mode() & 0o077 == 0,
            "{}: expected a folder that only this user may enter",
            folder.display()
        );
        let path = folder.join(format!("{}.sock", std::process::id()));
        // Left behind by a process that had this number before.
        let _ = std::fs::remove_file(&path);
        let listener =
            UnixListener::bind(&path).with_context(|| format!("socket {}", path.display()))?;
        let serve = move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                // Whoever hangs up gets no answer; everybody else goes on.
                let _ = serve(&plugins, &stream);
            }
        };
        std::thread::Builder::new().name("plugin control".to_owned()).spawn(serve)?;
        Ok(Self { path })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve(plugins: &Plugins, stream: &UnixStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let mut line = String::new();
    BufReader::new(stream).take(LINE_BYTES_MAX).read_line(&mut line)?;
    let answer = match serde_json::from_str(&line) {
        Ok(ask) => answer(plugins, ask),
        Err(error) => Answer::Refused { message: format!("expected an order in JSON: {error}") },
    };
    let mut text = serde_json::to_string(&answer)?;
    text.push('\n');
    let mut stream = stream;
    stream.write_all(text.as_bytes())
}

/// Does what is asked.
pub(crate) fn answer(plugins: &Plugins, ask: Ask) -> Answer {
    let done = |reports: Result<Vec<SwapReport>, PluginsError>, verb: &str| match reports {
        Ok(reports) => {
            let times = reports.iter().filter_map(|report| report.swapped.as_ref());
            // The times of a set stand with each of its members.
            let took_us = times.map(|s| s.prepare_us + s.wait_us).max().unwrap_or(0);
            let swapped = reports.iter().map(|report| swapped(report, verb)).collect();
            Answer::Swapped { swapped, took_us }
        }
        Err(error) => Answer::Refused { message: chain(&error) },
    };
    match ask {
        Ask::List => list(plugins),
        Ask::Swap { files } => done(plugins.swap_files(&files), "swapped in"),
        Ask::Rollback { kind, slot } => done(plugins.rollback(&kind, &slot), "put back"),
    }
}

fn swapped(report: &SwapReport, verb: &str) -> Done {
    let (active, reach) = match &report.swapped {
        Some(s) => (Some(s.active.to_string()), s.reach),
        None => (None, Reach::MidStream),
    };
    let reach = match reach {
        Reach::MidStream => "from the next token on",
        Reach::NewRequests => "for new requests",
        _ => "at the next step",
    };
    let what = active.as_deref().unwrap_or(&report.slot);
    let from = report.path.as_deref().unwrap_or("what is linked in");
    let message = format!("{} `{}`: {what} {verb} from {from}, {reach}", report.kind, report.slot);
    Done { message, active, reach: reach.to_owned() }
}

fn list(plugins: &Plugins) -> Answer {
    let registry = plugins.registry().read().unwrap_or_else(std::sync::PoisonError::into_inner);
    let lane_of = |kind: &str, name: &str| {
        let mut all = registry.iter();
        let found = all.find(|(provided, _)| (provided.kind, &*provided.name) == (kind, name));
        found.map_or_else(String::new, |(_, info)| info.lane.to_string())
    };
    let slots = plugins.slots().into_iter().map(|status| Slot {
        lane: lane_of(&status.kind, &status.active.name),
        active: status.active.to_string(),
        requests: status.requests,
        draining: status.draining.iter().map(|(label, n)| (label.to_string(), *n)).collect(),
        kind: status.kind,
        slot: status.slot,
    });
    let files = plugins.loaded().into_iter().filter_map(|loaded| {
        let origin = loaded.info.origin?;
        Some(File {
            kind: loaded.kind,
            name: loaded.info.name,
            lane: loaded.info.lane.to_string(),
            api: loaded.info.api,
            path: origin.path,
            sha256: origin.hash,
            instances: loaded.instances,
            calls: loaded.calls,
            faults: loaded.faults,
            memory: loaded.memory,
        })
    });
    Answer::List {
        slots: slots.collect(),
        files: files.collect(),
        native_mapped: plugins.native_mapped(),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// A client that says nothing is hung up on.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const LINE_BYTES_MAX: u64 = 1 << 16;
