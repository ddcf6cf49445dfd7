//! Bytes that are no component: typed errors, no panic, and never another manifest.

use jackfield_loader::wasm::{WasmError, WasmLane};
use jackfield_loader::{LoadError, seal};

use super::fixtures::{Lane, component, hash, min_p};

/// A component with a text in it replaced, wherever it stands: the code holds the manifest too.
fn replaced(component: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "sections know their length");
    let mut bytes = component.to_vec();
    let mut found = 0;
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from.as_bytes()) {
            bytes[at..][..to.len()].copy_from_slice(to.as_bytes());
            found += 1;
        }
    }
    assert!(found > 0, "`{from}` is in it");
    bytes
}

#[test]
fn the_manifest_is_read_without_running_anything() {
    let text = WasmLane::manifest("test", min_p()).unwrap();
    assert!(text.contains("name = \"min-p\"") && text.contains("kind = \"logits-processor\""));
    // For languages whose tools embed none: a second one is one too many.
    let twice = seal::with_manifest(min_p().to_vec(), &text);
    let error = WasmLane::manifest("test", &twice).unwrap_err();
    let expected = "test: expected one custom section `jackfield.manifest`, found 2";
    assert_eq!(error.to_string(), expected);
    let bare = replaced(min_p(), "jackfield.manifest", "jackfield_manifest");
    assert!(matches!(wasm(WasmLane::manifest("test", &bare)), WasmError::Manifest { found: 0 }));
    let given = seal::with_manifest(bare, &text);
    assert_eq!(WasmLane::manifest("test", &given).unwrap(), text);
}

#[test]
fn what_is_cut_short_is_refused() {
    let bytes = min_p();
    let text = WasmLane::manifest("test", bytes).unwrap();
    for len in (0..bytes.len()).step_by(97) {
        // A cut between two sections is seen when exports are missing, or by the seal of the file.
        if let Ok(found) = WasmLane::manifest("test", &bytes[..len]) {
            assert_eq!(found, text, "{len} bytes");
        }
    }
    let lane = Lane::new();
    for len in (0..bytes.len()).step_by(bytes.len() / 7) {
        let error = open(&lane, &bytes[..len]).unwrap_err();
        assert!(matches!(error, LoadError::Wasm { .. }), "{len} bytes: {error}");
    }
}

#[test]
fn flipped_bits_give_an_error_or_the_same_manifest() {
    let bytes = min_p();
    let text = WasmLane::manifest("test", bytes).unwrap();
    // The section comes after the code that holds the same text.
    let at = bytes.windows(text.len()).rposition(|window| window == text.as_bytes()).unwrap();
    for place in (0..bytes.len()).step_by(97).filter(|place| !(at..at + text.len()).contains(place))
    {
        let mut bytes = bytes.to_vec();
        bytes[place] ^= 1 << (place % 8);
        if let Ok(found) = WasmLane::manifest("test", &bytes) {
            assert_eq!(found, text, "byte {place}");
        }
    }
    let lane = Lane::new();
    for place in (0..bytes.len()).step_by(bytes.len() / 40) {
        let mut bytes = bytes.to_vec();
        bytes[place] ^= 1;
        // An error, or a plugin that traps or not when it runs: never a panic.
        let _ = open(&lane, &bytes);
    }
}

#[test]
fn what_does_not_fit_its_kind_is_named() {
    let lane = Lane::new();
    let core = b"\0asm\x01\0\0\0";
    assert!(matches!(wasm(WasmLane::manifest("test", core)), WasmError::CoreModule));
    assert!(matches!(wasm(WasmLane::manifest("test", b"\x7fELF")), WasmError::Malformed { .. }));
    #[rustfmt::skip]
    let cases = [
        ("logits-processor", "rotary-embedding", "test: imports `jackfield:plugin/rows@0.0.0`, which the host does not offer to a `rotary-embedding`"),
        ("logits-processor", "logits-processar", "test: plugins of kind `logits-processar` cannot be WASM components"),
    ];
    for (from, to, expected) in cases {
        let bytes = replaced(min_p(), &format!("kind = \"{from}\""), &format!("kind = \"{to}\""));
        assert_eq!(open(&lane, &bytes).unwrap_err().to_string(), expected);
    }
    let fcfs = replaced(&component("fcfs"), "kind = \"scheduler\"", "kind = \"quantizer\"");
    let expected = "test: expected the exports of a `quantizer` (quantizer), found scheduler";
    assert_eq!(open(&lane, &fcfs).unwrap_err().to_string(), expected);
    // Every mention of the version, those of imports and exports among them.
    let mut newer = min_p().to_vec();
    for at in 0..newer.len() - 12 {
        if newer[at..].starts_with(b"jackfield:plugin/") {
            let end = newer[at..].iter().position(|&b| b == b'@').unwrap();
            if newer[at + end..].starts_with(b"@0.0.0") {
                newer[at + end + 5] = b'7';
            }
        }
    }
    let error = open(&lane, &newer).unwrap_err().to_string();
    assert!(error.contains("this host speaks version 0.0.0"), "{error}");
}

fn open(lane: &Lane, bytes: &[u8]) -> Result<(), LoadError> {
    let manifest = WasmLane::manifest("test", bytes);
    let text = manifest.or_else(|_| WasmLane::manifest("test", min_p()))?;
    let manifest = jackfield_loader::PluginManifest::parse("test", &text)?;
    let host = lane.machine.host("test");
    lane.lane.open("test", bytes, &hash(bytes), &manifest, false, &host).map(|_| ())
}

fn wasm<T>(result: Result<T, LoadError>) -> WasmError {
    match result {
        Err(LoadError::Wasm { source, .. }) => source,
        Err(other) => panic!("expected an error of WASM, found {other}"),
        Ok(_) => panic!("expected an error"),
    }
}
