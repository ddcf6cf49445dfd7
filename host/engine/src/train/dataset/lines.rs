//! A file as lines that are read where they begin, none longer than allowed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::EngineError;

/// Where a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct LinePlace {
    /// Bytes before it.
    pub offset: u64,
    /// Its number, from 1; 0 where it is not known.
    pub line: u64,
}

impl LinePlace {
    /// The first line.
    pub const FIRST: Self = Self { offset: 0, line: 1 };
}

impl From<(u64, u64)> for LinePlace {
    fn from((offset, line): (u64, u64)) -> Self {
        Self { offset, line }
    }
}

impl From<LinePlace> for (u64, u64) {
    fn from(place: LinePlace) -> Self {
        (place.offset, place.line)
    }
}

/// An open file of lines.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    /// Where the reader stands.
    offset: u64,
    line_bytes_max: u64,
    buffer: Vec<u8>,
}

impl Lines {
    pub(super) fn open(path: &Path, line_bytes_max: u64) -> Result<Self, EngineError> {
        let outside =
            |error| EngineError::inconsistent(path.display().to_string(), "a file to read", error);
        let file = File::open(path).map_err(outside)?;
        // A folder opens as well and says so only when it is read.
        if file.metadata().map_err(outside)?.is_dir() {
            let what = path.display().to_string();
            return Err(EngineError::inconsistent(what, "a file of JSON lines", "a folder"));
        }
        let reader = BufReader::with_capacity(BUFFER_BYTES, file);
        let (path, buffer) = (path.to_owned(), Vec::new());
        Ok(Self { path, reader, offset: 0, line_bytes_max, buffer })
    }

    /// The line at `place` without its end, and where the next one begins; nothing at the end of the file.
    pub(super) fn read(
        &mut self,
        place: LinePlace,
    ) -> Result<Option<(&[u8], LinePlace)>, EngineError> {
        let what = self.at(place);
        let outside = |error| EngineError::inconsistent(&what, "a line to read", error);
        if self.offset != place.offset {
            // Relative, so that what is buffered is used where it can be.
            let by = place.offset as i64 - self.offset as i64;
            self.reader.seek_relative(by).map_err(outside)?;
            self.offset = place.offset;
        }
        self.buffer.clear();
        let mut bounded = self.reader.by_ref().take(self.line_bytes_max + 1);
        let count = bounded.read_until(b'\n', &mut self.buffer);
        let count = count.map_err(|error| {
            // Where the reader stands is not known any more.
            self.offset = u64::MAX >> 1;
            EngineError::inconsistent(&what, "a line to read", error)
        })?;
        self.offset += count as u64;
        if count == 0 {
            return Ok(None);
        }
        let line = match self.buffer.strip_suffix(b"\n") {
            Some(line) => line,
            None if count as u64 > self.line_bytes_max => {
                let expected = format!("a line of at most {} bytes", self.line_bytes_max);
                return Err(EngineError::inconsistent(what, expected, "a longer one"));
            }
            None => &self.buffer,
        };
        let next = LinePlace {
            offset: self.offset,
            line: if place.line == 0 { 0 } else { place.line + 1 },
        };
        Ok(Some((line.strip_suffix(b"\r").unwrap_or(line), next)))
    }

    /// `file:line`, for errors.
    pub(super) fn at(&self, place: LinePlace) -> String {
        match place.line {
            0 => format!("{} at byte {}", self.path.display(), place.offset),
            line => format!("{}:{line}", self.path.display()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// One read of the system.
const BUFFER_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(bytes: &[u8], max: u64) -> (tempfile::TempDir, Lines) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.jsonl");
        std::fs::write(&path, bytes).unwrap();
        let lines = Lines::open(&path, max).unwrap();
        (folder, lines)
    }

    #[test]
    fn lines_are_read_in_any_order() {
        let (_folder, mut lines) = opened(b"one\r\n\nthree", 8);
        let mut places = vec![LinePlace::FIRST];
        let mut said = Vec::new();
        while let Some((line, next)) = lines.read(*places.last().unwrap()).unwrap() {
            said.push(line.to_vec());
            places.push(next);
        }
        assert_eq!(said, [&b"one"[..], b"", b"three"]);
        assert_eq!(places[2], LinePlace { offset: 6, line: 3 });
        for at in [2, 0, 1, 0, 2] {
            assert_eq!(lines.read(places[at]).unwrap().unwrap().0, said[at], "{at}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_not_read_further() {
        let long = [&[b'a'; 9][..], b"\nb\n"].concat();
        let (_folder, mut lines) = opened(&long, 8);
        let error = lines.read(LinePlace::FIRST).unwrap_err().to_string();
        assert!(
            error.ends_with("x.jsonl:1: expected a line of at most 8 bytes, found a longer one")
        );
        assert_eq!(lines.buffer.len(), 9);
        // Exactly as long as allowed, with and without an end.
        for bytes in [&b"12345678\n"[..], b"12345678"] {
            let (_folder, mut lines) = opened(bytes, 8);
            assert_eq!(lines.read(LinePlace::FIRST).unwrap().unwrap().0, b"12345678");
        }
        assert!(Lines::open(Path::new("/"), 8).unwrap_err().to_string().contains("a folder"));
    }
}
