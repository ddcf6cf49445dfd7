//! The files of the project, read once: what git would see, without what builds leave behind.

use std::fs;
use std::path::{Path, PathBuf};

/// Every text file and every crate.
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    pub(crate) files: Vec<File>,
    pub(crate) crates: Vec<Crate>,
}

/// A file with its path relative to the root, with forward slashes.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A package of the workspace.
pub(crate) struct Crate {
    /// Folder relative to the root.
    pub(crate) folder: String,
    pub(crate) name: String,
    /// Names of normal and build dependencies.
    pub(crate) dependencies: Vec<String>,
}

impl Tree {
    pub(crate) fn read() -> Self {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = tests.canonicalize().expect("the root is there");
        let mut files = Vec::new();
        walk(&root, &root, &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let manifests = files
            .iter()
            .filter(|file| file.path.ends_with("/Cargo.toml") && !is_outside(&file.path));
        let crates = manifests.map(|file| read_crate(&file.path, &file.text)).collect();
        Self { root, files, crates }
    }

    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    pub(crate) fn markdown(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".md"))
    }

    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// Plugin crates: those with a manifest, below `plugins` and `backends`.
    pub(crate) fn plugins(&self) -> impl Iterator<Item = &Crate> {
        self.crates.iter().filter(|package| {
            self.exists(&format!("{}/plugin.toml", package.folder))
                && (package.folder.starts_with("plugins/")
                    || package.folder.starts_with("backends/"))
        })
    }
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<File>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            let is_built = matches!(name.as_str(), "target" | ".git" | "corpus" | "artifacts");
            if !is_built {
                walk(root, &path, files);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            let relative = path.strip_prefix(root).unwrap_or(&path);
            let path = relative.to_string_lossy().replace('\\', "/");
            files.push(File { path, text });
        }
    }
}

/// Whether a crate is no member: fuzz targets, and guests that tests build.
fn is_outside(path: &str) -> bool {
    path.contains("/fuzz/") || path.contains("/tests/guests/")
}

fn read_crate(path: &str, text: &str) -> Crate {
    let manifest: toml::Table = text.parse().expect("cargo reads it, so it is TOML");
    let name = manifest["package"]["name"].as_str().unwrap_or("").to_owned();
    let tables = ["dependencies", "build-dependencies"];
    let tables = tables.iter().filter_map(|table| manifest.get(*table)?.as_table());
    let dependencies = tables.flat_map(|table| table.keys().cloned()).collect();
    let folder = path.trim_end_matches("/Cargo.toml").to_owned();
    Crate { folder, name, dependencies }
}
