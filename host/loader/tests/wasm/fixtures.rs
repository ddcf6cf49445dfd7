//! Components for tests, each built once, and what is needed to open them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use jackfield_loader::wasm::{WasmLane, WasmOptions};
use jackfield_loader::{LoadError, PluginManifest};
use plugin_api::testing::machine::Machine;
use plugin_api::{Config, Error, Provided};
use sha2::{Digest, Sha256};

/// The component of a plugin in this tree: its package without `plugin-`.
pub(crate) fn component(package: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    build(&["--package", &format!("plugin-{package}")], &root, package)
}

/// The component of a crate below `tests/guests`.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    build(&[], &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests").join(name), name)
}

fn build(args: &[&str], folder: &Path, name: &str) -> Vec<u8> {
    // One at a time: they share a folder.
    static BUILDING: Mutex<()> = Mutex::new(());
    let building = BUILDING.lock();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasm-fixtures");
    let output = Command::new(env!("CARGO"))
        .current_dir(folder)
        .args(["rustc", "--quiet", "--lib", "--crate-type", "cdylib", "--release"])
        .args(["--target", "wasm32-wasip2", "--target-dir"])
        .arg(&target)
        .args(args)
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} has to build for wasm32-wasip2:\n{said}");
    let file = format!("wasm32-wasip2/release/plugin_{}.wasm", name.replace('-', "_"));
    let bytes = std::fs::read(target.join(file)).expect("cargo left a component");
    drop(building);
    bytes
}

/// A lane with a cache of its own, gone with it.
pub(crate) struct Lane {
    pub(crate) lane: WasmLane,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) machine: Machine,
}

impl Lane {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut WasmOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = WasmOptions::new(folder.path().join("cache"));
        options.instances_max = 8;
        change(&mut options);
        let lane = WasmLane::new(options).unwrap();
        Self { lane, folder, machine: Machine::new() }
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    pub(crate) fn open(&self, bytes: &[u8]) -> Result<Provided, LoadError> {
        self.open_as(bytes, false)
    }

    pub(crate) fn open_as(&self, bytes: &[u8], is_trusted: bool) -> Result<Provided, LoadError> {
        let manifest = WasmLane::manifest("test", bytes)?;
        let manifest = PluginManifest::parse("test", &manifest)?;
        let host = self.machine.host(&manifest.name);
        self.lane.open("test", bytes, &hash(bytes), &manifest, is_trusted, &host)
    }
}

pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An instance of the kind `K`.
pub(crate) fn try_made<K: ?Sized + 'static>(
    provided: &Provided,
    config: &Config,
) -> Result<Box<K>, Error> {
    Ok(*(provided.make)(config)?.downcast::<Box<K>>().expect("the kind of its manifest"))
}

/// An instance of the kind `K`.
pub(crate) fn made<K: ?Sized + 'static>(provided: &Provided, config: &Config) -> Box<K> {
    try_made(provided, config).unwrap()
}

/// `hostile`, built once.
pub(crate) fn hostile() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| guest("hostile"))
}

/// `min-p`, built once.
pub(crate) fn min_p() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| component("min-p"))
}
