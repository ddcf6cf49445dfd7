//! Plugin files, read without running them: format, seal, hash and manifest.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use jackfield_runtime::Lane;
use sha2::{Digest as _, Sha256};

use crate::elf;
use crate::error::LoadError;
use crate::manifest::PluginManifest;
use crate::seal;
use crate::wasm::WasmLane;

/// The section of a shared library that holds the manifest.
pub(crate) const ELF_SECTION: &str = ".jackfield.manifest";
/// The custom section that holds the manifest: of a component, or of a core module in it.
pub(crate) const WASM_SECTION: &str = "jackfield.manifest";

/// What a plugin file is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A shared library.
    Elf,
    /// A WASM component.
    Wasm,
}

impl Format {
    /// The format that `bytes` begin with.
    ///
    /// # Errors
    ///
    /// [`LoadError::Artifact`] for any other.
    pub fn of(file: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        match bytes {
            [0x7F, b'E', b'L', b'F', ..] => Ok(Self::Elf),
            [0, b'a', b's', b'm', ..] => Ok(Self::Wasm),
            _ => {
                let first = &bytes[..bytes.len().min(4)];
                let found = format!("{} bytes that begin with {first:02x?}", bytes.len());
                Err(artifact(file, "a shared library or a WASM component", found))
            }
        }
    }

    /// The lane that such a file runs in.
    pub fn lane(self) -> Lane {
        match self {
            Self::Elf => Lane::Native,
            Self::Wasm => Lane::Wasm,
        }
    }
}

/// A plugin file that was read whole and found to be what it says.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Where it was read from.
    pub path: PathBuf,
    /// The path, for messages.
    pub file: String,
    /// What it is made as.
    pub format: Format,
    /// Everything in it; the file itself is never looked at again.
    pub bytes: Vec<u8>,
    /// SHA-256 of the bytes, in hexadecimal.
    pub hash: String,
    /// What it says of itself.
    pub manifest: PluginManifest,
}

impl Artifact {
    /// Reads a plugin file.
    ///
    /// # Errors
    ///
    /// [`LoadError`] for files that cannot be read, are no plugins, or are damaged.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let bytes = read_whole(path).map_err(|source| {
            let path = path.to_owned();
            LoadError::Read { path, source }
        })?;
        Self::from_bytes(path, bytes)
    }

    /// The same of bytes that were read from `path`.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, LoadError> {
        let file = path.display().to_string();
        let format = Format::of(&file, &bytes)?;
        let hash = hexadecimal(&seal::check(&file, format, &bytes)?);
        let text = manifest_text(&file, format, &bytes)?;
        let manifest = PluginManifest::parse(&file, &text)?;
        Ok(Self { path: path.to_owned(), file, format, bytes, hash, manifest })
    }
}

/// The manifest in a plugin file, sealed or not.
///
/// # Errors
///
/// [`LoadError::Artifact`] if it holds none or cannot be looked into.
pub fn manifest_text(file: &str, format: Format, bytes: &[u8]) -> Result<String, LoadError> {
    match format {
        Format::Elf => elf::manifest(file, bytes),
        Format::Wasm => WasmLane::manifest(file, bytes),
    }
}

/// SHA-256 in hexadecimal.
pub fn hash_of(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The error of a file that is something else.
#[allow(clippy::needless_pass_by_value, reason = "literals and temporaries read better by value")]
pub(crate) fn artifact(file: &str, expected: &str, found: impl ToString) -> LoadError {
    let (file, expected) = (file.to_owned(), expected.to_owned());
    LoadError::Artifact { file, expected, found: found.to_string() }
}

fn read_whole(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(std::io::Error::other("expected a file"));
    }
    let mut bytes = Vec::with_capacity(meta.len().min(BYTES_MAX) as usize);
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(std::io::Error::other(format!("expected at most {BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// Larger files are no plugins: a component with a Python inside takes 40 MB.
const BYTES_MAX: u64 = 1 << 30;
