//! Caps on the length of files, by room. Tests at the end of a file do not count, except in plugins.

use crate::tree::Tree;

/// Most lines of a file, for the first prefix that fits.
#[rustfmt::skip]
const CAPS: [(&str, usize); 11] = [
    ("plugins/",               300),
    ("kernels/",               500),
    ("plugin-api/src/testing", 450),
    ("plugin-api/src/kinds",   360),
    ("plugin-api/src/plan",    400),
    ("plugin-api/",            360),
    ("backends/",              400),
    ("host/cli",               250),
    ("host/",                  500),
    ("examples/",               80),
    ("tests/",                 600),
];

/// Most lines of a plugin's README.
const README_LINES_MAX: usize = 40;

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut mistakes = Vec::new();
    for file in tree.rust() {
        let is_test = file.path.contains("/tests/");
        let path = if is_test { "tests/" } else { file.path.as_str() };
        let Some((_, cap)) = CAPS.iter().find(|(prefix, _)| path.starts_with(prefix)) else {
            continue;
        };
        let lines = if file.path.starts_with("plugins/") {
            file.text.lines().count()
        } else {
            file.text.lines().take_while(|line| *line != "#[cfg(test)]").count()
        };
        if lines > *cap {
            mistakes.push(format!("{}: expected at most {cap} lines, found {lines}", file.path));
        }
    }
    for plugin in tree.plugins() {
        let readme = format!("{}/README.md", plugin.folder);
        let lines = tree.file(&readme).map(|file| file.text.lines().count());
        match lines {
            Some(lines) if lines <= README_LINES_MAX => {}
            Some(lines) => mistakes.push(format!(
                "{readme}: expected at most {README_LINES_MAX} lines, found {lines}"
            )),
            None => mistakes.push(format!("{readme}: expected one, found none")),
        }
    }
    mistakes
}
