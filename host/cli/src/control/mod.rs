//! The local socket on which a running process takes orders about its plugins.
//!
//! One line of JSON asks, one line answers. The socket lies in a folder that only its owner may
//! enter; whoever can connect may swap plugins.

pub(crate) mod client;
mod server;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use server::{Server, answer};

/// What a running process may be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// What fills each slot, and which files were loaded.
    List,
    /// Let the plugins in files fill slots, all of them at one boundary or none.
    Swap {
        /// Each file, absolute, with its slot; the plugin's own name where none is given.
        files: Vec<(PathBuf, Option<String>)>,
    },
    /// Take back the latest swap of a slot, and of what was swapped with it.
    Rollback {
        /// The kind.
        kind: String,
        /// The slot.
        slot: String,
    },
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// It was done.
    Swapped {
        /// Every slot that was refilled.
        swapped: Vec<Done>,
        /// Microseconds of preparing and of waiting for a boundary.
        took_us: u64,
    },
    /// What runs.
    List {
        /// The slots of the engine.
        slots: Vec<Slot>,
        /// The files that were loaded.
        files: Vec<File>,
        /// Native plugins that are mapped.
        native_mapped: usize,
    },
    /// It was not done, and everything is as it was.
    Refused {
        /// Why.
        message: String,
    },
}

/// One slot that was refilled.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    /// What was done, in one line for people.
    pub(crate) message: String,
    /// What fills the slot since: `min-p#3`.
    pub(crate) active: Option<String>,
    /// From when on it counts.
    pub(crate) reach: String,
}

/// What fills a slot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Slot {
    pub(crate) kind: String,
    pub(crate) slot: String,
    pub(crate) active: String,
    pub(crate) lane: String,
    pub(crate) requests: usize,
    /// Earlier generations with requests in flight.
    pub(crate) draining: Vec<(String, usize)>,
}

/// A plugin file that was loaded.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct File {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) lane: String,
    pub(crate) api: String,
    pub(crate) path: String,
    pub(crate) sha256: String,
    pub(crate) instances: usize,
    /// Calls into it, where they are counted.
    pub(crate) calls: Option<u64>,
    pub(crate) faults: usize,
    pub(crate) memory: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Swapped { swapped, took_us } => {
                let messages: Vec<&str> = swapped.iter().map(|done| &*done.message).collect();
                write!(f, "{} ({:.1} ms)", messages.join("\n"), *took_us as f64 / 1e3)
            }
            Self::Refused { message } => write!(f, "refused, everything is as it was: {message}"),
            Self::List { slots, files, native_mapped } => {
                write!(f, "{:18} {:20} {:28} {:8} requests", "kind", "slot", "active", "lane")?;
                for s in slots {
                    let (active, lane) = (&s.active, &s.lane);
                    write!(f, "\n{:18} {:20} {active:28} {lane:8} {}", s.kind, s.slot, s.requests)?;
                    for (label, requests) in &s.draining {
                        write!(f, "\n{:39} {label:28} {:8} {requests}, draining", "", "")?;
                    }
                }
                for file in files {
                    let (hash, path) = (&file.sha256[..8.min(file.sha256.len())], &file.path);
                    write!(f, "\n{}/{} {hash} {}: {path}", file.kind, file.name, file.lane)?;
                    write!(f, "\n    {} instances, {}", file.instances, file.memory)?;
                    if let Some(calls) = file.calls {
                        write!(f, ", {calls} calls")?;
                    }
                    if file.faults > 0 {
                        write!(f, ", {} faults", file.faults)?;
                    }
                }
                if *native_mapped > 0 {
                    write!(f, "\n{native_mapped} native plugins are mapped")?;
                }
                Ok(())
            }
        }
    }
}

/// Where the sockets of this user's processes lie.
fn folder() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty());
    runtime.map_or_else(
        || std::env::temp_dir().join(format!("jackfield-{}", rustix::process::getuid().as_raw())),
        |folder| PathBuf::from(folder).join("jackfield"),
    )
}
