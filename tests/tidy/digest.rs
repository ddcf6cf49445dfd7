//! What decides bytes on the boundary of a native plugin is part of the digest that host and plugin
//! compare: a source that is in no list could change on one side only.

use crate::tree::Tree;

/// Files with a list, and the folders whose sources all stand in it.
const LISTS: [(&str, &[&str]); 2] = [
    ("plugin-api/abi/src/lib.rs", &["plugin-api/abi/src/"]),
    ("plugin-api/src/native/digest.rs", &["plugin-api/src/native/", "plugin-api/src/wire/"]),
];

/// What a file does that gives a type its form as bytes.
const FORMS: [&str; 4] = ["wire_struct!(", "wire_enum!(", " Wire for ", "put_text("];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut mistakes = Vec::new();
    for (list, folders) in LISTS {
        let text = tree.file(list).map_or("", |file| file.text.as_str());
        let listed: Vec<String> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("include_bytes!(\"")?.strip_suffix("\"),"))
            .map(|path| resolve(list, path))
            .collect();
        let home = folders[0].split("/src/").next().unwrap_or(folders[0]);
        for file in tree.rust().filter(|file| file.path.starts_with(&format!("{home}/src/"))) {
            let has_form = FORMS.iter().any(|form| file.text.contains(form));
            let is_inside = folders.iter().any(|folder| file.path.starts_with(folder));
            if (is_inside || has_form) && !listed.contains(&file.path) {
                mistakes.push(format!("{list}: expected `{}` in its list, found none", file.path));
            }
        }
    }
    mistakes
}

/// A path as it is written in `file`, from the root.
fn resolve(file: &str, path: &str) -> String {
    let mut folders: Vec<&str> = file.split('/').collect();
    folders.pop();
    for part in path.split('/') {
        if part == ".." {
            folders.pop();
        } else {
            folders.push(part);
        }
    }
    folders.join("/")
}
