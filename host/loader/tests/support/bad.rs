//! Plugins that must not pass a check, each with the check that has to find it.

use super::{component, elf, forbidden, native, programs, puppet, sealed, with_manifest};

/// A plugin file with one thing wrong.
pub(crate) struct Bad {
    /// What is wrong, as the name of a file.
    pub(crate) name: String,
    /// The check that fails.
    pub(crate) found_by: &'static str,
    /// The file.
    pub(crate) bytes: Vec<u8>,
}

fn bad(name: &str, found_by: &'static str, bytes: Vec<u8>) -> Bad {
    Bad { name: name.to_owned(), found_by, bytes }
}

/// Every bad plugin. Requests that make the puppet act carry `puppet_scale = 2.0`.
pub(crate) fn plugins() -> Vec<Bad> {
    let mut all = files(native(), "so");
    all.extend(libraries());
    all.extend(MODES.map(|(mode, found_by)| {
        bad(&format!("{}.so", mode.replace('@', "-at-")), found_by, puppet(native(), mode))
    }));
    all.extend(files(component(), "wasm"));
    all.extend(MODES_OF_COMPONENTS.map(|(mode, found_by)| {
        bad(&format!("{}.wasm", mode.replace('@', "-at-")), found_by, puppet(component(), mode))
    }));
    all
}

/// What is wrong with the bytes of a file, in either format.
fn files(build: &[u8], end: &str) -> Vec<Bad> {
    let fair = puppet(build, "fair");
    let mut flipped = fair.clone();
    flipped[fair.len() / 2] ^= 1;
    let lies = |old: &str, new: &str| sealed(with_manifest(build, old, new));
    let named = |name: &str| format!("{name}.{end}");
    vec![
        bad(&named("never-sealed"), "seal", build.to_vec()),
        bad(&named("truncated"), "seal", fair[..fair.len() * 2 / 3].to_vec()),
        bad(&named("without-its-last-byte"), "seal", fair[..fair.len() - 1].to_vec()),
        bad(&named("flipped"), "seal", flipped),
        bad(&named("for-another-api"), "manifest", lies("\"0.0\"", "\"1.0\"")),
        bad(&named("without-a-name"), "manifest", lies("name = ", "#ame = ")),
        bad(&named("with-an-unknown-permission"), "manifest", lies("= []", "= [\"root\"]")),
        bad(&named("of-an-unknown-kind"), "layout", lies("logits-processor", "teapot")),
    ]
}

/// What only a shared library can have wrong before it runs.
fn libraries() -> Vec<Bad> {
    let build = native();
    vec![
        bad("a-text.so", "architecture", b"#!/bin/sh\necho hello\n".to_vec()),
        bad("for-another-machine.so", "architecture", sealed(elf::for_another_machine(build))),
        bad("without-a-manifest.so", "manifest", sealed(elf::without_manifest(build))),
        bad("without-an-entry.so", "exports", sealed(elf::without_entry(build))),
        bad("with-two-entries.so", "exports", sealed(elf::with_second_export(build, true))),
        bad("with-another-export.so", "exports", sealed(elf::with_second_export(build, false))),
        bad("takes-signals.so", "exports", puppet(forbidden(), "signal@create")),
        bad("moves-the-process.so", "exports", puppet(forbidden(), "chdir@apply")),
        bad("sets-the-environment.so", "exports", puppet(forbidden(), "env@apply")),
        bad("starts-a-program.so", "exports", puppet(programs(), "program@apply")),
        bad("ends-the-process.so", "exports", puppet(forbidden(), "real-exit@drop")),
        bad("built-with-other-tables.so", "layout", sealed(elf::of_other_tables(build))),
        bad("lies-about-its-tables.so", "layout", sealed(elf::with_other_layout(build))),
        bad("aborts-where-it-panics.so", "layout", sealed(elf::aborting(build))),
        bad("of-another-kind.so", "init", sealed(with_manifest(build, "logits-processor", "norm"))),
        bad("of-another-name.so", "init", sealed(with_manifest(build, "\"puppet\"", "\"muppet\""))),
    ]
}

/// What goes wrong when a library runs: the mode, and the check that finds it.
#[rustfmt::skip]
const MODES: [(&str, &str); 51] = [
    ("error@create",             "init"),
    ("panic@create",             "init"),
    ("error@second-create",      "init"),
    ("panic@second-create",      "init"),
    ("hang@create",              "hang"),
    ("hang@drop",                "hang"),
    ("hang@batch",               "hang"),
    ("hang@apply",               "hang"),
    ("abort@create",             "exit"),
    ("exit@create",              "exit"),
    ("segfault@create",          "exit"),
    ("overflow@create",          "exit"),
    ("double-panic@create",      "exit"),
    ("segfault@drop",            "exit"),
    ("abort@apply",              "exit"),
    ("exit@batch",               "exit"),
    ("double-panic@apply",       "exit"),
    ("oom@create",               "memory"),
    ("oom@apply",                "memory"),
    ("panic@drop",               "panic"),
    ("panic@need",               "panic"),
    ("panic@batch",              "panic"),
    ("panic@apply",              "panic"),
    ("panic-payload@apply",      "panic"),
    ("odd-vocabulary",           "panic"),
    ("tiny-vocabulary",          "panic"),
    ("divides-by-rows",          "panic"),
    ("trusts-history",           "panic"),
    ("leak-memory@create",       "create-drop"),
    ("leak-memory@drop",         "create-drop"),
    ("leak-thread@create",       "create-drop"),
    ("leak-file@create",         "create-drop"),
    ("nan",                      "contract"),
    ("unmasks",                  "contract"),
    ("edits-without-parameters", "contract"),
    ("neighbours",               "contract"),
    ("counts-calls",             "contract"),
    ("random",                   "contract"),
    ("wrong-argmax",             "contract"),
    ("reads-undeclared-max",     "contract"),
    ("reads-undeclared-whole",   "contract"),
    ("ignores-removed",          "contract"),
    ("ignores-forked",           "contract"),
    ("forgets-rolled-back",      "contract"),
    ("row-number",               "contract"),
    ("refuses-no-rows",          "contract"),
    ("indexes-the-vocabulary",   "panic"),
    ("trusts-forked",            "panic"),
    ("panics-on-text",           "config-fuzz"),
    ("unwraps-config",           "config-fuzz"),
    ("unwraps-params",           "input-fuzz"),
];

/// The same of components, whose sandbox turns most of it into errors.
#[rustfmt::skip]
const MODES_OF_COMPONENTS: [(&str, &str); 6] = [
    ("error@create",             "init"),
    ("panic@create",             "init"),
    ("nan",                      "contract"),
    ("neighbours",               "contract"),
    ("wrong-argmax",             "contract"),
    ("reads-undeclared-max",     "contract"),
];
