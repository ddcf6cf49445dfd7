//! What is wrong with a component, or goes wrong when it runs.

use std::time::Duration;

use jackfield_loader::seal;
use jackfield_loader::wasm::WasmOptions;
use plugin_api::{Config, Error};

use super::altered;
use super::process::Holdings;
use super::stand::Stand;
use super::support::{self, MANIFEST, puppet, replaced, sealed, with_manifest};
use super::{As, Failure, failure, variant};

/// Each by name.
pub(crate) fn failures() -> Vec<Failure> {
    let build = support::component();
    let mut all = strange(build);
    all.extend(misfits(build));
    all.extend(deeds(build));
    let configured = [
        (
            "an unknown key",
            "another",
            2.0.into(),
            &[As::Keys][..],
            &["[plugin.puppet]", "another"][..],
        ),
        ("a key misspelt", "puppet_scaling", 2.0.into(), &[As::Keys], &["puppet_scaling"]),
        (
            "a value of another type",
            "puppet_scale",
            "loud".into(),
            &[As::Start][..],
            &["plugin.puppet.puppet_scale: expected a number in 0.1..=10, found \"loud\""],
        ),
        (
            "a value out of range",
            "puppet_scale",
            plugin_api::Value::from(11.0),
            &[As::Start][..],
            &["plugin.puppet.puppet_scale: expected a number in 0.1..=10, found 11"],
        ),
    ];
    for (name, key, value, expected, says) in configured {
        all.push(Failure {
            config: Config::at("plugin.puppet").with(key, value),
            ..failure(name, puppet(build, "fair"), expected, says)
        });
    }
    all
}

/// Files that are no component, or none with one manifest.
fn strange(build: &[u8]) -> Vec<Failure> {
    let wasm =
        |name, file, says: &'static [&'static str]| failure(name, sealed(file), &[As::Wasm], says);
    let bare = replaced(build, b"jackfield.manifest", b"jackfield_manifest");
    vec![
        wasm(
            "a core module",
            b"\0asm\x01\0\0\0".to_vec(),
            &["expected a WASM component, found a core module"],
        ),
        wasm(
            "cut off before it was sealed",
            build[..build.len() / 2].to_vec(),
            &["expected a WASM component: ", "at byte"],
        ),
        wasm(
            "another version of the format",
            altered::of_another_encoding(build),
            &["expected a WASM component: unknown binary version"],
        ),
        wasm(
            "no manifest",
            bare.clone(),
            &["expected one custom section `jackfield.manifest`, found 0"],
        ),
        wasm(
            "two manifests",
            seal::with_manifest(build.to_vec(), MANIFEST),
            &["expected one custom section `jackfield.manifest`, found 2"],
        ),
        wasm(
            "a manifest that is no text",
            replaced(build, b"name = \"puppet\"", b"name = \"pupp\xff\xfe\""),
            &["custom section `jackfield.manifest`: expected UTF-8"],
        ),
        wasm(
            "an empty component",
            seal::with_manifest(b"\0asm\x0d\0\x01\0".to_vec(), MANIFEST),
            &["expected the exports of a `logits-processor` (logits-processor), found none"],
        ),
        wasm("code that is none", altered::with_broken_code(build), &["cannot be compiled: "]),
    ]
}

/// Components of another kind or another boundary than this host has.
fn misfits(build: &[u8]) -> Vec<Failure> {
    let wasm =
        |name, file, says: &'static [&'static str]| failure(name, sealed(file), &[As::Wasm], says);
    vec![
        wasm(
            "a manifest of another kind",
            with_manifest(build, "logits-processor", "norm"),
            &["imports `jackfield:plugin/rows@0.0.0`, which the host does not offer to a `norm`"],
        ),
        wasm(
            "a manifest of an unknown kind",
            with_manifest(build, "logits-processor", "teapot"),
            &["plugins of kind `teapot` cannot be WASM components"],
        ),
        wasm(
            "a manifest of a kind of other lanes",
            with_manifest(build, "logits-processor", "backend"),
            &["plugins of kind `backend` cannot be WASM components"],
        ),
        wasm(
            "an interface of another version",
            altered::of_another_version(build),
            &["@0.0.7`, this host speaks version 0.0.0"],
        ),
        wasm(
            "an export of another name",
            replaced(build, b"plugin/logits-processor@", b"plugin/logits-possessor@"),
            &[
                "expected the exports of a `logits-processor` (logits-processor), found logits-possessor",
            ],
        ),
        wasm(
            "a function that is missing",
            replaced(build, b"\x05apply", b"\x05amply"),
            &["does not fit the interfaces of its kind: ", "apply"],
        ),
        wasm(
            "a function of another type",
            altered::with_functions_swapped(build),
            &["does not fit the interfaces of its kind: ", "create"],
        ),
        wasm(
            "an import that no host gives",
            replaced(build, b"plugin/rows@", b"plugin/cows@"),
            &["imports `jackfield:plugin/cows@0.0.0`, which the host does not offer"],
        ),
        wasm(
            "an import of somebody else",
            replaced(build, b"wasi:cli/exit@", b"evil:cli/exit@"),
            &["imports `evil:cli/exit@0.2.6`, which the host does not offer"],
        ),
        wasm(
            "an import of a WASI that there is not",
            replaced(build, b"wasi:cli/exit@", b"wasi:cli/exec@"),
            &["does not fit the interfaces of its kind: ", "wasi:cli/exec"],
        ),
        wasm(
            "an imported function that there is not",
            replaced(build, b"edit-all", b"edit-any"),
            &["does not fit the interfaces of its kind: ", "edit-any"],
        ),
    ]
}

/// What a guest does while it is made.
fn deeds(build: &[u8]) -> Vec<Failure> {
    #[rustfmt::skip]
    let deeds: [(&str, &str, &'static [&'static str]); 8] = [
        ("panics",              "panic",        &["panicked at", "the puppet panics at "]),
        ("panics twice",        "double-panic", &["the puppet panics "]),
        ("aborts",              "abort",        &["wasm `unreachable` instruction executed"]),
        ("ends the process",    "exit",         &["Exited with i32 exit status 1"]),
        ("crashes",             "segfault",     &["wasm `unreachable` instruction executed"]),
        ("overflows its stack", "overflow",     &["out of bounds memory access"]),
        ("takes all memory",    "oom",          &["bytes of memory, `memory_bytes_max` is 268435456"]),
        ("hangs",               "hang",         &["stopped at its deadline of "]),
    ];
    let mut all = vec![failure(
        "init is an error",
        puppet(build, "error@create"),
        &[As::Start],
        &["puppet: refused at create"],
    )];
    for (function, point) in [("init", "create"), ("describe", "need")] {
        for (does, deed, says) in deeds {
            let file = puppet(build, &format!("{deed}@{point}"));
            all.push(failure(&format!("{function} {does}"), file, &[As::Start], says));
        }
    }
    all
}

/// What traps in its first calls has been taken by then: it answers with an error that says why,
/// is told of once, and what ran before is put back.
pub(crate) fn is_taken_back_when_it_traps(stand: &Stand) {
    let build = support::component();
    let first = stand.file("first.wasm", &puppet(build, "answer=1"));
    stand.plugins.swap(&first, None).unwrap();
    stand.faults.lock().unwrap().clear();
    // What could be put back before, and is not kept any longer, is given up with the first one.
    let mut before: Option<Holdings> = None;
    #[rustfmt::skip]
    let deeds = [
        ("panic",    "the puppet panics at apply"),
        ("abort",    "wasm `unreachable` instruction executed"),
        ("exit",     "Exited with i32 exit status 1"),
        ("segfault", "wasm `unreachable` instruction executed"),
        ("overflow", "out of bounds memory access"),
        ("oom",      "`memory_bytes_max` is 268435456"),
        ("hang",     "stopped at its deadline of 500 ms"),
    ];
    for (deed, says) in deeds {
        let path = stand.file("traps.wasm", &puppet(build, &format!("{deed}@apply")));
        stand.plugins.swap(&path, None).unwrap();
        let error = stand.slot.answer().unwrap_err();
        assert!(matches!(error, Error::Outside { .. }), "{deed}: {error:?}");
        let text = error.to_string();
        assert!(text.starts_with("plugin `puppet`: ") && text.contains(says), "{deed}: {text}");
        assert_eq!(stand.slot.answer().unwrap_err(), error, "{deed}: says the same");
        let told = std::mem::take(&mut *stand.faults.lock().unwrap());
        let [(generation, said)] = &told[..] else { panic!("{deed}: told {told:?}") };
        assert_eq!(*said, text, "{deed}");
        stand.plugins.on_fault(generation, &error);
        assert_eq!(stand.slot.answer(), Ok(1.0), "{deed}: the old generation serves");
        let now = Holdings::now();
        if let Some(before) = before.replace(now.clone()) {
            assert_eq!(now, before, "{deed}");
        }
    }
}

/// Where there is nothing to go back to, the same plugin is started again, and called.
pub(crate) fn is_started_again_after_longer_and_longer_pauses() {
    let stand = Stand::new(None, |_| {});
    let build = support::component();
    let path = stand.file("traps.wasm", &puppet(build, "panic@apply"));
    stand.plugins.swap(&path, None).unwrap();
    for seconds in [0, 1, 2, 4] {
        let error = stand.slot.answer().unwrap_err();
        let told = std::mem::take(&mut *stand.faults.lock().unwrap());
        let [(generation, _)] = &told[..] else { panic!("{seconds}: told {told:?}") };
        let restart = stand.plugins.on_fault(generation, &error).unwrap();
        assert_eq!(restart.pause, Duration::from_secs(seconds));
        assert_eq!(stand.plugins.on_fault(generation, &error), None, "one at a time");
        assert_eq!(stand.plugins.restart(&restart), None);
        assert_eq!(stand.plugins.restart(&restart), None, "nothing waits");
        assert_eq!(stand.plugins.loaded()[0].instances, 1, "the failed one is gone");
    }
    let fair = stand.file("fair.wasm", &puppet(build, "answer=1"));
    let _ = stand.slot.answer().unwrap_err();
    let (generation, error) = stand.faults.lock().unwrap()[0].clone();
    let error = Error::outside("puppet", error);
    let restart = stand.plugins.on_fault(&generation, &error).unwrap();
    stand.plugins.swap(&fair, None).unwrap();
    assert_eq!(stand.plugins.restart(&restart), None);
    assert_eq!(stand.plugins.on_fault(&generation, &error), None, "another one fills the slot");
    assert_eq!(stand.slot.answer(), Ok(1.0), "what an operator has put there stays");
}

/// Limits of the lane that a component meets before any of its code runs.
pub(crate) fn stays_within_its_limits() {
    type Change = fn(&mut WasmOptions);
    type Guest = fn() -> &'static [u8];
    #[rustfmt::skip]
    let limits: [(&str, Change, Guest, &str); 2] = [
        ("more memory from the start", |it| it.memory_bytes_max = 1 << 17, support::native, "memory"),
        ("one instance too many",      |it| it.instances_max = 1,          support::component, "`instances_max`"),
    ];
    for (name, change, build, says) in limits {
        let stand = Stand::new(None, |options| {
            let mut wasm = WasmOptions::new(options.folder.join("wasm"));
            change(&mut wasm);
            options.wasm = Some(wasm);
        });
        let first = stand.file("first", &puppet(build(), "answer=1"));
        stand.plugins.swap(&first, None).unwrap();
        let path = stand.file("over.wasm", &puppet(support::component(), "answer=3"));
        // The first attempt may start the lane itself, which stays.
        stand.plugins.swap(&path, None).unwrap_err();
        let (registered, before) = (stand.registered(), Holdings::now());
        let error = stand.plugins.swap(&path, None).unwrap_err();
        assert_eq!(variant(&error), Some(As::Start), "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains("over.wasm") && text.contains(says), "{name}: {text}");
        assert_eq!(stand.slot.answer(), Ok(1.0), "{name}");
        assert_eq!((stand.registered(), Holdings::now()), (registered, before), "{name}");
    }
}
