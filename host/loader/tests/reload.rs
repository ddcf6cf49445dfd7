//! The same plugin again and again: never old code, never a crash, and a bounded price that is
//! told truthfully.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/process.rs"]
mod process;
#[path = "support/stand.rs"]
mod stand;
mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use jackfield_loader::{LoadError, Loader, PluginsError, artifact, native};
use plugin_api::kinds::logits_processor::{BatchChange, RowId};
use plugin_api::{Config, LogitsProcessor};
use process::{anonymous_kib, mappings};
use stand::{Stand, answer, made, options};
use support::puppet;
use tempfile::TempDir;

/// What is counted belongs to the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A loader in a folder of its own that opens libraries untried: the trial is another process's
/// business.
fn loader() -> (Loader, TempDir) {
    let folder = TempDir::new().unwrap();
    let (options, _) = options(&folder.path().join("state"), None);
    (Loader::new(options).unwrap(), folder)
}

/// Puts other bytes under the same path, in the way number `way`.
fn rewrite(folder: &Path, path: &Path, way: usize, bytes: &[u8]) {
    let next = folder.join("next");
    let _ = fs::remove_file(&next);
    match way {
        // Renamed onto it.
        0 => {
            fs::write(&next, bytes).unwrap();
            fs::rename(&next, path).unwrap();
        }
        // Written over, in the same inode.
        1 => fs::write(path, bytes).unwrap(),
        // A hard link to a file that was loaded under another name before.
        2 => {
            fs::write(&next, bytes).unwrap();
            let _ = fs::remove_file(path);
            fs::hard_link(&next, path).unwrap();
        }
        // A symbolic link that is turned to another file.
        3 => {
            let target = folder.join("target");
            let _ = fs::remove_file(&target);
            fs::write(&target, bytes).unwrap();
            std::os::unix::fs::symlink(&target, &next).unwrap();
            fs::rename(&next, path).unwrap();
        }
        // As long and as old as what it replaces.
        _ => {
            let modified = fs::metadata(path).unwrap().modified().unwrap();
            let length = fs::metadata(path).unwrap().len();
            fs::write(path, bytes).unwrap();
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(modified).unwrap();
            let meta = file.metadata().unwrap();
            assert_eq!((meta.modified().unwrap(), meta.len()), (modified, length));
        }
    }
}

/// Rewrites one path `times` times, loads it each time and counts how often the new code answers.
fn fresh_answers(build: &[u8], name: &str, times: usize) -> usize {
    let (loader, folder) = loader();
    let path = folder.path().join(name);
    let fresh = (0..times).filter(|&time| {
        rewrite(folder.path(), &path, time % 5, &puppet(build, &format!("answer={time}")));
        let loaded = loader.load(&path, &Config::new()).unwrap();
        let hash = &loaded.origin.as_ref().unwrap().hash[..8];
        assert_eq!(loaded.generation.as_ref().unwrap().label(), format!("puppet ({hash})"));
        let mut processor = made(&loaded, &Config::new()).unwrap();
        answer(&mut *processor).unwrap() == time as f32
    });
    fresh.count()
}

#[test]
fn a_library_under_the_same_path_is_new_code_1000_times_of_1000() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(fresh_answers(support::native(), "puppet.so", 1000), 1000);
}

#[test]
fn a_component_under_the_same_path_is_new_code_20_times_of_20() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(fresh_answers(support::component(), "puppet.wasm", 20), 20);
}

#[test]
fn what_happens_to_the_file_does_not_reach_running_code() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (build, name) in [(support::native(), "puppet.so"), (support::component(), "puppet.wasm")] {
        let (loader, folder) = loader();
        let path = folder.path().join(name);
        fs::write(&path, puppet(build, "answer=1")).unwrap();
        let loaded = loader.load(&path, &Config::new()).unwrap();
        let mut processor = made(&loaded, &Config::new()).unwrap();
        let length = fs::metadata(&path).unwrap().len();
        let file = File::options().write(true).open(&path).unwrap();
        for kept in [length - 1, length / 2, 4096, 1, 0] {
            file.set_len(kept).unwrap();
            assert_eq!(answer(&mut *processor), Ok(1.0), "cut to {kept} bytes");
        }
        fs::write(&path, vec![0xCC; length as usize]).unwrap();
        assert_eq!(answer(&mut *processor), Ok(1.0), "written over");
        fs::remove_file(&path).unwrap();
        assert_eq!(answer(&mut *processor), Ok(1.0), "removed");
        drop(made(&loaded, &Config::new()).unwrap());
        drop(processor);
    }
}

/// Loads a new generation, lets an instance of it work, and ends that.
fn reload(loader: &Loader, folder: &Path, number: usize) {
    let path = folder.join("puppet.so");
    rewrite(folder, &path, 0, &puppet(support::native(), &format!("answer={number}")));
    let loaded = loader.load(&path, &Config::new()).unwrap();
    let mut processor = made(&loaded, &Config::new()).unwrap();
    let params = Config::new().with("puppet_scale", 2.0);
    let added = BatchChange::Added { row: RowId(0), params: &params, history: &[1, 2] };
    processor.batch(&added).unwrap();
    answer(&mut *processor).unwrap();
}

/// Reloads a library many times, up to the quota: what each costs in KiB of anonymous memory, and
/// in mappings.
#[allow(clippy::print_stdout, reason = "a measurement for people")]
fn costs_of_a_library(loader: &Loader, folder: &Path, reloads: usize) -> (f64, f64) {
    (0..WARM_UP).for_each(|number| reload(loader, folder, number));
    let before = (anonymous_kib(), mappings(|_| true));
    (0..reloads).for_each(|number| reload(loader, folder, WARM_UP + number));
    let after = (anonymous_kib(), mappings(|_| true));
    let each = |after: f64, before: f64| (after - before) / reloads as f64;
    let kib = each(after.0 as f64, before.0 as f64);
    let maps = each(after.1 as f64, before.1 as f64);
    println!("a native reload: {kib:.1} KiB of anonymous memory, {maps:.2} mappings");
    (kib, maps)
}

/// Reloads before anything is counted.
const WARM_UP: usize = 10;

#[test]
fn a_library_costs_few_mappings_up_to_the_quota() {
    const RELOADS: usize = 100;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = TempDir::new().unwrap();
    let (mut options, _) = options(&folder.path().join("state"), None);
    options.native_quota = native::mapped() + WARM_UP + RELOADS;
    let loader = Loader::new(options).unwrap();
    let (_, maps) = costs_of_a_library(&loader, folder.path(), RELOADS);
    assert!(maps <= 6.0, "{maps} mappings each");

    let error = loader.load(&folder.path().join("puppet.so"), &Config::new()).unwrap_err();
    assert!(matches!(error, LoadError::Quota { .. }), "{error}");
    let quota = native::mapped();
    let expected = format!("{quota} native plugins are mapped, the quota is {quota}: raise");
    assert!(error.to_string().contains(&expected), "{error}");
}

#[test]
fn a_library_costs_at_most_40_kib_of_anonymous_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (loader, folder) = loader();
    let (kib, _) = costs_of_a_library(&loader, folder.path(), 250);
    assert!(kib <= 40.0, "{kib} KiB each");
}

/// Hashes in the names of the copies that are mapped.
fn mapped_copies() -> BTreeSet<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let names = maps.lines().filter_map(|line| line.split_once("/stage/").map(|(_, name)| name));
    names.map(|name| name.split(".so").next().unwrap_or(name).to_owned()).collect()
}

#[test]
fn what_is_said_of_memory_is_what_the_system_says() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stand = Stand::new(None, |_| ());
    let is_mapped = |hash: &str| mapped_copies().iter().any(|name| name.starts_with(hash));
    let memory = || -> Vec<String> {
        let loaded = stand.plugins.loaded().into_iter();
        loaded.map(|status| format!("{} {}", status.instances, status.memory)).collect()
    };
    let before = mapped_copies().len();
    assert_eq!(before, native::mapped(), "every copy is counted");

    let first = stand.file("first.so", &puppet(support::native(), "answer=1"));
    stand.plugins.swap(&first, None).unwrap();
    assert_eq!(memory(), ["1 in use"]);
    let second = stand.file("second.so", &puppet(support::native(), "answer=2"));
    stand.plugins.swap(&second, None).unwrap();
    assert_eq!(memory(), [KEPT, "1 in use"], "the first can be put back");
    let third = stand.file("third.so", &puppet(support::native(), "answer=3"));
    stand.plugins.swap(&third, None).unwrap();
    let retired = "0 retired; stays mapped, as native plugins do";
    assert_eq!(memory(), [retired, KEPT, "1 in use"]);
    assert_eq!(stand.plugins.native_mapped(), before + 3);
    assert_eq!(mapped_copies().len(), before + 3);
    for status in stand.plugins.loaded() {
        assert!(is_mapped(&status.info.origin.unwrap().hash), "as it says");
    }
}

#[test]
fn what_is_said_of_the_memory_of_components_is_true() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stand = Stand::new(None, |_| ());
    let memory = || -> Vec<String> {
        let loaded = stand.plugins.loaded().into_iter();
        loaded.map(|status| format!("{} {}", status.instances, status.memory)).collect()
    };
    let before = mapped_copies().len();
    let first = stand.file("first.wasm", &puppet(support::component(), "answer=1"));
    stand.plugins.swap(&first, None).unwrap();
    assert_eq!(memory(), ["1 in use"]);
    let second = stand.file("second.wasm", &puppet(support::component(), "answer=2"));
    stand.plugins.swap(&second, None).unwrap();
    assert_eq!(memory(), [KEPT, "1 in use"], "the first can be put back");
    for i in 3..9 {
        let next = stand.file("next.wasm", &puppet(support::component(), &format!("answer={i}")));
        stand.plugins.swap(&next, None).unwrap();
        assert_eq!(memory(), [KEPT, "1 in use"], "what is given back is forgotten");
    }
    assert_eq!(mapped_copies().len(), before, "components are not mapped");
}

#[test]
fn what_was_registered_and_never_started_is_not_retired() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stand = Stand::new(None, |_| ());
    for (build, name) in [(support::native(), "puppet.so"), (support::component(), "puppet.wasm")] {
        stand.plugins.load_files(&[stand.file(name, &puppet(build, "fair"))]).unwrap();
        let last = stand.plugins.loaded().pop().unwrap();
        assert_eq!(format!("{} {}", last.instances, last.memory), KEPT, "{name}");
    }
}

/// What is said of a plugin that is registered or can be put back.
const KEPT: &str = "0 kept; no instance runs";

/// Makes and drops instances of one load and counts along.
fn counts_instances(build: &[u8], name: &str) {
    let (loader, folder) = loader();
    let path = folder.path().join(name);
    fs::write(&path, puppet(build, "fair")).unwrap();
    let loaded = loader.load(&path, &Config::new()).unwrap();
    let generation = loaded.generation.clone().unwrap();
    assert_eq!(generation.instances(), 0);
    let mut some: Vec<Box<dyn LogitsProcessor>> =
        (0..5).map(|_| made(&loaded, &Config::new()).unwrap()).collect();
    assert_eq!(generation.instances(), 5);
    some.truncate(2);
    assert_eq!(generation.instances(), 2);
    let refused = Config::new().with("puppet_scale", "loud");
    assert!(made(&loaded, &refused).is_err());
    assert_eq!(generation.instances(), 2, "what was refused does not count");
    drop((some, loaded));
    assert_eq!(generation.instances(), 0);
}

#[test]
fn instances_are_counted_while_they_live() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    counts_instances(support::native(), "puppet.so");
}

#[test]
fn instances_of_components_are_counted_while_they_live() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    counts_instances(support::component(), "puppet.wasm");
}

#[test]
fn a_pinned_plugin_is_one_file_and_no_other() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let puppet = |mode: &str| puppet(support::native(), mode);
    let (right, wrong) = (puppet("answer=1"), puppet("answer=2"));
    let pinned = artifact::hash_of(&right);
    let stand = Stand::new(None, |options| {
        options.hashes.insert("puppet".to_owned(), pinned.to_uppercase());
    });
    stand.plugins.swap(&stand.file("right.so", &right), None).unwrap();
    let error = stand.plugins.swap(&stand.file("wrong.so", &wrong), None).unwrap_err();
    assert!(matches!(error, PluginsError::Load(LoadError::Hash { .. })), "{error}");
    assert!(
        error.to_string().contains("wrong.so")
            && error.to_string().contains(&pinned.to_uppercase())
    );
    assert_eq!(stand.slot.answer(), Ok(1.0));
}
