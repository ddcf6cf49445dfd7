//! A file that the host has opened for a plugin, until the call ends that it was opened in.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use super::lease::Lease;
use crate::error::{Error, Result};
use crate::native::abi::host::HostV1;
use crate::native::abi::{Code, OK, Out};
use crate::native::call::{Answer, error_of};
use crate::native::piece::nowhere;
use crate::wire::{from_bytes, to_bytes};

pub(super) struct File {
    lease: Arc<Lease>,
    /// The call from the host that it belongs to.
    number: u64,
    id: u64,
    position: u64,
    bytes: Vec<u8>,
}

impl File {
    pub(super) fn new(lease: Arc<Lease>, number: u64, id: u64) -> Self {
        Self { lease, number, id, position: 0, bytes: Vec::new() }
    }

    fn call(&mut self, function: impl FnOnce(&HostV1, *const Out) -> Code) -> Result<()> {
        let out = Answer::into(&mut self.bytes).out();
        let code = self.lease.with(Some(self.number), |host, _| function(host, &raw const out))?;
        if code == OK { Ok(()) } else { Err(error_of(code, &self.bytes, "host")) }
    }

    fn end(&mut self) -> Result<u64> {
        let id = to_bytes(&self.id);
        // SAFETY: the table is lent; all pointers live until the call ends.
        self.call(|host, out| unsafe {
            (host.call)(host.of, "file_end".into(), id[..].into(), nowhere(), out)
        })?;
        from_bytes(&self.bytes)
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (id, position, len) = (self.id, self.position, buffer.len() as u64);
        // SAFETY: as in `end`.
        let read = self.call(|host, out| unsafe { (host.read)(host.of, id, position, len, out) });
        read.map_err(io::Error::other)?;
        let Some(place) = buffer.get_mut(..self.bytes.len()) else {
            let error = Error::malformed("file", format!("at most {len} bytes"), self.bytes.len());
            return Err(io::Error::other(error));
        };
        place.copy_from_slice(&self.bytes);
        self.position += place.len() as u64;
        Ok(place.len())
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.end().map_err(io::Error::other)?.checked_add_signed(by),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "before the start of a file");
        self.position = position.ok_or_else(before)?;
        Ok(self.position)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let id = self.id;
        // After the call the host has closed it already.
        // SAFETY: the table is lent.
        let _ = self.lease.with(Some(self.number), |host, _| unsafe { (host.close)(host.of, id) });
    }
}
