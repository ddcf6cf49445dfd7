//! Reads little-endian fields of a GGUF header. Every length is checked against what is left of
//! the file before anything is skipped, sliced or allocated.

use std::path::Path;

use crate::model::error::ModelError;

/// A position in the bytes of a file.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self { path, bytes, at: 0 }
    }

    /// Bytes from the start of the file.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Bytes up to the end of the file.
    pub(super) fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64, item: &str) -> Result<&'a [u8], ModelError> {
        if len > self.remaining() {
            return Err(self.malformed(item, format!("{len} bytes"), self.left()));
        }
        // `len` fits a `usize`: it is at most the length of a slice.
        let end = self.at + len as usize;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub(super) fn u32(&mut self, item: &str) -> Result<u32, ModelError> {
        self.array(item).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, item: &str) -> Result<u64, ModelError> {
        self.array(item).map(u64::from_le_bytes)
    }

    /// A number of things that each take at least `bytes_each_min` bytes of the file.
    pub(super) fn count(&mut self, item: &str, bytes_each_min: u64) -> Result<u64, ModelError> {
        let count = self.u64(item)?;
        let count_max = self.remaining() / bytes_each_min;
        if count > count_max {
            let expected = format!("a count of at most {count_max}");
            return Err(self.malformed(item, expected, count.to_string()));
        }
        Ok(count)
    }

    /// A string: its length as u64, then its bytes.
    pub(super) fn string(&mut self, item: &str) -> Result<&'a [u8], ModelError> {
        let len = self.u64(item)?;
        self.take(len, item)
    }

    /// A string that must be UTF-8.
    pub(super) fn utf8(&mut self, item: &str) -> Result<&'a str, ModelError> {
        let bytes = self.string(item)?;
        std::str::from_utf8(bytes).map_err(|error| {
            self.malformed(item, "UTF-8", format!("an invalid byte at {}", error.valid_up_to()))
        })
    }

    /// An error about `item` of this file.
    pub(super) fn malformed(
        &self,
        item: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> ModelError {
        ModelError::malformed(self.path, item, expected, found)
    }

    fn array<const N: usize>(&mut self, item: &str) -> Result<[u8; N], ModelError> {
        match self.bytes[self.at..].first_chunk::<N>() {
            Some(chunk) => {
                self.at += N;
                Ok(*chunk)
            }
            None => Err(self.malformed(item, format!("{N} bytes"), self.left())),
        }
    }

    fn left(&self) -> String {
        format!("{} up to the end of the file", self.remaining())
    }
}
