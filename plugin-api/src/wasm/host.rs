//! The services of the host, as granted, behind the [`Host`] that plugins know.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use super::error::error_of;
use super::offers::jackfield::plugin::{files, host as wit, network, processes, store};
use crate::Vocabulary;
use crate::error::{Error, Result};
use crate::host::{Change, Command, Ended, Host, HostServices, HttpPiece, Level, ReadSeek, Row};

/// The handle that calls of this plugin are given.
pub(super) fn host() -> Host {
    Host::new("this plugin", Arc::new(Services))
}

struct Services;

impl HostServices for Services {
    fn log(&self, _plugin: &str, level: Level, message: fmt::Arguments<'_>) {
        let level = match level {
            Level::Info => wit::Level::Info,
            Level::Warn => wit::Level::Warn,
        };
        wit::log(level, &message.to_string());
    }

    fn monotonic_us(&self) -> u64 {
        wit::monotonic_us()
    }

    fn unix_seconds(&self) -> Result<f64> {
        wit::unix_seconds().map_err(error_of)
    }

    fn open(&self, path: &Path) -> Result<Box<dyn ReadSeek>> {
        let file = files::File::open(text(path)?).map_err(error_of)?;
        Ok(Box::new(OpenFile { file, offset: 0 }))
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>> {
        files::list_folder(text(folder)?).map_err(error_of)
    }

    fn size_bytes(&self, path: &Path) -> Result<Option<u64>> {
        files::size_bytes(text(path)?).map_err(error_of)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        files::append(text(path)?, bytes).map_err(error_of)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        files::rename(text(from)?, text(to)?).map_err(error_of)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        files::remove(text(path)?).map_err(error_of)
    }

    fn run(&self, command: &Command, tick: &mut dyn FnMut()) -> Result<Ended> {
        tick();
        let ended = processes::run(&processes::Command {
            program: command.program.clone(),
            args: command.args.clone(),
            env: command.env.clone(),
            folder: command.folder.as_deref().map(text).transpose()?.map(str::to_owned),
        })
        .map_err(error_of)?;
        Ok(Ended { status: ended.status, output: ended.output, errors: ended.errors })
    }

    /// Fetches part by part: the host cannot call back while the guest waits for it.
    fn http_get(
        &self,
        url: &str,
        offset: u64,
        piece: &mut dyn FnMut(HttpPiece<'_>) -> Result<()>,
    ) -> Result<()> {
        let first = network::get(url, offset, PART_BYTES).map_err(error_of)?;
        piece(HttpPiece::Start { status: first.status, len: first.len })?;
        // A server that ignores the offset sends everything each time: what is known is skipped.
        let is_whole = offset > 0 && first.status == 200;
        let (mut part, mut received) = (first, 0);
        loop {
            received += part.bytes.len() as u64;
            piece(HttpPiece::Bytes(&part.bytes))?;
            if part.is_last {
                return Ok(());
            }
            let next = if is_whole { received } else { offset + received };
            part = network::get(url, next, PART_BYTES).map_err(error_of)?;
            if part.status != 206 {
                let found = format!("status {}", part.status);
                return Err(Error::malformed(url, "the rest of the answer (status 206)", found));
            }
        }
    }

    fn vocabulary(&self) -> Result<Arc<Vocabulary>> {
        Err(Error::unsupported("vocabulary", "components have no such service"))
    }

    fn encode(&self, _text: &str) -> Result<Vec<u32>> {
        Err(Error::unsupported("encode", "components have no such service"))
    }

    fn store_rows(&self, session: &str, prefix: &str) -> Result<Vec<Row>> {
        let rows = store::rows(session, prefix).map_err(error_of)?;
        Ok(rows.into_iter().map(|store::Row { key, value }| Row { key, value }).collect())
    }

    fn store_change(&self, session: &str, changes: &[Change]) -> Result<bool> {
        let wire = |row: &Row| store::Row { key: row.key.clone(), value: row.value.clone() };
        let changes = changes.iter().map(|change| match change {
            Change::Put(row) => store::Change::Put(wire(row)),
            Change::Create(row) => store::Change::Create(wire(row)),
            Change::Remove(key) => store::Change::Remove(key.clone()),
        });
        store::commit(session, &changes.collect::<Vec<_>>()).map_err(error_of)
    }
}

/// A file that lies with the host.
struct OpenFile {
    file: files::File,
    offset: u64,
}

impl Read for OpenFile {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = out.len().min(PART_BYTES as usize) as u32;
        let bytes = self.file.read(self.offset, len).map_err(|error| other(error_of(error)))?;
        out[..bytes.len()].copy_from_slice(&bytes);
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }
}

impl Seek for OpenFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.offset.checked_add_signed(by),
            SeekFrom::End(by) => {
                let size = self.file.size().map_err(|error| other(error_of(error)))?;
                size.checked_add_signed(by)
            }
        };
        self.offset = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.offset)
    }
}

fn other(error: Error) -> io::Error {
    io::Error::other(error)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::malformed("path", "UTF-8", path.display()))
}

/// Bytes that cross at a time.
const PART_BYTES: u32 = 1 << 20;
