//! Compiled code is only loaded if this host wrote it and nobody has changed it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::fixtures::{Lane, min_p};

/// The one compiled file of a lane.
fn compiled(lane: &Lane) -> PathBuf {
    let files = fs::read_dir(lane.cache()).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|e| e == "cwasm")).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn compiled_code_is_kept_for_its_owner_alone() {
    let lane = Lane::new();
    lane.open(min_p()).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(lane.cache()), 0o700);
    assert_eq!(mode(compiled(&lane)), 0o600);
    assert_eq!(mode(lane.cache().join("key")), 0o600);
    let written = fs::metadata(compiled(&lane)).unwrap().modified().unwrap();
    lane.open(min_p()).unwrap();
    let again = fs::metadata(compiled(&lane)).unwrap().modified().unwrap();
    assert_eq!(written, again, "taken from the cache");
}

#[test]
fn changed_code_is_compiled_again() {
    let lane = Lane::new();
    lane.open(min_p()).unwrap();
    let path = compiled(&lane);
    let fair = fs::read(&path).unwrap();
    let flipped = |place: usize| {
        let mut bytes = fair.clone();
        bytes[place] ^= 1;
        bytes
    };
    let cases = [
        ("truncated", fair[..fair.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("flipped in the hash", flipped(0)),
        ("flipped in the code", flipped(fair.len() / 2)),
        ("flipped at the end", flipped(fair.len() - 1)),
        ("longer", [&fair[..], b"more"].concat()),
        ("of somebody else", {
            let other = Lane::new();
            other.open(min_p()).unwrap();
            fs::read(compiled(&other)).unwrap()
        }),
    ];
    for (name, bytes) in cases {
        fs::write(&path, &bytes).unwrap();
        lane.open(min_p()).unwrap();
        let found = fs::read(&path).unwrap();
        assert!(found != bytes, "{name}: replaced");
        assert_eq!(found.len(), fair.len(), "{name}: by a whole one");
    }
    // The code of one engine under the name of the other: trusted and not.
    fs::remove_file(&path).unwrap();
    lane.open_as(min_p(), true).unwrap();
    let trusted = compiled(&lane);
    assert_ne!(trusted, path, "each engine has its own code");
    fs::rename(&trusted, &path).unwrap();
    lane.open(min_p()).unwrap();
}

#[test]
fn a_hash_that_is_none_names_no_file() {
    let lane = Lane::new();
    let manifest = jackfield_loader::wasm::WasmLane::manifest("test", min_p()).unwrap();
    let manifest = jackfield_loader::PluginManifest::parse("test", &manifest).unwrap();
    let host = lane.machine.host("test");
    lane.lane.open("test", min_p(), "../../evil", &manifest, false, &host).unwrap();
    let files: Vec<_> = fs::read_dir(lane.cache()).unwrap().collect();
    assert_eq!(files.len(), 1, "the key only: {files:?}");
}
