//! Every way to fail while a plugin is swapped in, and that none of them leaves a trace.
//!
//! The only test of its binary, since it counts what the whole process has.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod altered;
mod damaged;
mod native;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/stand.rs"]
mod stand;
#[path = "../support/mod.rs"]
mod support;
mod wasm;

use jackfield_loader::{LoadError, PluginsError, artifact};
use plugin_api::Config;
use process::Holdings;
use stand::{Stand, trial};
use support::puppet;

/// The variant that a failure ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum As {
    Artifact,
    Seal,
    Value,
    Syntax,
    ApiVersion,
    Abi,
    Start,
    Trial,
    Quota,
    Wasm,
    Keys,
    Read,
    Hash,
}

/// A plugin file that must not load.
struct Failure {
    name: String,
    file: Vec<u8>,
    config: Config,
    /// Any of these: what is found first may depend on the place of the damage.
    expected: &'static [As],
    /// What the message says beside the file's name.
    says: &'static [&'static str],
}

fn failure(
    name: &str,
    file: Vec<u8>,
    expected: &'static [As],
    says: &'static [&'static str],
) -> Failure {
    Failure { name: name.to_owned(), file, config: Config::new(), expected, says }
}

fn variant(error: &PluginsError) -> Option<As> {
    Some(match error {
        PluginsError::UnknownKeys { .. } => As::Keys,
        PluginsError::Load(error) => match error {
            LoadError::Artifact { .. } => As::Artifact,
            LoadError::Seal { .. } => As::Seal,
            LoadError::Value { .. } => As::Value,
            LoadError::Syntax { .. } => As::Syntax,
            LoadError::ApiVersion { .. } => As::ApiVersion,
            LoadError::Abi { .. } => As::Abi,
            LoadError::Start { .. } => As::Start,
            LoadError::Trial { .. } => As::Trial,
            LoadError::Quota { .. } => As::Quota,
            LoadError::Wasm { .. } => As::Wasm,
            LoadError::Read { .. } => As::Read,
            LoadError::Hash { .. } => As::Hash,
            _ => return None,
        },
        _ => return None,
    })
}

/// A fair plugin serves; what fails changes nothing, and the next fair one is taken.
fn fails_without_a_trace(stand: &Stand, file_name: &str, build: &[u8], failures: Vec<Failure>) {
    let first = stand.file(&format!("first.{file_name}"), &puppet(build, "answer=1"));
    stand.plugins.swap(&first, None).unwrap();
    let mut registered = stand.registered();
    let mut before = Holdings::now();
    let mut mistakes = Vec::new();
    for Failure { name, file, config, expected, says } in failures {
        let path = stand.file(&format!("{}.{file_name}", name.replace(' ', "-")), &file);
        *stand.config.lock().unwrap() = config;
        let result = stand.plugins.swap(&path, None);
        *stand.config.lock().unwrap() = Config::new();
        let mut wrong = |what: String| mistakes.push(format!("{name}: {what}"));
        match result {
            Ok(report) => wrong(format!("was taken: {report:?}")),
            Err(error) => {
                let text = error.to_string();
                if !variant(&error).is_some_and(|found| expected.contains(&found)) {
                    wrong(format!("expected {expected:?}, found {error:?}"));
                } else if !text.contains(&path.display().to_string()) {
                    wrong(format!("does not name the file: {text}"));
                } else if !says.iter().all(|part| text.contains(part)) {
                    wrong(format!("does not say {says:?}: {text}"));
                }
            }
        }
        if stand.slot.answer() != Ok(1.0) {
            wrong(format!("the old generation answers {:?}", stand.slot.answer()));
            stand.plugins.swap(&first, None).unwrap();
        }
        let now = Holdings::now();
        if now != before {
            wrong(format!("{before:?} became {now:?}"));
            before = now;
        }
        if stand.registered() != registered {
            wrong(format!("{registered} became {}", stand.registered()));
            registered = stand.registered();
        }
        if stand.staged() != 0 {
            wrong(format!("{} copies stay", stand.staged()));
        }
        std::fs::remove_file(path).unwrap();
    }
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
    let next = stand.file(&format!("next.{file_name}"), &puppet(build, "answer=2"));
    stand.plugins.swap(&next, None).unwrap();
    assert_eq!(stand.slot.answer(), Ok(2.0), "the next one is taken as if nothing had been");
}

#[test]
fn what_fails_leaves_everything_as_it_was() {
    let program = env!("CARGO_BIN_EXE_jackfield-trial");
    let stand = Stand::new(Some(trial(program)), |_| ());

    let build = support::native();
    fails_without_a_trace(&stand, "so", build, damaged::failures(build));
    fails_without_a_trace(&stand, "so", build, native::failures());
    damaged::is_read_under_a_seal(build);
    native::stays_within_the_quota(program);
    native::gives_up_on_what_hangs(program);
    refuses_two_files_of_one_name(&stand, "so", build);
    refuses_another_file_than_its_pin("so", build);
    takes_what_only_talks(&stand);

    let build = support::component();
    fails_without_a_trace(&stand, "wasm", build, damaged::failures(build));
    fails_without_a_trace(&stand, "wasm", build, wasm::failures());
    damaged::is_read_under_a_seal(build);
    wasm::is_taken_back_when_it_traps(&stand);
    wasm::is_started_again_after_longer_and_longer_pauses();
    wasm::stays_within_its_limits();
    refuses_two_files_of_one_name(&stand, "wasm", build);
    refuses_another_file_than_its_pin("wasm", build);
}

/// Nothing of a set of files is registered if two of them are the same plugin.
fn refuses_two_files_of_one_name(stand: &Stand, file_name: &str, build: &[u8]) {
    let (registered, before) = (stand.registered(), Holdings::now());
    let one = format!("one.{file_name}");
    let other = format!("other.{file_name}");
    let paths = [(&one, "answer=4"), (&other, "answer=5")];
    let paths = paths.map(|(name, mode)| stand.file(name, &puppet(build, mode)));
    let error = stand.plugins.load_files(&paths).unwrap_err();
    assert!(matches!(error, PluginsError::Load(LoadError::NameTaken { .. })), "{error}");
    let text = error.to_string();
    assert!(text.contains(&one) && text.contains(&other), "{text}");
    assert_eq!((stand.registered(), Holdings::now()), (registered, before));
}

/// A plugin that is pinned to the hash of its file is that file.
fn refuses_another_file_than_its_pin(file_name: &str, build: &[u8]) {
    let pinned = puppet(build, "answer=1");
    let hash = artifact::hash_of(&pinned);
    let stand = Stand::new(None, |options| {
        options.hashes.insert("puppet".to_owned(), hash.clone());
    });
    let pinned = stand.file(&format!("pinned.{file_name}"), &pinned);
    stand.plugins.swap(&pinned, None).unwrap();
    let (registered, before) = (stand.registered(), Holdings::now());
    let other = stand.file(&format!("other.{file_name}"), &puppet(build, "answer=2"));
    let error = stand.plugins.swap(&other, None).unwrap_err();
    assert_eq!(variant(&error), Some(As::Hash), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("other.") && text.contains(&format!("expected SHA-256 {hash}")),
        "{text}"
    );
    assert_eq!(stand.slot.answer(), Ok(1.0));
    assert_eq!((stand.registered(), Holdings::now()), (registered, before));
}

/// What a plugin prints while it is tried is no answer, and no reason to refuse it.
fn takes_what_only_talks(stand: &Stand) {
    for mode in ["print@create", "print@need", "print@drop"] {
        let path = stand.file("talks.so", &puppet(support::native(), mode));
        stand.plugins.swap(&path, None).unwrap();
    }
}
