//! Who may import whom, and which packages from outside each layer may use.

use crate::tree::{Crate, Tree};

/// Layer of a crate: imports go to lower layers only, and among the leaves named below.
fn layer(package: &Crate) -> Option<u32> {
    let folder = package.folder.as_str();
    Some(match folder {
        "plugin-api/macros" | "plugin-api/abi" => 0,
        "plugin-api" => 1,
        "host/runtime" => 2,
        "host/loader" | "host/engine" => 3,
        "host/server" => 4,
        "host/cli" => 5,
        _ if folder.starts_with("kernels/") => 0,
        _ if folder.starts_with("plugins/") || folder.starts_with("backends/") => 2,
        _ if folder.starts_with("tests") || folder.starts_with("examples/") => 6,
        _ => return None,
    })
}

pub(crate) fn layers(tree: &Tree) -> Vec<String> {
    let mut mistakes = Vec::new();
    for package in &tree.crates {
        let Some(mine) = layer(package) else {
            mistakes.push(format!("{}: expected a folder with a layer", package.folder));
            continue;
        };
        for name in &package.dependencies {
            let Some(other) = tree.crates.iter().find(|other| other.name == *name) else {
                continue;
            };
            let theirs = layer(other).unwrap_or(u32::MAX);
            if theirs >= mine {
                mistakes.push(format!(
                    "{} (layer {mine}): expected imports from lower layers, found {name} ({theirs})",
                    package.folder
                ));
            }
        }
    }
    mistakes
}

/// Packages from outside, where they may be used, and why they are.
#[rustfmt::skip]
const ALLOWED: [(&str, &[&str], &str); 44] = [
    ("anyhow",             &["host/cli"],                  "errors with context for people"),
    ("bytemuck",           &["host/engine", "backends/"],  "typed views of aligned memory without unsafe"),
    ("candle-core",        &["backends/candle", "tests/peers"], "a second real backend, an oracle, and a peer"),
    ("candle-nn",          &["tests/peers"],               "a training loop to compare with"),
    ("clap",               &["host/cli"],                  "arguments and their help"),
    ("half",               &["kernels/", "backends/", "plugins/quantizer/", "plugin-api", "host/engine"], "16-bit floats"),
    ("indicatif",          &["host/cli"],                  "progress bars"),
    ("inventory",          &["plugin-api"],                "builtin plugins register themselves"),
    ("libc",               &["backends/cpu", "host/engine"], "waiting threads, pages given back"),
    ("llguidance",         &["plugins/logits-processor/guided"], "from grammars to masks of tokens"),
    ("memmap2",            &["host/engine"],               "weights are mapped, not read"),
    ("minijinja",          &["host/engine"],               "chat templates"),
    ("minijinja-contrib",  &["host/engine"],               "what templates expect of Python"),
    ("regex-lite",         &["plugins/decoding-strategy/self-consistency"], "patterns of answers"),
    ("safetensors",        &["host/engine"],               "the file format of Hugging Face"),
    ("serde",              &["host/", "plugins/model-source/"], "reading documents"),
    ("serde_json",         &["host/", "plugins/", "tests"], "JSON"),
    ("sha2",               &["host/", "plugins/model-source/", "plugins/memory/"], "digests of plans, files and what is kept"),
    ("thiserror",          &["plugin-api", "host/"],       "error enums"),
    ("tokenizers",         &["host/engine"],               "byte-pair encoding as Hugging Face does it"),
    ("toml",               &["host/", "tests"],            "configuration, manifests, blueprints"),
    ("tracing",            &["host/"],                     "logs for operators"),
    ("tracing-subscriber", &["host/cli"],                  "printing them"),
    ("ureq",               &["host/loader"],               "the network service"),
    ("url",                &["host/loader"],               "checking addresses against grants"),
    ("zip",                &["plugins/model-source/pypi"], "wheels are zip files"),
    ("notify",             &["host/loader"],               "watching folders"),
    ("object",             &["host/loader"],               "looking into shared libraries"),
    ("rusqlite",           &["host/loader"],               "rows that plugins keep"),
    ("rustix",             &["host/loader", "host/cli"],   "limits, owners and files as the system sees them"),
    ("abi_stable",         &["plugin-api/abi", "host/loader"], "layouts that are checked"),
    ("libloading",         &["host/loader"],               "the native lane"),
    ("wasmparser",         &["host/loader"],               "looking into components"),
    ("wasmtime",           &["host/loader"],               "the WASM lane"),
    ("wasmtime-wasi",      &["host/loader"],               "what the standard libraries of guests import"),
    ("wit-bindgen",        &["plugin-api"],                "the guest side of the WASM lane"),
    ("cudarc",             &["backends/cuda", "kernels/cuda"], "the CUDA driver, loaded when it is there"),
    ("tokio",              &["host/server"],               "many connections"),
    ("axum",               &["host/server"],               "HTTP"),
    ("utoipa",             &["host/server"],               "the interface described from code"),
    ("futures-util",       &["host/server"],               "bodies as streams"),
    ("hyper",              &["host/server"],               "connections with time limits, which axum's own loop lacks"),
    ("hyper-util",         &["host/server"],               "hyper on tokio"),
    ("serde_path_to_error", &["host/server"],              "which field is of the wrong type"),
];

pub(crate) fn allowed(tree: &Tree) -> Vec<String> {
    let mut mistakes = Vec::new();
    for package in &tree.crates {
        for name in &package.dependencies {
            if tree.crates.iter().any(|other| other.name == *name)
                || package.folder.starts_with("tests")
            {
                continue;
            }
            let rule = ALLOWED.iter().find(|(allowed, _, _)| allowed == name);
            let is_allowed = rule
                .is_some_and(|(_, rooms, _)| rooms.iter().any(|r| package.folder.starts_with(r)));
            if !is_allowed {
                mistakes.push(format!(
                    "{}: expected packages that tests/tidy/dependencies.rs allows there, found {name}",
                    package.folder
                ));
            }
        }
    }
    mistakes
}
