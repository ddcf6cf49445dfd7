//! What is wrong with a shared library, or goes wrong when it runs.

use std::time::Duration;

use jackfield_loader::{Trial, native};
use plugin_api::Config;
use plugin_api::native::Entry;

use super::process::Holdings;
use super::stand::{Stand, trial};
use super::support::{self, elf, puppet, sealed, with_manifest};
use super::{As, Failure, failure, variant};

/// Each by name.
pub(crate) fn failures() -> Vec<Failure> {
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
        failure("init prints 1 MiB", deed("shout@create"), &[Start], &["hoarse at create"]),
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

/// The quota counts what is mapped, whoever mapped it.
pub(crate) fn stays_within_the_quota(program: &str) {
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
pub(crate) fn gives_up_on_what_hangs(program: &str) {
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
