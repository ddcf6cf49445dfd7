//! What a component says of itself, read without compiling or running any of it.

use wasmparser::{Encoding, Parser, Payload};

use super::error::WasmError;

/// The custom section that holds `plugin.toml`: of the component, or of a core module in it.
pub(super) const MANIFEST_SECTION: &str = "jackfield.manifest";

/// The text of the manifest.
pub(super) fn manifest(bytes: &[u8]) -> Result<String, WasmError> {
    let found = manifests(bytes)?;
    let &[text] = &found[..] else {
        return Err(WasmError::Manifest { found: found.len() });
    };
    let text = std::str::from_utf8(text).map_err(|_| WasmError::ManifestText)?;
    Ok(text.to_owned())
}

/// Whether the bytes are a whole component, as far as its sections go.
pub(super) fn check(bytes: &[u8]) -> Result<(), WasmError> {
    manifests(bytes).map(|_| ())
}

fn manifests(bytes: &[u8]) -> Result<Vec<&[u8]>, WasmError> {
    let mut found = Vec::new();
    let mut is_first = true;
    let mut open = 0;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|error| malformed(&error))?;
        match payload {
            Payload::Version { encoding, .. } => {
                open += 1;
                if std::mem::take(&mut is_first) && encoding == Encoding::Module {
                    return Err(WasmError::CoreModule);
                }
            }
            Payload::End(_) => open -= 1,
            Payload::CustomSection(section) if section.name() == MANIFEST_SECTION => {
                found.push(section.data());
            }
            _ => {}
        }
    }
    if open != 0 || is_first {
        return Err(WasmError::Malformed { offset: bytes.len(), message: "ends early".to_owned() });
    }
    Ok(found)
}

/// The component with a manifest as its last section, for languages whose tools embed none.
pub(super) fn with_manifest(component: &[u8], manifest: &str) -> Vec<u8> {
    let mut section = Vec::with_capacity(manifest.len() + MANIFEST_SECTION.len() + 8);
    leb128(&mut section, MANIFEST_SECTION.len());
    section.extend_from_slice(MANIFEST_SECTION.as_bytes());
    section.extend_from_slice(manifest.as_bytes());
    let mut out = component.to_vec();
    out.push(0);
    leb128(&mut out, section.len());
    out.extend_from_slice(&section);
    out
}

fn leb128(out: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn malformed(error: &wasmparser::BinaryReaderError) -> WasmError {
    WasmError::Malformed { offset: error.offset(), message: error.message().to_owned() }
}
