//! Names of files, folders and packages.

use crate::tree::Tree;

/// Words that say nothing about what a file holds.
const BANNED: [&str; 17] = [
    "utils", "util", "helpers", "helper", "common", "misc", "base", "core", "manager", "handler",
    "data", "info", "ctx", "tmp", "impl", "new2", "stuff",
];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut mistakes = Vec::new();
    for file in &tree.files {
        for part in file.path.split('/') {
            let stem = part.split('.').next().unwrap_or(part);
            if BANNED.contains(&stem) {
                mistakes
                    .push(format!("{}: expected a noun of the field, found `{stem}`", file.path));
            }
        }
    }
    for plugin in tree.plugins() {
        let folder = plugin.folder.rsplit('/').next().unwrap_or("");
        let prefix = if plugin.folder.starts_with("backends/") { "backend" } else { "plugin" };
        let expected = format!("{prefix}-{folder}");
        if plugin.name != expected {
            mistakes.push(format!(
                "{}/Cargo.toml: name: expected {expected}, found {}",
                plugin.folder, plugin.name
            ));
        }
        let manifest = format!("{}/plugin.toml", plugin.folder);
        let text = tree.file(&manifest).map_or("", |file| file.text.as_str());
        if !text.lines().any(|line| line.trim() == format!("name = \"{folder}\"")) {
            mistakes.push(format!("{manifest}: name: expected {folder}, found another"));
        }
    }
    for file in tree.rust() {
        let name = file.path.rsplit('/').next().unwrap_or("").trim_end_matches(".rs");
        if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            mistakes.push(format!("{}: expected snake_case", file.path));
        }
    }
    mistakes
}
