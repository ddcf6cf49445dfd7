//! Reads bytes that nobody vouches for.

use super::Wire;
use crate::error::{Error, Result};

/// What has not been read yet.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// A count of items of at least `bytes_each`: more than the rest can hold is refused.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`], as of every method here.
    pub fn count(&mut self, bytes_each: usize) -> Result<usize> {
        let count = u32::take(self)? as usize;
        let most = self.rest.len() / bytes_each.max(1);
        if count > most {
            let expected = format!("at most {most} in {} bytes", self.rest.len());
            return Err(Error::malformed("count", expected, count));
        }
        Ok(count)
    }

    /// Text, borrowed from the bytes.
    pub fn text(&mut self) -> Result<&'a str> {
        let len = self.count(1)?;
        let bytes = self.bytes(len)?;
        std::str::from_utf8(bytes).map_err(|e| Error::malformed("text", "UTF-8", e))
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    /// The next `n` bytes, borrowed.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        if n > self.rest.len() {
            let expected = format!("{n} more");
            return Err(Error::malformed("bytes", expected, self.rest.len()));
        }
        let (taken, rest) = self.rest.split_at(n);
        self.rest = rest;
        Ok(taken)
    }

    /// Refuses bytes that nothing has read.
    pub fn end(&self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::malformed("bytes", "their end", format!("{} more", self.rest.len())))
    }
}
