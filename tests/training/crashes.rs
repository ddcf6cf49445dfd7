//! Crashes: the writer's calls replayed in every order that a file system may leave, files cut short, and
//! processes killed at any call.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use jackfield_engine::train::{
    Checkpoint, Checkpoints, Disk, Parameter, Parameters, RealDisk, States,
};
use tempfile::TempDir;

use super::{RUN, batches, loader, setup, trainer};

/// One call of the writer, by the paths below its folder.
#[derive(Debug, Clone)]
enum Call {
    CreateFolder(PathBuf),
    Write(PathBuf, Vec<u8>),
    SyncFile(PathBuf),
    SyncFolder(PathBuf),
    Rename(PathBuf, PathBuf),
    RemoveFolder(PathBuf),
}

/// Does what it is asked, and writes it down.
#[derive(Debug)]
struct Recorder {
    root: PathBuf,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Recorder {
    fn note(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }

    fn below(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap().to_owned()
    }
}

impl Disk for Recorder {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.note(Call::CreateFolder(self.below(path)));
        RealDisk.create_folder(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.note(Call::Write(self.below(path), bytes.to_vec()));
        RealDisk.write(path, bytes)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.note(Call::SyncFile(self.below(path)));
        RealDisk.sync_file(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.note(Call::SyncFolder(self.below(path)));
        RealDisk.sync_folder(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(Call::Rename(self.below(from), self.below(to)));
        RealDisk.rename(from, to)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.note(Call::RemoveFolder(self.below(path)));
        RealDisk.remove_folder(path)
    }
}

/// What a disk holds: folders and files by their paths.
type World = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// How a call that nothing brought to the disk may have ended.
const WHOLE: u8 = 0;
const LOST: u8 = 1;
/// Of a file: its name is there, its bytes are not, or half of them.
const EMPTY: u8 = 2;
const HALF: u8 = 3;

/// In which ways `calls[at]` may have ended in a crash after all of `calls`.
///
/// Source: Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014: names and bytes reach the disk
/// in any order unless a sync of the file, for its bytes, or of the folder, for its names, stands between.
fn endings(calls: &[Call], at: usize) -> &'static [u8] {
    let later = &calls[at + 1..];
    let is_synced = |path: &Path| {
        let folder = path.parent().unwrap_or(Path::new(""));
        later.iter().any(|call| matches!(call, Call::SyncFolder(synced) if synced == folder))
    };
    match &calls[at] {
        Call::Write(path, _) => {
            let has_bytes =
                later.iter().any(|call| matches!(call, Call::SyncFile(synced) if synced == path));
            match (has_bytes, is_synced(path)) {
                (true, true) => &[WHOLE],
                (true, false) => &[WHOLE, LOST],
                (false, true) => &[WHOLE, EMPTY, HALF],
                (false, false) => &[WHOLE, LOST, EMPTY, HALF],
            }
        }
        Call::CreateFolder(path) | Call::Rename(_, path) | Call::RemoveFolder(path)
            if !is_synced(path) =>
        {
            &[WHOLE, LOST]
        }
        _ => &[WHOLE],
    }
}

/// What `calls` leave if each of them ends as `endings` says.
fn world(calls: &[Call], endings: &[u8]) -> World {
    let mut world = World::new();
    let has = |world: &World, path: &Path| path.as_os_str().is_empty() || world.contains_key(path);
    for (call, &ending) in calls.iter().zip(endings) {
        match call {
            _ if ending == LOST => {}
            Call::CreateFolder(path) => {
                world.insert(path.clone(), None);
            }
            Call::Write(path, bytes) if has(&world, path.parent().unwrap()) => {
                let len = match ending {
                    EMPTY => 0,
                    HALF => bytes.len() / 2,
                    _ => bytes.len(),
                };
                world.insert(path.clone(), Some(bytes[..len].to_vec()));
            }
            Call::Rename(from, to) => {
                let moved = world.extract_if(.., |path, _| path.starts_with(from));
                let moved: Vec<_> = moved.collect();
                for (path, entry) in moved {
                    world.insert(to.join(path.strip_prefix(from).unwrap()), entry);
                }
            }
            Call::RemoveFolder(path) => world.retain(|other, _| !other.starts_with(path)),
            _ => {}
        }
    }
    world
}

fn lay_out(world: &World, root: &Path) {
    for (path, entry) in world {
        // A joined empty path ends in a slash.
        let path: PathBuf = root.join(path).components().collect();
        match entry {
            None => std::fs::create_dir_all(path).unwrap(),
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
        }
    }
}

/// Small, and of bits that say its step.
fn checkpoint(step: u64) -> Checkpoint {
    let values = vec![step as f32 + 0.5; 3];
    let parameter = Parameter { dims: vec![3], values: values.clone() };
    let state = BTreeMap::from([("state.mean".to_owned(), values)]);
    Checkpoint {
        step,
        parameters: Parameters(BTreeMap::from([("norm.weight".to_owned(), parameter)])),
        states: States::from([("norm.weight".to_owned(), state)]),
        hooks: BTreeMap::new(),
        loader: loader().position(),
        loss: step as f64,
        evaluation: None,
        run: RUN.to_owned(),
    }
}

#[test]
fn whatever_order_a_crash_leaves_the_calls_of_the_writer_in_a_whole_checkpoint_is_found() {
    let folder = TempDir::new().unwrap();
    let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
    let disk = Recorder { root: folder.path().to_owned(), calls: Arc::clone(&calls) };
    let checkpoints = Checkpoints::open_on(Box::new(disk), folder.path(), 1).unwrap();
    // After so many calls that checkpoint had been saved.
    let mut saved = vec![(0, 0)];
    for step in 1..=3 {
        checkpoints.save(&checkpoint(step), "{}").unwrap();
        saved.push((calls.lock().unwrap().len(), step));
    }
    let calls = calls.lock().unwrap().clone();
    let mut count = 0;
    for crash in 0..=calls.len() {
        let done = &calls[..crash];
        let safe = saved.iter().rev().find(|(at, _)| *at <= crash).unwrap().1;
        let choices: Vec<&[u8]> = (0..crash).map(|at| endings(done, at)).collect();
        let combinations: usize = choices.iter().map(|choice| choice.len()).product();
        for mut number in 0..combinations {
            let chosen = choices.iter().map(|choice| {
                let ending = choice[number % choice.len()];
                number /= choice.len();
                ending
            });
            let world = world(done, &chosen.collect::<Vec<_>>());
            let left = TempDir::new().unwrap();
            lay_out(&world, left.path());
            let found = Checkpoints::open(left.path(), 1).unwrap();
            let found = found.load_latest(RUN, |_, _| ()).unwrap();
            let step = found.as_ref().map_or(0, |found| found.step);
            let paths: Vec<_> = world.keys().collect();
            assert!((safe..=safe + 1).contains(&step), "call {crash}: step {step}, {paths:?}");
            assert!(found.is_none_or(|found| found == checkpoint(step)), "call {crash}");
            count += 1;
        }
    }
    assert!(count > 500, "{count} worlds");
}

#[test]
fn two_hundred_cuts_of_any_file_give_way_to_the_checkpoint_before() {
    let folder = TempDir::new().unwrap();
    let checkpoints = Checkpoints::open(folder.path(), 2).unwrap();
    let paths = [1, 2].map(|step| checkpoints.save(&checkpoint(step), "{}").unwrap());
    for cut in 0..200 {
        let names = ["model.safetensors", "states.safetensors", "config.json", "manifest.json"];
        let file = paths[1].join(names[cut % names.len()]);
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..cut * whole.len() / 200]).unwrap();
        let mut said = Vec::new();
        let found = checkpoints.load_latest(RUN, |_, error| said.push(error.to_string())).unwrap();
        assert_eq!((found, said.len()), (Some(checkpoint(1)), 1), "{}: {said:?}", file.display());
        std::fs::write(&file, whole).unwrap();
    }
    assert_eq!(checkpoints.load_latest(RUN, |_, _| ()).unwrap(), Some(checkpoint(2)));
}

/// Says each call on standard output, before it is done.
#[derive(Debug)]
struct Telling;

impl Telling {
    fn tell(&self) {
        // Whoever listened is gone: so is the need to go on.
        if writeln!(io::stdout(), "{CALL}").and_then(|()| io::stdout().flush()).is_err() {
            std::process::exit(0);
        }
    }
}

impl Disk for Telling {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.tell();
        RealDisk.create_folder(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.tell();
        RealDisk.write(path, bytes)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.tell();
        RealDisk.sync_file(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.tell();
        RealDisk.sync_folder(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.tell();
        RealDisk.rename(from, to)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.tell();
        RealDisk.remove_folder(path)
    }
}

const CALL: &str = "a call of the writer";
const FOLDER: &str = "JACKFIELD_TEST_CHECKPOINTS";

/// Not a test of its own: what is killed. Trains, with a checkpoint after every step.
#[test]
#[ignore = "runs until it is killed"]
fn trains_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let checkpoints = Checkpoints::open_on(Box::new(Telling), Path::new(&folder), 2).unwrap();
    let setup = setup("cpu");
    let (mut trainer, mut text) = (trainer(&setup), loader());
    let latest = checkpoints.load_latest(RUN, |path, error| panic!("{}: {error}", path.display()));
    if let Some(latest) = latest.unwrap() {
        text.seek(latest.loader.clone()).unwrap();
        trainer.restore(latest).unwrap();
    }
    loop {
        let loss = trainer.step(&batches(&mut text)).unwrap().loss;
        checkpoints.save(&trainer.checkpoint(text.position(), loss, RUN), "{}").unwrap();
    }
}

/// Kills a run `count` times, at another call of the writer each time, and compares what it left with a run
/// that nobody interrupted.
fn kill(count: u64) {
    let folder = TempDir::new().unwrap();
    let mut random = 0x9E37_79B9_u64;
    for _ in 0..count {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "crashes::trains_until_it_is_killed", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let calls = lines.map_while(Result::ok).filter(|line| line.ends_with(CALL));
        let wanted = 1 + (random >> 33) as usize % 40;
        assert_eq!(calls.take(wanted).count(), wanted, "the run ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let checkpoints = Checkpoints::open(folder.path(), 2).unwrap();
    let left = checkpoints.load_latest(RUN, |path, error| panic!("{}: {error}", path.display()));
    let left = left.unwrap().unwrap();
    assert!(left.step > count / 2, "{} steps", left.step);
    let setup = setup("cpu");
    let (mut whole, mut text) = (trainer(&setup), loader());
    let mut loss = f64::NAN;
    for _ in 0..left.step {
        loss = whole.step(&batches(&mut text)).unwrap().loss;
    }
    assert!(left == whole.checkpoint(text.position(), loss, RUN), "the bits of step {}", left.step);
}

#[test]
fn a_run_that_is_killed_goes_on_with_the_same_bits() {
    kill(8);
}

#[test]
#[ignore = "two hundred processes"]
fn a_run_that_is_killed_two_hundred_times_goes_on_with_the_same_bits() {
    kill(200);
}
