//! What the tests of more than one crate share: where things are.

use std::path::{Path, PathBuf};

/// The root of the project.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// A file of the golden vectors.
pub fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(name)
}
