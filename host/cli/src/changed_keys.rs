//! Which keys of a configuration have changed and wait for the next start.

use std::collections::BTreeSet;

use anyhow::Result;
use plugin_api::Config;

/// Keys that differ and are not applied at once: all but the tables of plugins, plugin
/// files, the server, the adapter and the mask.
pub(crate) fn changed_keys(before: &Config, after: &Config) -> Result<Vec<String>> {
    let mut keys = differing(before, after, &["plugin", "load", "server", "engine"]);
    let none = Config::at("load");
    let loads = (before.table("load")?.unwrap_or(&none), after.table("load")?.unwrap_or(&none));
    let load = differing(loads.0, loads.1, &LIVE);
    keys.extend(load.into_iter().map(|key| format!("load.{key}")));
    let none = Config::at("engine");
    let engines =
        (before.table("engine")?.unwrap_or(&none), after.table("engine")?.unwrap_or(&none));
    let engine = differing(engines.0, engines.1, &["adapter", "mask"]);
    keys.extend(engine.into_iter().map(|key| format!("engine.{key}")));
    Ok(keys)
}

/// Keys of the table `load` that are applied at once: files, and what plugins may take.
const LIVE: [&str; 7] = [
    "files",
    "quota",
    "wasm_memory_mib",
    "wasm_call_ms",
    "wasm_create_ms",
    "wasm_fetch_ms",
    "wasm_instances",
];

fn differing(before: &Config, after: &Config, without: &[&str]) -> Vec<String> {
    let keys: BTreeSet<&str> = before.keys().chain(after.keys()).collect();
    let keys = keys.into_iter().filter(|key| !without.contains(key));
    keys.filter(|key| before.get(key) != after.get(key)).map(str::to_owned).collect()
}
