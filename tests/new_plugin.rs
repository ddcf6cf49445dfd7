//! A new plugin is one new folder: dropped into a copy of the tree, it is built, tested and listed
//! without an edit of anything that was there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jackfield_tests::root;

const SOURCE: &str = r#"//! A norm that leaves everything as it is.
//!
//! Source: arithmetic.

use plugin_api::prelude::*;

/// Traces its input.
#[derive(Debug)]
pub struct LeaveAlone;

impl Capability for LeaveAlone {
    const NAME: &'static str = "leave-alone";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for LeaveAlone {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("leave-alone/1")
    }

    fn trace(&self, _g: &mut dyn OpSink, x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        Ok(vec![x[0]])
    }
}

impl Norm for LeaveAlone {}

export_plugin!(LeaveAlone);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_made_from_an_empty_table() {
        assert!(LeaveAlone::from_config(&Config::new()).is_ok());
    }
}
"#;

const MANIFEST: &str = r#"name = "leave-alone"
kind = "norm"
api = "0.0"
description = "Leaves everything as it is"
reload = "stateless"
permissions = []
"#;

/// Copies what git would see.
fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (name, path) = (entry.file_name(), entry.path());
        if ["target", ".git", "corpus", "artifacts"].iter().any(|skip| name == *skip) {
            continue;
        }
        if path.is_dir() {
            copy_tree(&path, &to.join(&name));
        } else {
            fs::copy(&path, to.join(&name)).unwrap();
        }
    }
}

/// A folder of its own beside what this test was built into: the copy's crates have the names of
/// ours and would replace them. It is kept, so that only the first run builds everything.
fn target_folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().join("new-plugin")
}

fn cargo(tree: &Path, args: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", target_folder())
        .env("BLESS", "1")
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {args:?}\n{text}\n{errors}");
    text
}

#[test]
fn a_dropped_folder_is_found_tested_and_listed() {
    let copy = tempfile::TempDir::new().unwrap();
    let tree = copy.path().join("jackfield");
    copy_tree(&root(), &tree);
    let folder = tree.join("plugins/norm/leave-alone");
    fs::create_dir_all(folder.join("src")).unwrap();
    let cargo_toml = fs::read_to_string(tree.join("plugins/norm/rms-norm/Cargo.toml")).unwrap();
    let cargo_toml = cargo_toml.replace("plugin-rms-norm", "plugin-leave-alone");
    fs::write(folder.join("Cargo.toml"), cargo_toml).unwrap();
    fs::write(folder.join("plugin.toml"), MANIFEST).unwrap();
    fs::write(folder.join("README.md"), "# leave-alone\n\nLeaves everything as it is.\n").unwrap();
    fs::write(folder.join("src/lib.rs"), SOURCE).unwrap();

    // The generated list of builtins is the only file that changes, and nobody edits it.
    cargo(&tree, &["test", "--quiet", "-p", "jackfield-tidy", "builtins"]);
    let tested = cargo(&tree, &["test", "--quiet", "-p", "plugin-leave-alone", "--lib"]);
    assert!(tested.contains("1 passed"), "{tested}");
    let listed = cargo(&tree, &["run", "--quiet", "-p", "jackfield", "--", "plugin", "ls"]);
    let line = listed.lines().find(|line| line.contains("leave-alone"));
    assert!(line.is_some_and(|line| line.contains("Leaves everything as it is")), "{listed}");
}
