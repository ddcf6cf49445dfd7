//! What this process has: files, threads, children, mappings and memory.

#![allow(dead_code, reason = "each test uses a part")]

use std::fs;
use std::path::Path;

/// What a load that failed must give back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holdings {
    /// Open file descriptors.
    pub(crate) files: usize,
    /// Threads.
    pub(crate) threads: usize,
    /// Children, alive or not yet waited for.
    pub(crate) children: usize,
}

impl Holdings {
    /// What the process has now.
    pub(crate) fn now() -> Self {
        let files = count(Path::new("/proc/self/fd"));
        Self { files, threads: count(Path::new("/proc/self/task")), children: children() }
    }
}

/// Entries of a folder; none if it is not there.
pub(crate) fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// Mappings of the process that `concerns` says yes to.
pub(crate) fn mappings(concerns: impl Fn(&str) -> bool) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("a process has mappings");
    maps.lines().filter(|line| concerns(line)).count()
}

/// Anonymous memory that is resident, in KiB: what nobody can take back without swapping.
pub(crate) fn anonymous_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a process has a status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn children() -> usize {
    let me = std::process::id().to_string();
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    // After the name, which may hold anything, come the state and the parent.
    let parent = |stat: String| {
        let (_, rest) = stat.rsplit_once(')')?;
        rest.split_whitespace().nth(1).map(str::to_owned)
    };
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| parent(stat.clone()).is_some_and(|parent| parent == me)).count()
}
