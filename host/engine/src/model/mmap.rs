//! The bytes of one model file, mapped: the only unsafe room of this crate.
//!
//! A file that is truncated or rewritten while it is mapped is out of scope: replace model files by
//! renaming, never by writing into them. Sizes are checked against the length seen at open.
#![allow(unsafe_code, reason = "mapping a file is unsafe: see the obligation at `open`")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, UncheckedAdvice};

use super::error::ModelError;

/// Gives the pages of `bytes` back to the system, where it takes single ones: what they held is
/// lost, and they take no memory until they are written again. Without effect for bytes that are
/// no whole pages.
///
/// Meant for anonymous memory, whose pages then read as zeros or as what they held.
pub fn release_pages(bytes: &mut [u8]) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0);
        let is_whole = page > 0
            && bytes.as_ptr().addr().is_multiple_of(page)
            && bytes.len().is_multiple_of(page);
        if is_whole && !bytes.is_empty() {
            // SAFETY: whole pages that are borrowed exclusively; any bytes are valid bytes, so
            // zeros in place of what was there are a write like another. A refusal changes nothing.
            unsafe { libc::madvise(bytes.as_mut_ptr().cast(), bytes.len(), libc::MADV_DONTNEED) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = bytes;
}

/// Read-only bytes of a model file, with the path for messages.
#[derive(Debug)]
pub struct ModelBytes {
    path: PathBuf,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl ModelBytes {
    /// Maps the file at `path`; pages are read when they are touched.
    ///
    /// # Errors
    ///
    /// [`ModelError::Open`] if it cannot be read or is not a regular file (a pipe would block).
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let refuse =
            |source| ModelError::Open { path: path.to_path_buf(), expected: "model file", source };
        let found = std::fs::metadata(path).map_err(refuse)?;
        if !found.is_file() {
            return Err(refuse(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        let file = File::open(path).map_err(refuse)?;
        if found.len() == 0 {
            return Ok(Self { path: path.to_path_buf(), content: Content::Owned(Vec::new()) });
        }
        // SAFETY: the map is private and read-only, so this process never writes through it; that
        // no other process shortens or rewrites the file meanwhile is the documented precondition
        // of this module.
        let mapped = unsafe { Mmap::map(&file) }.map_err(refuse)?;
        Ok(Self { path: path.to_path_buf(), content: Content::Mapped(mapped) })
    }

    /// Bytes that are in memory already; `path` is what messages call them.
    pub fn from_vec(path: impl Into<PathBuf>, bytes: Vec<u8>) -> Self {
        Self { path: path.into(), content: Content::Owned(bytes) }
    }

    /// All bytes of the file.
    pub fn as_slice(&self) -> &[u8] {
        match &self.content {
            Content::Mapped(mapped) => mapped,
            Content::Owned(bytes) => bytes,
        }
    }

    /// Gives the pages of these bytes back to the system, and those around that came along when they
    /// were read: all stay readable, from the file.
    pub fn release(&self, range: Range<usize>) {
        let Content::Mapped(mapped) = &self.content else { return };
        let end = range.end.saturating_add(AROUND_BYTES).min(mapped.len());
        let start = range.start.saturating_sub(AROUND_BYTES).min(end);
        // SAFETY: the pages of a private map that nobody writes through hold what the file holds,
        // so a page that is read again is the same. A system that keeps them anyway is no error.
        let _ =
            unsafe { mapped.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
    }

    /// Where the bytes came from.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// As far as a system maps pages around the one that is read, if it has them: 64 KiB on Linux.
const AROUND_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_what_the_file_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        std::fs::write(&path, b"jackfield").unwrap();
        let bytes = ModelBytes::open(&path).unwrap();
        assert_eq!(bytes.as_slice(), b"jackfield");
        bytes.release(2..5);
        assert_eq!(bytes.as_slice(), b"jackfield");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(ModelBytes::open(&path).unwrap().as_slice(), b"");
    }

    #[test]
    fn refuses_what_is_not_a_file() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_path_buf(), folder.path().join("absent")] {
            assert!(matches!(ModelBytes::open(&path), Err(ModelError::Open { .. })));
        }
    }
}
