//! Watched folders: what is half written is never loaded, and what is whole is loaded once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jackfield_loader::{Artifact, LoadError, Watch};
use support::puppet;
use tempfile::TempDir;

/// What became of each change that a watch told of.
#[derive(Debug, Default)]
struct Seen {
    loaded: Vec<String>,
    refused: Vec<String>,
}

/// A watched folder whose whole plugin files are loaded.
struct Watched {
    folder: TempDir,
    seen: Arc<Mutex<Seen>>,
    _watch: Watch,
}

impl Watched {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let told = Arc::clone(&seen);
        let is_plugin = |path: &Path| path.extension().is_some_and(|e| e == "so" || e == "wasm");
        let watch =
            Watch::start(&[folder.path().to_owned()], is_plugin, move |path: &Path, bytes| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let result = Artifact::from_bytes(path, bytes);
                let mut seen = told.lock().unwrap();
                match result {
                    Ok(_) => seen.loaded.push(name),
                    Err(LoadError::Seal { .. } | LoadError::Artifact { .. }) => {
                        seen.refused.push(name);
                    }
                    Err(error) => panic!("{error}"),
                }
            });
        Self { folder, seen, _watch: watch.unwrap() }
    }

    /// Waits until what was seen is as `is_so` says.
    fn until(&self, what: &str, is_so: impl Fn(&Seen) -> bool) {
        let start = Instant::now();
        while !is_so(&self.seen.lock().unwrap()) {
            let seen = &self.seen;
            assert!(start.elapsed() < Duration::from_secs(60), "{what}: {seen:?}");
            std::thread::yield_now();
        }
    }

    /// Waits until everything that was done before has been seen.
    fn settle(&self, marker: &str) {
        let name = format!("{marker}.so");
        fs::write(self.folder.path().join(&name), marker).unwrap();
        self.until("the marker", |seen| seen.refused.contains(&name));
    }

    fn loaded(&self) -> Vec<String> {
        self.seen.lock().unwrap().loaded.clone()
    }
}

#[test]
fn a_file_that_is_written_in_pieces_is_loaded_once_it_is_whole() {
    let watched = Watched::new();
    let bytes = puppet(support::native(), "fair");
    let path = watched.folder.path().join("slow.so");
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    // Closed after every piece, as a program does that appends line by line.
    let append = |piece: &[u8]| {
        let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        file.write_all(piece).unwrap();
    };
    half.chunks(bytes.len() / 64 + 1).for_each(append);
    watched.until("half a file", |seen| seen.refused.iter().any(|name| name == "slow.so"));
    assert_eq!(watched.loaded(), [""; 0]);
    let (most, last) = rest.split_at(rest.len() - 1);
    most.chunks(bytes.len() / 64 + 1).for_each(append);
    watched.settle("before-the-last-byte");
    assert_eq!(watched.loaded(), [""; 0]);
    append(last);
    watched.until("the whole file", |seen| !seen.loaded.is_empty());
    watched.settle("after");
    assert_eq!(watched.loaded(), ["slow.so"]);
}

#[test]
fn a_rename_is_one_change() {
    let watched = Watched::new();
    let (part, path) = (watched.folder.path().join("p.part"), watched.folder.path().join("p.so"));
    for number in 1..=3 {
        fs::write(&part, puppet(support::native(), &format!("answer={number}"))).unwrap();
        fs::rename(&part, &path).unwrap();
        watched.until("the rename", |seen| seen.loaded.len() == number);
        watched.settle(&format!("marker-{number}"));
        assert_eq!(watched.loaded().len(), number);
    }
    // The same content once more is no change.
    fs::write(&part, puppet(support::native(), "answer=3")).unwrap();
    fs::rename(&part, &path).unwrap();
    watched.settle("again");
    assert_eq!(watched.loaded().len(), 3);
}

#[test]
fn what_a_killed_writer_leaves_is_never_loaded() {
    for (build, end) in [(support::native(), "so"), (support::component(), "wasm")] {
        let watched = Watched::new();
        let bytes = puppet(build, "fair");
        for part in 0..200 {
            // The last ones end within the seal.
            let length =
                if part < 150 { bytes.len() * part / 150 } else { bytes.len() + part - 200 };
            let path = watched.folder.path().join(format!("cut-{part}.{end}"));
            fs::write(path, &bytes[..length]).unwrap();
        }
        watched.until("every cut file", |seen| seen.refused.len() >= 200);
        assert_eq!(watched.loaded(), [""; 0]);
        // One of them is written again, and to its end.
        fs::write(watched.folder.path().join(format!("cut-100.{end}")), &bytes).unwrap();
        watched.until("a whole file", |seen| seen.loaded == [format!("cut-100.{end}")]);
    }
}

#[test]
fn a_file_that_was_there_before_is_known() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("old.so");
    fs::write(&path, "old").unwrap();
    let told = Arc::<Mutex<Vec<String>>>::default();
    let telling = Arc::clone(&told);
    let watch = Watch::start(
        &[folder.path().to_owned()],
        |_| true,
        move |_: &Path, bytes| {
            telling.lock().unwrap().push(String::from_utf8(bytes).unwrap());
        },
    );
    let _watch = watch.unwrap();
    fs::write(&path, "old").unwrap();
    fs::write(folder.path().join("other.so"), "new").unwrap();
    let start = Instant::now();
    while told.lock().unwrap().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing was told");
        std::thread::yield_now();
    }
    assert_eq!(*told.lock().unwrap(), ["new"]);
}
