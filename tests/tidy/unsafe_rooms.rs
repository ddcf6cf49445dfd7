//! Where `unsafe` may be written, and that each room says why.

use crate::tree::Tree;

/// Paths that may allow unsafe code.
const ROOMS: [&str; 10] = [
    "plugin-api/abi/",
    "plugin-api/macros/",
    "plugin-api/src/native/",
    "plugin-api/src/wasm/",
    "host/loader/src/native",
    "host/loader/src/process",
    "host/loader/src/wasm",
    "host/engine/src/model/mmap.rs",
    "kernels/",
    "backends/",
];

/// Rooms among them that stay safe all the same.
const SAFE: [&str; 4] =
    ["kernels/reference/", "backends/reference/", "backends/null/", "backends/candle/"];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut mistakes = Vec::new();
    for file in tree.rust() {
        if file.path.starts_with("tests/tidy/") || file.path.contains("/tests/") {
            continue;
        }
        let may = ROOMS.iter().any(|room| file.path.starts_with(room))
            && !SAFE.iter().any(|room| file.path.starts_with(room));
        let code = file.text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            let allows = line.contains("allow(unsafe_code");
            let code = line.split('"').next().unwrap_or(line);
            if !may && (allows || code.contains("unsafe {") || code.contains("unsafe fn")) {
                mistakes.push(format!(
                    "{}: expected safe code here, found `{}`",
                    file.path,
                    line.trim()
                ));
            } else if allows && !line.contains("reason") && !file.text.contains("reason =") {
                mistakes.push(format!("{}: expected a reason for unsafe code", file.path));
            }
        }
    }
    mistakes
}
