//! Which interfaces a component of each kind exports, and which it may import.

use wasmtime::Engine;
use wasmtime::component::Component;

use super::error::WasmError;

/// Checks names and versions of what a component imports and exports against its kind. Types are
/// checked when it is linked.
pub(super) fn check(engine: &Engine, component: &Component, kind: &str) -> Result<(), WasmError> {
    let Some((_, offered, expected)) = WORLDS.iter().find(|(name, ..)| *name == kind) else {
        return Err(WasmError::Kind { kind: kind.to_owned() });
    };
    let types = component.component_type();
    for (import, _) in types.imports(engine) {
        let is_offered = match own(import)? {
            Some(interface) => OFFERED_TO_ALL.iter().chain(*offered).any(|it| *it == interface),
            None => import.starts_with("wasi:") && import.contains("@0.2."),
        };
        if !is_offered {
            let (import, kind) = (import.to_owned(), kind.to_owned());
            return Err(WasmError::Import { import, kind });
        }
    }
    let mut found = Vec::new();
    for (export, _) in types.exports(engine) {
        found.extend(own(export)?);
    }
    if expected.iter().all(|it| found.contains(it)) && found.len() == expected.len() {
        return Ok(());
    }
    let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    Err(WasmError::World { kind: kind.to_owned(), expected: expected.join(", "), found })
}

/// The name of an interface of this package, if the name is of one.
fn own(name: &str) -> Result<Option<&str>, WasmError> {
    let Some(rest) = name.strip_prefix("jackfield:plugin/") else { return Ok(None) };
    match rest.split_once('@') {
        Some((interface, VERSION)) => Ok(Some(interface)),
        _ => Err(WasmError::Version { found: name.to_owned(), supported: VERSION }),
    }
}

type World = (&'static str, &'static [&'static str], &'static [&'static str]);

#[rustfmt::skip]
const WORLDS: &[World] = &[
    // kind                may import           exports
    ("adapter",            &["graph"],          &["traced"]),
    ("curriculum",         &[],                 &["curriculum"]),
    ("decoding-strategy",  &[],                 &["decoding-strategy"]),
    ("encoder",            &["graph"],          &["traced"]),
    ("feed-forward",       &["graph"],          &["traced"]),
    ("hook",               &[],                 &["hook"]),
    ("logits-processor",   &["rows"],           &["logits-processor"]),
    ("lr-schedule",        &["graph"],          &["traced"]),
    ("memory",             &[],                 &["memory"]),
    ("mixer",              &["graph"],          &["traced", "mixer"]),
    ("model-source",       &["progress"],       &["model-source"]),
    ("moe-router",         &["graph"],          &["traced"]),
    ("norm",               &["graph"],          &["traced"]),
    ("objective",          &["graph"],          &["traced"]),
    ("optimizer",          &["graph"],          &["traced"]),
    ("output-parser",      &[],                 &["output-parser"]),
    ("quantizer",          &[],                 &["quantizer"]),
    ("residual",           &["graph"],          &["traced"]),
    ("reward",             &[],                 &["reward"]),
    ("rotary-embedding",   &["graph"],          &["traced", "rotary-embedding"]),
    ("scheduler",          &[],                 &["scheduler"]),
];

const OFFERED_TO_ALL: &[&str] =
    &["types", "settings", "host", "files", "network", "processes", "store"];

/// The version of the package in `plugin-api/wit/v0.0`.
const VERSION: &str = "0.0.0";
