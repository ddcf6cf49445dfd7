//! The list of builtin plugins in the command line's crate is what stands in `plugins` and
//! `backends`. `BLESS=1 cargo tidy` writes it.

use std::fs;

use crate::tree::Tree;

const MANIFEST: &str = "host/cli/Cargo.toml";
const SOURCE: &str = "host/cli/src/builtins.rs";
const BEGIN: &str = "# builtin plugins: written by `BLESS=1 cargo tidy`";
const END: &str = "# end of builtin plugins";

/// Where the sum starts on the line of `LISTED`, its semicolon counted.
const LISTED_START: usize = "pub(crate) const LISTED: usize = ;".len();

/// Longest line.
const WIDTH_MAX: usize = 100;

/// Plugins that are heavy enough to be a feature of their own, off by default.
const OPTIONAL: [&str; 2] = ["backend-candle", "backend-cuda"];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let (manifest, source) = (expected_manifest(tree), expected_source(tree));
    if std::env::var_os("BLESS").is_some() {
        fs::write(tree.root.join(MANIFEST), &manifest).expect("the tree can be written");
        fs::write(tree.root.join(SOURCE), &source).expect("the tree can be written");
        return Vec::new();
    }
    let mut mistakes = Vec::new();
    for (path, expected) in [(MANIFEST, manifest), (SOURCE, source)] {
        if tree.file(path).is_none_or(|file| file.text != expected) {
            mistakes
                .push(format!("{path}: expected the plugins there are: run BLESS=1 cargo tidy"));
        }
    }
    mistakes
}

fn is_optional(name: &str) -> bool {
    OPTIONAL.contains(&name)
}

fn expected_manifest(tree: &Tree) -> String {
    let text = tree.file(MANIFEST).map_or("", |file| file.text.as_str());
    let before = text.split(BEGIN).next().unwrap_or("");
    let after = text.split(END).nth(1).unwrap_or("\n");
    let mut lines = Vec::new();
    for plugin in tree.plugins() {
        let (name, folder) = (&plugin.name, &plugin.folder);
        let optional = if is_optional(name) { ", optional = true" } else { "" };
        lines.push(format!("{name} = {{ path = \"../../{folder}\"{optional} }}"));
    }
    lines.sort();
    format!("{before}{BEGIN}\n{}\n{END}{after}", lines.join("\n"))
}

fn expected_source(tree: &Tree) -> String {
    let mut lines = Vec::new();
    for plugin in tree.plugins() {
        let name = plugin.name.replace('-', "_");
        if is_optional(&plugin.name) {
            let feature = plugin.name.trim_start_matches("backend-");
            lines.push(format!("#[cfg(feature = \"{feature}\")]\nuse {name} as _;"));
        } else {
            lines.push(format!("use {name} as _;"));
        }
    }
    // By name, as rustfmt has it, whatever stands before.
    lines.sort_by(|a, b| a.rsplit('\n').next().cmp(&b.rsplit('\n').next()));
    format!(
        "//! Links every builtin plugin. Written by `BLESS=1 cargo tidy`; do not edit.\n\n{}\n\n\
         /// How many plugins are listed above: fewer at run time means that the linker dropped one.\n\
         pub(crate) const LISTED: usize ={};\n",
        lines.join("\n"),
        listed(tree)
    )
}

fn listed(tree: &Tree) -> String {
    let always = tree.plugins().filter(|plugin| !is_optional(&plugin.name)).count();
    let optional = tree.plugins().filter(|plugin| is_optional(&plugin.name));
    let optional = optional.map(|plugin| {
        format!(" + cfg!(feature = \"{}\") as usize", plugin.name.trim_start_matches("backend-"))
    });
    let sum = format!("{always}{}", optional.collect::<String>());
    let is_short = LISTED_START + sum.len() <= WIDTH_MAX;
    if is_short { format!(" {sum}") } else { format!("\n    {sum}") }
}
