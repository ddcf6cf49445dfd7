//! `jackfield plugin check`: what a host would find in a plugin file, without believing it.
//!
//! What stands in the bytes is read here. Whatever runs the plugin runs in a child (`probe`), under
//! limits of time and memory, so that the verdict survives it.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use jackfield_loader::artifact::{Format, manifest_text};
use jackfield_loader::symbols::Symbols;
use jackfield_loader::{Artifact, Permission, PluginManifest, seal};

use super::child::{Children, Ended, Ran};
use super::say;
use super::verdict::{Finding, NOT_RUN, Verdict};
use crate::args::Check;

/// Runs the command; fails if a check does.
pub(super) fn run(args: &Check, is_json: bool) -> Result<()> {
    let verdict = judge(args)?;
    say(&if is_json { serde_json::to_string(&verdict)? } else { verdict.to_string() })?;
    verdict.summary().map_or(Ok(()), |summary| bail!(summary))
}

fn judge(args: &Check) -> Result<Verdict> {
    let file = args.file.display().to_string();
    let bytes = std::fs::read(&args.file).with_context(|| file.clone())?;
    let (mut checks, mut warnings) = (Vec::new(), Vec::new());
    let is_file_fine = judge_file(&file, &bytes, &mut checks);
    warnings.extend(starts_programs(&file, &bytes));
    if is_file_fine {
        let children = Children::new(args)?;
        judge_running(&children, &mut checks, &mut warnings);
    }
    let sha256 = jackfield_loader::artifact::hash_of(&bytes);
    let passed = checks.iter().all(|finding| finding.passed);
    Ok(Verdict { file, sha256, passed, seed: args.seed, checks, warnings })
}

/// What can be said without running anything; whether it is worth running.
fn judge_file(file: &str, bytes: &[u8], checks: &mut Vec<Finding>) -> bool {
    let format = Format::of(file, bytes);
    let library = |test: &dyn Fn() -> Result<String>, component: &str| match &format {
        Ok(Format::Elf) => test(),
        Ok(Format::Wasm) => Ok(component.to_owned()),
        Err(error) => bail!("{error}"),
    };
    let mut check = |name, test: &dyn Fn() -> Result<String>| {
        let start = Instant::now();
        let result = test();
        checks.push(finding(name, start, result));
    };
    check("seal", &|| {
        let format = Format::of(file, bytes)?;
        seal::check(file, format, bytes)?;
        Ok("whole: the bytes are those that were sealed".to_owned())
    });
    check("manifest", &|| {
        let format = Format::of(file, bytes)?;
        let manifest = PluginManifest::parse(file, &manifest_text(file, format, bytes)?)?;
        Ok(format!("{}, plugin API {}", manifest.capability(), manifest.api))
    });
    check("architecture", &|| {
        library(
            &|| {
                Symbols::read(file, bytes)?;
                Ok(format!("a shared library for {}", std::env::consts::ARCH))
            },
            "a component: runs on every machine",
        )
    });
    check("exports", &|| library(&|| exports(file, bytes), "the loader checks its world"));
    checks.iter().all(|finding| finding.passed)
}

/// One entry, nothing that outlives a plugin, nothing that belongs to the whole process but what
/// its permissions stand for.
fn exports(file: &str, bytes: &[u8]) -> Result<String> {
    let entry = Symbols::check_entry(file, bytes)?;
    let symbols = Symbols::read(file, bytes)?;
    if !symbols.unique.is_empty() {
        bail!(
            "{file}: {} is GNU_UNIQUE: the linker would keep one for all generations: build with \
             -fno-gnu-unique",
            symbols.unique.join(", ")
        );
    }
    let may_start_programs = may_start_programs(file, bytes);
    for (names, why) in FORBIDDEN {
        let mut found = symbols.imported_of(names);
        if may_start_programs {
            found.retain(|name| !STARTS_PROGRAMS.contains(name));
        }
        if !found.is_empty() {
            bail!("{file}: imports {}: {why}", found.join(", "));
        }
    }
    Ok(format!("`{entry}`, and {} harmless imports", symbols.imported.len()))
}

/// What a plugin says of itself that starts programs past the host, as a library below it may.
fn starts_programs(file: &str, bytes: &[u8]) -> Option<String> {
    let symbols = Symbols::read(file, bytes).ok()?;
    let found = symbols.imported_of(STARTS_PROGRAMS);
    (!found.is_empty() && may_start_programs(file, bytes)).then(|| {
        format!(
            "imports {}: its permission `process` says that it runs programs, and here it does so \
             past the host, which neither limits nor records them",
            found.join(", ")
        )
    })
}

fn may_start_programs(file: &str, bytes: &[u8]) -> bool {
    let manifest = Format::of(file, bytes)
        .and_then(|format| manifest_text(file, format, bytes))
        .and_then(|text| PluginManifest::parse(file, &text));
    manifest.is_ok_and(|manifest| manifest.permissions.contains(&Permission::Process))
}

/// What starts a program: the child gets its signals back as they were at first, goes to its
/// folder, and ends if the program is not there.
#[rustfmt::skip]
const STARTS_PROGRAMS: &[&str] = &[
    "fork", "vfork", "execve", "execvp", "posix_spawn", "posix_spawnp", "signal", "chdir", "_exit",
];

/// What a plugin must not call, because it changes the process that it is a guest in.
const FORBIDDEN: [(&[&str], &str); 5] = [
    (
        &["sigaction", "__sigaction", "signal", "bsd_signal", "sigset", "sysv_signal"],
        "signals belong to the process, not to a plugin: ask the host for what you need",
    ),
    (
        &["atexit", "at_quick_exit", "on_exit", "__cxa_atexit"],
        "a function that runs at exit would outlive the generation that named it: use Drop",
    ),
    (
        &["exit", "_exit", "_Exit", "quick_exit"],
        "a plugin must not end the process: return an error",
    ),
    (
        &["fork", "vfork", "execve", "execvp", "posix_spawn", "posix_spawnp", "system", "popen"],
        "programs are run by the host: `Host::services().run`, with the permission `process`",
    ),
    (
        &["setenv", "putenv", "unsetenv", "clearenv", "chdir", "fchdir", "umask", "setlocale"],
        "environment, folder and locale belong to the process: read the plugin's own table",
    ),
];

/// What happens when it runs: the parts in turn, and over all of them what no part may do.
fn judge_running(children: &Children<'_>, checks: &mut Vec<Finding>, warnings: &mut Vec<String>) {
    let mut parts: Vec<(&'static str, Ended, Finding)> = Vec::new();
    for part in PARTS {
        let can_start = parts.iter().all(|(_, ended, _)| ended.has_passed());
        // What does not start is not tried again and again.
        if !can_start && parts.iter().any(|(name, ended, _)| is_first(name) && !ended.has_passed())
        {
            let message = format!("{NOT_RUN}: it does not start, see above");
            let skipped = Finding { name: part, passed: false, message, ms: 0 };
            parts.push((part, Ended::NotRun, skipped));
            continue;
        }
        let start = Instant::now();
        let Ran { ended, printed } = children.run(part);
        if let Some((stream, line)) = printed.filter(|_| warnings.is_empty()) {
            warnings.push(format!(
                "prints to {stream}, during {part} {line:?}: in a host that is where answers and \
                 messages go: return errors, or log through the `Host`"
            ));
        }
        let found = finding(part, start, ended.message());
        parts.push((part, ended, found));
    }
    let over = |name, fine: &str, is_fault: fn(&Ended) -> bool| {
        let culprit = parts.iter().find(|(_, ended, _)| is_fault(ended));
        let (passed, message) = match culprit {
            None => (true, fine.to_owned()),
            Some((part, ended, _)) => (false, format!("during {part}: {}", ended.sentence())),
        };
        Finding { name, passed, message, ms: 0 }
    };
    let limits = [
        over("panic", "it never panicked", Ended::has_panicked),
        over("hang", "every call came back", Ended::has_hung),
        over("exit", "it never ended or crashed its process", Ended::has_gone),
        over("memory", "it stayed within its limit", Ended::has_run_out),
    ];
    let (first, later): (Vec<_>, Vec<_>) =
        parts.iter().map(|(_, _, found)| found.clone()).partition(|found| is_first(found.name));
    checks.extend(first.into_iter().chain(limits).chain(later));
}

/// In the order in which they run. The first two decide whether the others make sense.
const PARTS: [&str; 6] = ["layout", "init", "create-drop", "contract", "config-fuzz", "input-fuzz"];

fn is_first(part: &str) -> bool {
    PARTS[..2].contains(&part)
}

fn finding(name: &'static str, start: Instant, result: Result<String>) -> Finding {
    let (passed, message) = match result {
        Ok(message) => (true, message),
        Err(error) => (false, crate::sentence(&error)),
    };
    Finding { name, passed, message, ms: start.elapsed().as_millis() as u64 }
}

/// A file that the loader takes.
pub(super) fn read(path: &std::path::Path) -> Result<Artifact> {
    Ok(Artifact::read(path)?)
}
