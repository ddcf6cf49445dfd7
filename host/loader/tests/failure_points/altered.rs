//! Copies of a component with some of its bytes changed, each still of the same length.

use wasmparser::{Parser, Payload};

use super::support::replaced;

/// A copy whose first bytes say another version of the binary format.
pub(crate) fn of_another_encoding(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[4] = 0x0e;
    bytes
}

/// A copy that imports and exports another version of the boundary.
pub(crate) fn of_another_version(bytes: &[u8]) -> Vec<u8> {
    let interfaces = ["types", "settings", "host", "rows", "logits-processor"];
    interfaces.iter().fold(bytes.to_vec(), |bytes, interface| {
        let name = |version| format!("jackfield:plugin/{interface}@{version}").into_bytes();
        replaced(&bytes, &name("0.0.0"), &name("0.0.7"))
    })
}

/// A copy that exports two functions of different types under each other's names.
pub(crate) fn with_functions_swapped(bytes: &[u8]) -> Vec<u8> {
    // Names of a component's own sections are preceded by their length; those of its core modules
    // stay as they are.
    let bytes = replaced(bytes, b"\x06create", b"\x06------");
    let bytes = replaced(&bytes, b"\x06follow", b"\x06create");
    replaced(&bytes, b"\x06------", b"\x06follow")
}

/// A copy with one instruction that there is not, in the first function that it has.
pub(crate) fn with_broken_code(bytes: &[u8]) -> Vec<u8> {
    let mut payloads = Parser::new(0).parse_all(bytes);
    let code = payloads.find_map(|payload| match payload.expect("a fair component") {
        Payload::CodeSectionEntry(body) => Some(body.range().end - 1),
        _ => None,
    });
    let mut bytes = bytes.to_vec();
    bytes[code.expect("code")] = 0xff;
    bytes
}
