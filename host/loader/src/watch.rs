//! Watching folders: a plugin file that appears or is replaced is swapped in.
//!
//! What counts is the content under a name once somebody has finished with it: a rename onto it or
//! the end of writing. A file that is being written is read too, and found unsealed: nothing
//! happens then until it is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::artifact::hash_of;

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    thread: Option<JoinHandle<()>>,
}

/// Events of one save come together: what follows within this time is one change.
const SETTLE: Duration = Duration::from_millis(30);

impl Watch {
    /// Calls `changed` with the content of each file of `folders`, or of the folders that `files` lie in, whose
    /// content has changed and that `concerns` says yes to. Content that is there now is known.
    ///
    /// # Errors
    ///
    /// What the operating system says of a folder that cannot be watched.
    pub fn start(
        folders: &[PathBuf],
        concerns: impl Fn(&Path) -> bool + Send + 'static,
        changed: impl FnMut(&Path, Vec<u8>) + Send + 'static,
    ) -> Result<Self, notify::Error> {
        let (sender, events) = channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // A receiver that is gone has stopped watching.
            let _ = sender.send(event);
        })?;
        let mut known = BTreeMap::new();
        for folder in folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
            for entry in folder.read_dir().into_iter().flatten().flatten() {
                let path = entry.path();
                if concerns(&path)
                    && let Ok(bytes) = std::fs::read(&path)
                {
                    known.insert(path, hash_of(&bytes));
                }
            }
        }
        let watched = Watched { known, concerns, changed };
        let thread = std::thread::Builder::new()
            .name("plugin folders".to_owned())
            .spawn(move || watched.run(&events))
            .map_err(notify::Error::io)?;
        Ok(Self { watcher: Some(watcher), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Without its watcher the thread has nobody left to hear from.
        self.watcher = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watched<C, F> {
    /// Hash of the content that was seen last, by path.
    known: BTreeMap<PathBuf, String>,
    concerns: C,
    changed: F,
}

impl<C: Fn(&Path) -> bool, F: FnMut(&Path, Vec<u8>)> Watched<C, F> {
    fn run(mut self, events: &Receiver<notify::Result<Event>>) {
        let mut touched: Vec<PathBuf> = Vec::new();
        // When what was touched has settled. Events of other files do not put that off: somebody
        // may look at one all the time.
        let mut due = Instant::now();
        loop {
            let event = if touched.is_empty() {
                events.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                match due.checked_duration_since(Instant::now()) {
                    Some(left) => events.recv_timeout(left),
                    None => Err(RecvTimeoutError::Timeout),
                }
            };
            match event {
                Ok(Ok(event)) if is_end_of_change(&event.kind) => {
                    let new = event.paths.into_iter().filter(|path| (self.concerns)(path));
                    let before = touched.len();
                    touched.extend(new);
                    if touched.len() > before {
                        due = Instant::now() + SETTLE;
                    }
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    touched.sort();
                    touched.dedup();
                    touched.drain(..).for_each(|path| self.look_at(path));
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look_at(&mut self, path: PathBuf) {
        // Read once: what is judged and loaded is what was compared, whatever is written meanwhile.
        let Ok(bytes) = std::fs::read(&path) else {
            self.known.remove(&path);
            return;
        };
        let hash = hash_of(&bytes);
        if self.known.get(&path) != Some(&hash) {
            (self.changed)(&path, bytes);
            self.known.insert(path, hash);
        }
    }
}

fn is_end_of_change(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Create(_)
            | EventKind::Remove(_)
    )
}
