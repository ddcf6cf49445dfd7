//! The plugin's side: services that were lent to it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::file::File;
use super::lease::Lease;
use super::{put_command, take_piece, text};
use crate::error::{Error, Result};
use crate::host::{Change, Command, Ended, Host, HostServices, HttpPiece, Level, ReadSeek, Row};
use crate::native::abi::OK;
use crate::native::abi::host::{HostV1, PieceV1};
use crate::native::call::{Answer, error_of};
use crate::native::piece::{Taker, nowhere};
use crate::vocabulary::Vocabulary;
use crate::wire::{Wire, from_bytes, put_text};

/// A handle on the host that is good for one call after the other.
#[derive(Default)]
pub(in crate::native) struct Lent {
    lease: Arc<Lease>,
    /// Made by the first call, which brings the plugin's name.
    host: Option<Host>,
}

impl Lent {
    /// Runs `body` with the host behind `table`.
    ///
    /// # Safety
    ///
    /// `table` is valid for this call.
    pub(in crate::native) unsafe fn with<T>(
        &mut self,
        table: *const HostV1,
        body: impl FnOnce(&Host) -> T,
    ) -> T {
        let Self { lease, host } = self;
        let host = host.get_or_insert_with(|| {
            // SAFETY: as for this function.
            let name = unsafe { (*table).plugin }.as_str();
            Host::new(name, Arc::new(Services { lease: Arc::clone(lease) }))
        });
        // SAFETY: as for this function; the loan ends below, whatever `body` does.
        let _loan = unsafe { lease.begin(table) };
        body(host)
    }
}

struct Services {
    lease: Arc<Lease>,
}

impl Services {
    fn ask<T: Wire>(&self, service: &str, arguments: &[u8]) -> Result<T> {
        from_bytes(&self.call(service, arguments, nowhere())?.0)
    }

    /// What a service answers, and in which call from the host it did.
    fn call(&self, service: &str, arguments: &[u8], piece: PieceV1) -> Result<(Vec<u8>, u64)> {
        let mut bytes = Vec::new();
        let out = Answer::into(&mut bytes).out();
        let (code, number) = self.lease.with(None, |host, number| {
            // SAFETY: the table is lent; all pointers live until the call ends.
            let code = unsafe {
                (host.call)(host.of, service.into(), arguments.into(), piece, &raw const out)
            };
            (code, number)
        })?;
        if code == OK { Ok((bytes, number)) } else { Err(error_of(code, &bytes, "host")) }
    }
}

fn path_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    put_text(text(path)?, &mut bytes);
    Ok(bytes)
}

/// Nothing, as an answer.
struct Done;

impl Wire for Done {
    fn put(&self, _out: &mut Vec<u8>) {}

    fn take(_r: &mut crate::wire::Reader<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl HostServices for Services {
    fn log(&self, _plugin: &str, level: Level, message: fmt::Arguments<'_>) {
        let (level, message) = (u32::from(level == Level::Warn), message.to_string());
        // A line that comes after the call has nowhere to go.
        // SAFETY: the table is lent.
        let _ = self.lease.with(None, |host, _| unsafe {
            (host.log)(host.of, level, message.as_str().into());
        });
    }

    fn monotonic_us(&self) -> u64 {
        // SAFETY: the table is lent.
        let now = self.lease.with(None, |host, _| unsafe { (host.monotonic_us)(host.of) });
        now.unwrap_or(0)
    }

    fn unix_seconds(&self) -> Result<f64> {
        self.ask("unix_seconds", &[])
    }

    fn open(&self, path: &Path) -> Result<Box<dyn ReadSeek>> {
        let (id, number) = self.call("open", &path_bytes(path)?, nowhere())?;
        Ok(Box::new(File::new(Arc::clone(&self.lease), number, from_bytes(&id)?)))
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>> {
        self.ask("list", &path_bytes(folder)?)
    }

    fn size_bytes(&self, path: &Path) -> Result<Option<u64>> {
        self.ask("size_bytes", &path_bytes(path)?)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut arguments = path_bytes(path)?;
        let len = u32::try_from(bytes.len());
        let len = len.map_err(|_| Error::shape("append", "less than 4 GiB", bytes.len()))?;
        len.put(&mut arguments);
        arguments.extend_from_slice(bytes);
        self.ask("append", &arguments).map(|Done| ())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut arguments = path_bytes(from)?;
        put_text(text(to)?, &mut arguments);
        self.ask("rename", &arguments).map(|Done| ())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.ask("remove", &path_bytes(path)?).map(|Done| ())
    }

    fn run(&self, command: &Command, tick: &mut dyn FnMut()) -> Result<Ended> {
        let mut arguments = Vec::new();
        put_command(command, &mut arguments)?;
        let mut take = |_: &[u8]| {
            tick();
            Ok(())
        };
        let mut ticks = Taker::new(&mut take);
        let answer = self.call("run", &arguments, ticks.lend());
        from_bytes(&ticks.finish(answer)?.0)
    }

    fn http_get(
        &self,
        url: &str,
        offset: u64,
        piece: &mut dyn FnMut(HttpPiece<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut arguments = Vec::new();
        put_text(url, &mut arguments);
        offset.put(&mut arguments);
        let mut take = |part: &[u8]| piece(take_piece(part)?);
        let mut pieces = Taker::new(&mut take);
        let answer = self.call("http_get", &arguments, pieces.lend());
        pieces.finish(answer).map(drop)
    }

    fn vocabulary(&self) -> Result<Arc<Vocabulary>> {
        self.ask::<Vocabulary>("vocabulary", &[]).map(Arc::new)
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut arguments = Vec::new();
        put_text(text, &mut arguments);
        self.ask("encode", &arguments)
    }

    fn store_rows(&self, session: &str, prefix: &str) -> Result<Vec<Row>> {
        let mut arguments = Vec::new();
        put_text(session, &mut arguments);
        put_text(prefix, &mut arguments);
        self.ask("store_rows", &arguments)
    }

    fn store_change(&self, session: &str, changes: &[Change]) -> Result<bool> {
        let mut arguments = Vec::new();
        put_text(session, &mut arguments);
        changes.to_vec().put(&mut arguments);
        self.ask("store_change", &arguments)
    }
}
