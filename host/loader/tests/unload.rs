//! Libraries that are unmapped when nothing of them is left, and what keeps one mapped.
//!
//! The only tests of their binary, one at a time: they look at what the whole process has mapped.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/process.rs"]
mod process;
#[path = "support/stand.rs"]
mod stand;
mod support;

use std::sync::{Arc, Mutex, PoisonError};

use jackfield_loader::native::{self, Fate};
use jackfield_loader::{Generation, Loader};
use plugin_api::Config;
use plugin_api::native::Entry;
use process::{Holdings, mappings};
use stand::{Stand, answer, made, options};
use support::{elf, puppet, sealed, threadless, with_mode};
use tempfile::TempDir;

static ALONE: Mutex<()> = Mutex::new(());

fn unloading() -> (Loader, TempDir) {
    let folder = TempDir::new().unwrap();
    let (mut options, _) = options(&folder.path().join("state"), None);
    options.unload = vec!["puppet".to_owned()];
    (Loader::new(options).unwrap(), folder)
}

/// Mappings of copies of plugin files.
fn mapped() -> usize {
    mappings(|line| line.contains("/stage/"))
}

/// Loads a puppet, lets it answer, and ends it.
fn live(loader: &Loader, folder: &TempDir, bytes: &[u8]) -> (f32, Arc<Generation>) {
    let path = folder.path().join("puppet.so");
    std::fs::write(&path, bytes).unwrap();
    let loaded = loader.load(&path, &Config::new()).unwrap();
    let mut processor = made(&loaded, &Config::new()).unwrap();
    (answer(&mut *processor).unwrap(), loaded.generation.unwrap())
}

#[test]
fn two_hundred_and_fifty_reloads_leave_no_mapping_behind() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (loader, folder) = unloading();
    let (before, counted) = (mapped(), native::mapped());
    live(&loader, &folder, &puppet(threadless(), "answer=1"));
    let held = Holdings::now();
    for number in 0..250 {
        let mode = format!("answer={number}");
        let (found, generation) = live(&loader, &folder, &puppet(threadless(), &mode));
        assert_eq!((found, generation.fate()), (number as f32, Some(&Fate::Unloaded)));
    }
    assert_eq!((mapped(), native::mapped()), (before, counted));
    assert_eq!(Holdings::now(), held, "its threads are gone too");
}

#[test]
fn thread_locals_with_destructors_end_before_the_library() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (loader, folder) = unloading();
    let before = mapped();
    for point in ["create", "apply", "drop"] {
        for deed in ["thread-local", "thread-handle"] {
            let mode = format!("{deed}@{point}");
            let (_, generation) = live(&loader, &folder, &puppet(threadless(), &mode));
            assert_eq!(generation.fate(), Some(&Fate::Unloaded), "{mode}");
        }
    }
    assert_eq!(mapped(), before);
}

#[test]
fn what_cannot_be_unmapped_without_harm_stays_and_says_why() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cases = [
        ("which may leave something of it behind", puppet(support::native(), "answer=5")),
        ("a thread key is left", puppet(threadless(), "thread-key@apply")),
        (
            "linked never to be unloaded",
            sealed(elf::never_unloaded(&with_mode(threadless(), "answer=5"))),
        ),
    ];
    for (why, bytes) in cases {
        let (loader, folder) = unloading();
        let (before, counted) = (mapped(), native::mapped());
        let (_, generation) = live(&loader, &folder, &bytes);
        let Some(Fate::Stays(reason)) = generation.fate() else { panic!("{why}: it went") };
        assert!(reason.contains(why), "{why}: {reason}");
        assert!(mapped() > before && native::mapped() == counted + 1, "{why}: it is as it says");
    }
}

#[test]
fn one_that_is_refused_after_it_was_opened_is_unmapped_too() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (loader, folder) = unloading();
    let (before, counted) = (mapped(), native::mapped());
    let path = folder.path().join("puppet.so");
    let magic = std::mem::offset_of!(Entry, magic);
    std::fs::write(&path, sealed(elf::with_entry(threadless(), magic, b"otherone"))).unwrap();
    loader.load(&path, &Config::new()).unwrap_err();
    assert_eq!((mapped(), native::mapped()), (before, counted));
}

#[test]
fn a_board_forgets_what_is_unmapped_and_says_what_stays() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stand = Stand::new(None, |options| options.unload = vec!["puppet".to_owned()]);
    let before = mapped();
    for number in 1..6 {
        let file = stand.file("puppet.so", &puppet(threadless(), &format!("answer={number}")));
        stand.plugins.swap(&file, None).unwrap();
        assert_eq!(stand.slot.answer(), Ok(number as f32));
        let memory: Vec<String> = stand.plugins.loaded().into_iter().map(|s| s.memory).collect();
        let all = ["kept; no instance runs", "in use"];
        assert_eq!(
            memory,
            all[2 - memory.len()..],
            "{number}: what can be put back, and what runs"
        );
    }
    let file = stand.file("puppet.so", &puppet(support::native(), "answer=6"));
    (0..3).for_each(|_| drop(stand.plugins.swap(&file, None).unwrap()));
    let memory = &stand.plugins.loaded()[0].memory;
    assert!(memory.starts_with("retired; stays mapped: it imports `"), "{memory}");
    drop(stand);
    assert!(mapped() > before);
}
