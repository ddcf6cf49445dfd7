//! A kind has the same name in every room: trait, contract suite, folder of plugins, manifests.

use crate::tree::Tree;

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut mistakes = Vec::new();
    let prefix = "plugin-api/src/kinds/";
    let kinds: Vec<&str> = tree
        .rust()
        .filter_map(|file| file.path.strip_prefix(prefix)?.strip_suffix(".rs"))
        .filter(|kind| *kind != "mod" && !kind.contains('/'))
        .collect();
    for kind in &kinds {
        let suite = format!("plugin-api/src/testing/{kind}.rs");
        if !tree.exists(&suite) {
            mistakes.push(format!("{suite}: expected the contract suite of the kind, found none"));
        }
    }
    for kind in &kinds {
        let text = tree.file(&format!("{prefix}{kind}.rs")).map_or("", |file| file.text.as_str());
        let table = if text.contains("traced: true") { "traced" } else { kind };
        for room in ["plugin-api/abi/src", "plugin-api/src/native"] {
            let (file, folder) = (format!("{room}/{table}.rs"), format!("{room}/{table}/mod.rs"));
            if !tree.exists(&file) && !tree.exists(&folder) {
                mistakes.push(format!("{file}: expected the native lane of the kind, found none"));
            }
        }
    }
    for plugin in tree.plugins() {
        let kind = match plugin.folder.split('/').collect::<Vec<_>>()[..] {
            ["plugins", kind, _] => kind,
            ["backends", _] => "backend",
            _ => {
                mistakes.push(format!("{}: expected plugins/<kind>/<name>", plugin.folder));
                continue;
            }
        };
        if !kinds.contains(&kind.replace('-', "_").as_str()) {
            mistakes
                .push(format!("{}: expected a kind of plugin-api, found {kind}", plugin.folder));
        }
        let manifest = format!("{}/plugin.toml", plugin.folder);
        let text = tree.file(&manifest).map_or("", |file| file.text.as_str());
        if !text.lines().any(|line| line.trim() == format!("kind = \"{kind}\"")) {
            mistakes.push(format!("{manifest}: kind: expected {kind}, found another"));
        }
        let library = format!("{}/src/lib.rs", plugin.folder);
        // `null` computes nothing, so it passes the part of its suite that is about bindings.
        let has_suite = tree.rust().any(|file| {
            file.path.starts_with(&plugin.folder)
                && file.text.contains("plugin_api::testing")
                && (file.text.contains("suite") || file.text.contains("bindings"))
        });
        if !has_suite {
            mistakes.push(format!("{library}: expected a test that runs the contract suite"));
        }
    }
    mistakes
}
