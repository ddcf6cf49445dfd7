//! Replays the fuzz corpus, and every beginning of each file, on every build.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use jackfield_loader::{ConfigFile, LoadError, PluginManifest};

fn replay(folder: &str, parse: fn(&str) -> Result<(), LoadError>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(folder);
    let mut num_files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        num_files += 1;
        for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
            if let Err(error) = parse(&text[..end]) {
                assert!(!error.to_string().is_empty());
            }
        }
        let is_fair = !path.to_string_lossy().contains("bad-");
        assert_eq!(parse(&text).is_ok(), is_fair, "{}: {:?}", path.display(), parse(&text));
    }
    assert!(num_files > 4, "{}: no corpus", folder.display());
}

#[test]
fn manifests() {
    replay("manifest", |text| PluginManifest::parse("plugin.toml", text).map(drop));
}

#[test]
fn configurations() {
    replay("config", |text| ConfigFile::parse("jackfield.toml", text).map(drop));
}
