//! Documents tell the truth: headers, the tree in the README, links, and no words about elsewhere.

use crate::tree::Tree;

pub(crate) fn headers(tree: &Tree) -> Vec<String> {
    let files = tree.rust().filter(|file| !file.path.contains("/examples/out-of-tree/"));
    files
        .filter(|file| !file.text.starts_with("//!") && !file.text.starts_with("#![no_main]"))
        .map(|file| format!("{}: expected a `//!` header first", file.path))
        .collect()
}

/// The block in the README that starts with the line `plugin-api/` names what is there.
pub(crate) fn readme_tree(tree: &Tree) -> Vec<String> {
    let Some(readme) = tree.file("README.md") else {
        return vec!["README.md: expected one, found none".to_owned()];
    };
    let block = readme.text.split("```text\n").nth(1).and_then(|rest| rest.split("```").next());
    let Some(block) = block else {
        return vec!["README.md: expected a ```text block with the tree".to_owned()];
    };
    let mut mistakes = Vec::new();
    for line in block.lines().filter(|line| !line.starts_with(' ') && !line.is_empty()) {
        let path = line.split_whitespace().next().unwrap_or("").trim_end_matches('/');
        if !tree.exists(path) {
            mistakes.push(format!("README.md: the tree shows {path}, which is not there"));
        }
    }
    for folder in ["backends", "examples", "host", "kernels", "plugin-api", "plugins", "tests"] {
        if tree.exists(folder) && !block.contains(&format!("{folder}/")) {
            mistakes.push(format!("README.md: expected {folder}/ in the tree, found it missing"));
        }
    }
    mistakes
}

pub(crate) fn links(tree: &Tree) -> Vec<String> {
    let mut mistakes = Vec::new();
    for file in tree.markdown() {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for target in file.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or("");
            if path.is_empty() || path.contains("://") {
                continue;
            }
            let full = tree.root.join(folder).join(path);
            if !full.exists() {
                mistakes.push(format!("{}: link to {target}, which is not there", file.path));
            }
        }
    }
    mistakes
}

pub(crate) fn banned_phrases(tree: &Tree) -> Vec<String> {
    let banned = [
        concat!("../", "shared"),
        concat!("artifact", "ory"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
    ];
    let mut mistakes = Vec::new();
    for file in &tree.files {
        if file.path == "Cargo.lock" || file.path.starts_with("tests/golden/") {
            continue;
        }
        for phrase in banned {
            if file.text.contains(phrase) {
                mistakes.push(format!("{}: found `{phrase}`", file.path));
            }
        }
    }
    mistakes
}
