//! Any text is a manifest or an error, and a manifest has a name fit for paths.
#![no_main]

use jackfield_loader::PluginManifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(manifest) = PluginManifest::parse("plugin.toml", text) {
        assert!(!manifest.name.contains(['/', '.', '\0']) && !manifest.name.is_empty());
    }
});
