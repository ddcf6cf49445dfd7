//! Seals: how a plugin file shows that it is whole.
//!
//! The last bytes of a sealed file are the SHA-256 of everything before them. A seal tells a file
//! that was cut off or damaged from one that was not; it does not say who built it. Both formats
//! take trailing bytes: a shared library ignores them, a component has custom sections.

use sha2::{Digest as _, Sha256};

use crate::artifact::Format;
use crate::error::LoadError;

/// Ends a sealed shared library, after the hash.
const MARK: &[u8; 16] = b"jackfield seal 0";
/// Starts the custom section that ends a sealed component: id, size, length of the name, name.
const SECTION: &[u8; 17] = b"\x00\x2f\x0ejackfield.seal";
const HASH_BYTES: usize = 32;

/// Adds a seal, unless there is one.
pub fn seal(format: Format, mut bytes: Vec<u8>) -> Vec<u8> {
    if split(format, &bytes).is_some() {
        return bytes;
    }
    let hash: [u8; HASH_BYTES] = Sha256::digest(&bytes).into();
    match format {
        Format::Elf => bytes.extend(hash.iter().chain(MARK)),
        Format::Wasm => bytes.extend(SECTION.iter().chain(&hash)),
    }
    bytes
}

/// Checks the seal, and gives the SHA-256 of all of the file, seal included.
///
/// # Errors
///
/// [`LoadError::Seal`] if there is none or the bytes before it have another hash.
pub fn check(file: &str, format: Format, bytes: &[u8]) -> Result<[u8; 32], LoadError> {
    let broken = |found: &str| LoadError::Seal { file: file.to_owned(), found: found.to_owned() };
    let (content, hash) =
        split(format, bytes).ok_or_else(|| broken("it has no seal at its end"))?;
    let sealed = Sha256::new_with_prefix(content);
    if sealed.clone().finalize()[..] != *hash {
        return Err(broken("its bytes are not those that were sealed"));
    }
    // What was sealed is nearly everything: its hash goes on to the end of the file.
    Ok(sealed.chain_update(&bytes[content.len()..]).finalize().into())
}

/// What is sealed, and the hash in the seal.
fn split(format: Format, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match format {
        Format::Elf => {
            bytes.strip_suffix(MARK)?.split_at_checked(bytes.len() - MARK.len() - HASH_BYTES)
        }
        Format::Wasm => {
            let (rest, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH_BYTES)?)?;
            Some((rest.strip_suffix(SECTION)?, hash))
        }
    }
}

/// A component with a manifest as a custom section, for languages whose tools write none.
pub fn with_manifest(mut component: Vec<u8>, manifest: &str) -> Vec<u8> {
    let name = crate::artifact::WASM_SECTION;
    let size = 1 + name.len() + manifest.len();
    component.push(0);
    put_leb128(size, &mut component);
    put_leb128(name.len(), &mut component);
    component.extend(name.bytes().chain(manifest.bytes()));
    component
}

fn put_leb128(mut n: usize, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push((n & 0x7F) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_until_a_byte_changes() {
        for (format, bytes) in [(Format::Elf, &b"\x7fELF and more"[..]), (Format::Wasm, b"\0asm")] {
            assert!(check("x", format, bytes).is_err(), "no seal");
            let sealed = seal(format, bytes.to_vec());
            assert_eq!(check("x", format, &sealed).unwrap()[..], Sha256::digest(&sealed)[..]);
            assert_eq!(seal(format, sealed.clone()), sealed, "one seal is enough");
            for i in 0..sealed.len() {
                let mut broken = sealed.clone();
                broken[i] ^= 0x10;
                assert!(check("x", format, &broken).is_err(), "byte {i}");
                assert!(check("x", format, &sealed[..i]).is_err(), "{i} bytes");
            }
        }
    }
}
