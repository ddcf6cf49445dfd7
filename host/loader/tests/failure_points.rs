//! Every way to fail while a plugin is swapped in, and that none of them leaves a trace.
//!
//! The only test of its binary, since it counts what the whole process has.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/process.rs"]
mod process;
#[path = "support/stand.rs"]
mod stand;
mod support;

use std::path::Path;
use std::time::Duration;

use jackfield_loader::symbols::Symbols;
use jackfield_loader::{Artifact, Format, LoadError, PluginsError, Trial, native, seal};
use plugin_api::Config;
use plugin_api::native::Entry;
use process::Holdings;
use stand::{Stand, trial};
use support::{elf, puppet, sealed, with_manifest, with_mode};

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
            _ => return None,
        },
        _ => return None,
    })
}

/// Damage that needs no code to be found, in either format.
fn damaged(build: &[u8]) -> Vec<Failure> {
    use As::{ApiVersion, Artifact, Seal, Syntax, Value};
    let fair = puppet(build, "fair");
    let mut all = vec![
        failure("never sealed", build.to_vec(), &[Seal], &["no seal"]),
        failure("empty", Vec::new(), &[Artifact], &["expected a shared library", "found 0 bytes"]),
        failure("a text", b"hello\n".to_vec(), &[Artifact], &["expected a shared library"]),
        failure(
            "a manifest of another API",
            sealed(with_manifest(build, "\"0.0\"", "\"7.3\"")),
            &[ApiVersion],
            &["built for plugin API 7.3, this host speaks 0.0"],
        ),
        failure(
            "a manifest without a name",
            sealed(with_manifest(build, "name = ", "#ame = ")),
            &[Value],
            &["name: expected text, found nothing"],
        ),
        failure(
            "a manifest with another key",
            sealed(with_manifest(build, "reload = ", "relaod = ")),
            &[Value],
            &["relaod: expected one of the keys", "found an unknown key"],
        ),
        failure(
            "a manifest that is no TOML",
            sealed(with_manifest(build, "kind = ", "kind ? ")),
            &[Syntax],
            &[":2: expected TOML"],
        ),
    ];
    for part in 1..64 {
        let length = fair.len() * part / 64;
        let cut = fair[..length].to_vec();
        all.push(failure(&format!("cut at {length}"), cut, &[Seal], &["no seal"]));
    }
    for length in [fair.len() - 1, fair.len() - 16, fair.len() - 48] {
        let cut = fair[..length].to_vec();
        all.push(failure(&format!("cut at {length}"), cut, &[Seal], &["no seal"]));
    }
    for part in 0..128 {
        // A stride that is no power of two meets every kind of place; the first bytes say the
        // format, the last the seal, where a flip is found otherwise.
        let place = 64 + (fair.len() - 128) * part / 128;
        let mut flipped = fair.clone();
        flipped[place] ^= 1 << (part % 8);
        all.push(failure(
            &format!("flipped at {place}"),
            flipped,
            &[Seal],
            &["not those that were"],
        ));
    }
    all
}

/// What is wrong with a shared library, or goes wrong when it runs.
fn native_failures() -> Vec<Failure> {
    use As::{Abi, Artifact, Keys, Start, Trial};
    let build = support::native();
    let patched = |field: usize, new: &[u8]| sealed(elf::with_entry(build, field, new));
    let deed = |mode: &str| puppet(build, mode);
    let mut all = vec![
        failure(
            "another machine",
            sealed(elf::for_another_machine(build)),
            &[Artifact],
            &["expected a 64-bit shared library for this machine", "Riscv"],
        ),
        failure(
            "no manifest",
            sealed(elf::without_manifest(build)),
            &[Artifact],
            &["expected a manifest", "a library without one"],
        ),
        failure(
            "no entry",
            sealed(elf::without_entry(build)),
            &[Artifact],
            &["expected one exported symbol", "found 0 []"],
        ),
        failure(
            "two entries",
            sealed(elf::with_second_export(build, true)),
            &[Artifact],
            &["expected one exported symbol", "found 2 ["],
        ),
        failure(
            "another export",
            sealed(elf::with_second_export(build, false)),
            &[Artifact],
            &["as its only exported symbol", "as well"],
        ),
        failure(
            "another magic number",
            patched(std::mem::offset_of!(Entry, magic), b"otherone"),
            &[Abi],
            &["another magic number"],
        ),
        failure(
            "another size of the entry",
            patched(std::mem::offset_of!(Entry, size), &[8, 0, 0, 0]),
            &[Abi],
            &["an entry of 8 bytes, not"],
        ),
        failure(
            "another version in the entry",
            patched(std::mem::offset_of!(Entry, abi_major), &[9, 0]),
            &[Abi],
            &["plugin API 9.0, not 0.0"],
        ),
        failure("another digest", sealed(elf::of_other_tables(build)), &[Abi], &["digest ababab"]),
        failure("panics that abort", sealed(elf::aborting(build)), &[Abi], &["panics abort in it"]),
        failure(
            "tables that are not what the digest says",
            sealed(elf::with_other_layout(build)),
            &[Abi],
            &["jackfield.logits-processor/1"],
        ),
        failure(
            "a manifest of an unknown kind",
            sealed(with_manifest(build, "logits-processor", "teapot")),
            &[Abi, Start],
            &["teapot"],
        ),
        failure(
            "a manifest of another kind",
            sealed(with_manifest(build, "logits-processor", "norm")),
            &[Abi],
            &["does not know", "jackfield.traced/1"],
        ),
        failure(
            "a manifest of another name",
            sealed(with_manifest(build, "\"puppet\"", "\"muppet\"")),
            &[Start],
            &["muppet", "logits-processor/puppet"],
        ),
        failure("init is an error", deed("error@create"), &[Start], &["refused at create"]),
        failure("init panics", deed("panic@create"), &[Start], &["it panicked: the puppet panics"]),
        failure("init panics twice", deed("double-panic@create"), &[Trial], &["signal 6"]),
        failure("init aborts", deed("abort@create"), &[Trial], &["signal 6"]),
        failure("init ends the process", deed("exit@create"), &[Trial], &["status 7"]),
        failure("init crashes", deed("segfault@create"), &[Trial], &["signal 11"]),
        failure("init overflows its stack", deed("overflow@create"), &[Trial], &["signal 6"]),
        failure("init takes all memory", deed("oom@create"), &[Trial], &["signal 6"]),
        failure(
            "the second start fails",
            deed("error@second-create"),
            &[Start],
            &["second-create"],
        ),
        failure(
            "the second start panics",
            deed("panic@second-create"),
            &[Start],
            &["second-create"],
        ),
        failure("its end panics", deed("panic@drop"), &[Start], &["panics at drop"]),
        failure("its end crashes", deed("segfault@drop"), &[Trial], &["signal 11"]),
        failure("its properties panic", deed("panic@need"), &[Start], &["panics at need"]),
        failure(
            "a table that is null",
            puppet(support::raw(), "null@open"),
            &[Start],
            &["without a table"],
        ),
        failure(
            "an error that cannot be read",
            puppet(support::raw(), "garbage@open"),
            &[Start],
            &["an error that cannot be read"],
        ),
        failure(
            "a code that there is not",
            puppet(support::raw(), "code@open"),
            &[Start],
            &["code 9"],
        ),
    ];
    for key in ["puppet_scaling", "another"] {
        all.push(Failure {
            config: Config::at("plugin.puppet").with(key, 2.0),
            ..failure(
                &format!("the key {key}"),
                puppet(build, "fair"),
                &[Keys],
                &["[plugin.puppet]"],
            )
        });
    }
    all.push(Failure {
        config: Config::at("plugin.puppet").with("puppet_scale", "loud"),
        ..failure(
            "a value of another type",
            puppet(build, "fair"),
            &[Start],
            &["puppet_scale", "loud"],
        )
    });
    all
}

/// What is wrong with a component, or goes wrong when it runs.
fn wasm_failures() -> Vec<Failure> {
    use As::{Keys, Start, Wasm};
    let build = support::component();
    let deed = |mode: &str| puppet(build, mode);
    let mut all = vec![
        failure(
            "a manifest of another kind",
            sealed(with_manifest(build, "logits-processor", "norm")),
            &[Wasm],
            &[],
        ),
        failure(
            "a manifest of an unknown kind",
            sealed(with_manifest(build, "logits-processor", "teapot")),
            &[Wasm, Start],
            &["teapot"],
        ),
        failure("init is an error", deed("error@create"), &[Start, Wasm], &["refused at create"]),
        failure("init panics", deed("panic@create"), &[Start, Wasm], &["panics at create"]),
        failure("init aborts", deed("abort@create"), &[Start, Wasm], &[]),
        failure("init ends the process", deed("exit@create"), &[Start, Wasm], &[]),
        failure("init crashes", deed("segfault@create"), &[Start, Wasm], &[]),
        failure("init overflows its stack", deed("overflow@create"), &[Start, Wasm], &[]),
        failure("init takes all memory", deed("oom@create"), &[Start, Wasm], &[]),
        failure("init hangs", deed("hang@create"), &[Start, Wasm], &["deadline"]),
    ];
    all.push(Failure {
        config: Config::at("plugin.puppet").with("another", 2.0),
        ..failure("an unknown key", puppet(build, "fair"), &[Keys], &["[plugin.puppet]", "another"])
    });
    all
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

/// Flips bits of a file before it is sealed, so that the seal says nothing: whatever reads the
/// bytes finds out, or finds nothing wrong, and never panics.
#[allow(clippy::print_stdout, reason = "a count for people")]
fn reads_damage_under_a_seal(build: &[u8]) {
    let fair = with_mode(build, "fair");
    let path = Path::new("flipped");
    let (mut taken, mut refused) = (0, 0);
    for part in 0..2048 {
        // The first bytes hold what the rest is found by.
        let place = if part < 1024 { part } else { fair.len() * (part - 1024) / 1024 };
        let mut flipped = fair.clone();
        flipped[place] ^= 1 << (part % 8);
        let format = Format::of("fair", &fair).unwrap();
        let result = Artifact::from_bytes(path, seal::seal(format, flipped)).map(|artifact| {
            let _ = Symbols::check_entry(&artifact.file, &artifact.bytes);
        });
        match result {
            Ok(()) => taken += 1,
            Err(error) => {
                assert!(error.to_string().starts_with("flipped"), "{place}: {error}");
                refused += 1;
            }
        }
    }
    println!("flips under a seal: {taken} found fair by their bytes, {refused} refused");
    assert!(refused > 0);
}

#[test]
fn what_fails_leaves_everything_as_it_was() {
    let program = env!("CARGO_BIN_EXE_jackfield-trial");
    let stand = Stand::new(Some(trial(program)), |_| ());

    let build = support::native();
    fails_without_a_trace(&stand, "so", build, damaged(build));
    fails_without_a_trace(&stand, "so", build, native_failures());
    reads_damage_under_a_seal(build);
    stays_within_the_quota(program);
    gives_up_on_what_hangs(program);
    refuses_two_files_of_one_name(&stand);
    takes_what_only_talks(&stand);

    let build = support::component();
    fails_without_a_trace(&stand, "wasm", build, damaged(build));
    fails_without_a_trace(&stand, "wasm", build, wasm_failures());
    reads_damage_under_a_seal(build);
}

/// The quota counts what is mapped, whoever mapped it.
fn stays_within_the_quota(program: &str) {
    let stand = Stand::new(Some(trial(program)), |options| {
        options.native_quota = native::mapped() + 1;
    });
    let over = failure(
        "one too many",
        puppet(support::native(), "answer=3"),
        &[As::Quota],
        &["native plugins are mapped, the quota is", "raise `load.quota`"],
    );
    let first = stand.file("first.so", &puppet(support::native(), "answer=1"));
    stand.plugins.swap(&first, None).unwrap();
    let mapped = native::mapped();
    let path = stand.file("over.so", &over.file);
    let error = stand.plugins.swap(&path, None).unwrap_err();
    assert_eq!(variant(&error), Some(As::Quota), "{error}");
    assert!(over.says.iter().all(|part| error.to_string().contains(part)), "{error}");
    assert_eq!((native::mapped(), stand.slot.answer()), (mapped, Ok(1.0)));
}

/// A trial ends what does not end itself.
fn gives_up_on_what_hangs(program: &str) {
    let mut impatient = Trial::new(vec![program.into()]);
    impatient.limit = Duration::from_millis(300);
    let stand = Stand::new(Some(impatient), |_| ());
    for mode in ["hang@create", "hang@second-create", "hang@need", "hang@drop"] {
        let before = Holdings::now();
        let path = stand.file("hangs.so", &puppet(support::native(), mode));
        let error = stand.plugins.swap(&path, None).unwrap_err();
        assert_eq!(variant(&error), Some(As::Trial), "{mode}: {error}");
        let text = error.to_string();
        assert!(text.contains("hangs.so") && text.contains("nothing after 300ms"), "{text}");
        assert_eq!(Holdings::now(), before, "{mode}");
        assert_eq!(stand.staged(), 0, "{mode}");
    }
}

/// Nothing of a set of files is registered if two of them are the same plugin.
fn refuses_two_files_of_one_name(stand: &Stand) {
    let registered = stand.registered();
    let one = stand.file("one.so", &puppet(support::native(), "answer=4"));
    let other = stand.file("other.so", &puppet(support::native(), "answer=5"));
    let error = stand.plugins.load_files(&[one, other]).unwrap_err();
    assert!(matches!(error, PluginsError::Load(LoadError::NameTaken { .. })), "{error}");
    let text = error.to_string();
    assert!(text.contains("one.so") && text.contains("other.so"), "{text}");
    assert_eq!(stand.registered(), registered);
}

/// What a plugin prints while it is tried is no answer, and no reason to refuse it.
fn takes_what_only_talks(stand: &Stand) {
    for mode in ["print@create", "print@need", "print@drop"] {
        let path = stand.file("talks.so", &puppet(support::native(), mode));
        stand.plugins.swap(&path, None).unwrap();
    }
}
