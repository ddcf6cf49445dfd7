//! What a component says of itself, read without compiling or running any of it.

use wasmparser::{Encoding, Parser, Payload};

use super::error::WasmError;
use crate::artifact::WASM_SECTION;

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
            Payload::CustomSection(section) if section.name() == WASM_SECTION => {
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

fn malformed(error: &wasmparser::BinaryReaderError) -> WasmError {
    WasmError::Malformed { offset: error.offset(), message: error.message().to_owned() }
}
