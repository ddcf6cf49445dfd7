//! Where things lie, and how they are fetched.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engine::{Failure, output};

/// The root of the project.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The target folder of this build.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where peers are built, made if need be.
pub(crate) fn folder() -> Result<PathBuf, Failure> {
    let folder = target().join("peers");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A Python environment with these packages.
pub(crate) fn python(folder: &Path, packages: &[&str]) -> Result<PathBuf, Failure> {
    let environment = folder.join("python");
    let python = environment.join("bin/python");
    if !python.is_file() {
        output(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    }
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:"]);
    output(install.args(packages))?;
    Ok(python)
}

/// Checks what was fetched.
pub(crate) fn check(file: &Path, sha256: &str) -> Result<(), Failure> {
    let printed = output(Command::new("sha256sum").arg(file))?;
    let found = printed.split_whitespace().next().unwrap_or_default();
    if found == sha256 {
        return Ok(());
    }
    Err(Failure(format!("{}: expected SHA-256 {sha256}, found {found}", file.display())))
}
