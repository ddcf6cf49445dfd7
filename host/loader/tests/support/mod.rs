//! Plugin files for tests: the puppet, built once a run, and copies of it with bytes changed.

#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod bad;
pub(crate) mod elf;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use jackfield_loader::{Format, seal};

/// The puppet as a shared library, neither sealed nor changed.
pub(crate) fn native() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| build(&[], None))
}

/// The puppet as a component, neither sealed nor changed.
pub(crate) fn component() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| build(&[], Some("wasm32-wasip2")))
}

/// A shared library with a table written by hand in place of the shim.
pub(crate) fn raw() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| build(&["--features", "raw"], None))
}

/// The puppet as a shared library that cannot start threads.
pub(crate) fn threadless() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| build(&["--features", "threadless"], None))
}

/// The puppet as a shared library that imports what no plugin may.
pub(crate) fn forbidden() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| build(&["--features", "forbidden"], None))
}

/// The puppet as a shared library that starts a program.
pub(crate) fn programs() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| build(&["--features", "programs"], None))
}

/// A copy of the puppet that behaves as `mode` says, sealed.
pub(crate) fn puppet(build: &[u8], mode: &str) -> Vec<u8> {
    sealed(with_mode(build, mode))
}

/// A copy with another mode.
///
/// # Panics
///
/// If the text does not fit.
pub(crate) fn with_mode(build: &[u8], mode: &str) -> Vec<u8> {
    const MARK: &[u8] = b"jackfield-mode:";
    const ROOM: usize = 64 - MARK.len();
    assert!(mode.len() <= ROOM, "`{mode}` is longer than {ROOM} bytes");
    let mut bytes = build.to_vec();
    // The mark stands in the code as well, where nothing but it follows.
    let places = places_of(&[MARK, b"fair    "].concat(), &bytes);
    let [place] = places[..] else { panic!("expected one mode, found {places:?}") };
    let start = place + MARK.len();
    bytes[start..start + ROOM].copy_from_slice(format!("{mode:ROOM$}").as_bytes());
    bytes
}

/// A copy with `new` wherever `old`, which is as long, stands.
///
/// # Panics
///
/// If it stands nowhere.
pub(crate) fn replaced(build: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len(), "nothing may move");
    let places = places_of(old, build);
    assert!(!places.is_empty(), "no {:?} in it", String::from_utf8_lossy(old));
    let mut bytes = build.to_vec();
    for place in places {
        bytes[place..place + new.len()].copy_from_slice(new);
    }
    bytes
}

/// A copy whose manifest has `new` in place of `old`; the description makes room.
pub(crate) fn with_manifest(build: &[u8], old: &str, new: &str) -> Vec<u8> {
    let text = MANIFEST.replace(old, new);
    assert_ne!(text, MANIFEST, "no `{old}` in the manifest");
    let surplus = text.len().saturating_sub(MANIFEST.len());
    let text = text.replacen(&".".repeat(surplus), "", usize::from(surplus > 0));
    let text = format!("{text:width$}", width = MANIFEST.len());
    replaced(build, MANIFEST.as_bytes(), text.as_bytes())
}

/// A copy with a seal.
pub(crate) fn sealed(bytes: Vec<u8>) -> Vec<u8> {
    let format = Format::of("puppet", &bytes).expect("a library or a component");
    seal::seal(format, bytes)
}

/// Where `part` stands in `bytes`.
pub(crate) fn places_of(part: &[u8], bytes: &[u8]) -> Vec<usize> {
    let is_first = |&place: &usize| bytes[place] == part[0];
    let places = (0..bytes.len().saturating_sub(part.len() - 1)).filter(is_first);
    places.filter(|&place| bytes[place..].starts_with(part)).collect()
}

/// The manifest of the puppet.
pub(crate) const MANIFEST: &str = include_str!("../guests/puppet/plugin.toml");

/// The root of the project.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut above = here.ancestors();
    above.find(|folder| folder.join("host/loader").is_dir()).expect("a crate of the project")
}

/// Builds the puppet in a folder of its own, kept from run to run.
fn build(features: &[&str], target: Option<&str>) -> Vec<u8> {
    // All features leave their file in one place.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock();
    let folder = root().join("host/loader/tests/guests/puppet");
    let target_folder: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("puppet");
    let lock = folder.join("Cargo.lock");
    if !lock.exists() {
        // The versions that the project is built with.
        std::fs::copy(root().join("Cargo.lock"), lock).expect("the lock file is there");
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(folder).args(["rustc", "--quiet", "--lib", "--release"]);
    cargo.args(["--crate-type", "cdylib", "--target-dir"]).arg(&target_folder).args(features);
    cargo.args(target.iter().flat_map(|target| ["--target", target]));
    cargo.args(["--", "-C", "strip=symbols"]);
    let output = cargo.env_remove("RUSTFLAGS").output().expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the puppet has to build:\n{said}");
    let file = match target {
        None => target_folder.join("release/libplugin_puppet.so"),
        Some(target) => target_folder.join(target).join("release/plugin_puppet.wasm"),
    };
    std::fs::read(&file).expect("cargo left the file")
}
