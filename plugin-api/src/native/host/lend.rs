//! The host's side: lends services.

use std::ffi::c_void;
use std::io::SeekFrom;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{put_piece, take_command};
use crate::error::{Error, Result};
use crate::host::{Change, Host, ReadSeek};
use crate::native::abi::host::{HostV1, PieceV1};
use crate::native::abi::{Code, Out, RSlice, RStr};
use crate::native::guard::{guard, write};
use crate::native::piece::hand_out;
use crate::wire::{Reader, Wire};

/// Services with the files that were opened through them: both for one call.
pub(in crate::native) struct Lender<'a> {
    host: &'a Host,
    files: Mutex<Vec<Option<Box<dyn ReadSeek>>>>,
}

impl<'a> Lender<'a> {
    pub(in crate::native) fn new(host: &'a Host) -> Self {
        Self { host, files: Mutex::default() }
    }

    /// The services as a table; valid while `self` is borrowed.
    pub(in crate::native) fn lend(&self) -> HostV1 {
        let name = self.host.plugin();
        // SAFETY: the name lives in the host's handle, which outlives the loan; the table says
        // `'static` for want of a lifetime.
        let plugin = unsafe { RStr::from_raw_parts(name.as_ptr(), name.len()) };
        let of = std::ptr::from_ref(self).cast_mut().cast();
        HostV1 { of, plugin, log, monotonic_us, call, read, close }
    }

    fn files(&self) -> MutexGuard<'_, Vec<Option<Box<dyn ReadSeek>>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, path: &Path) -> Result<u64> {
        let file = self.host.services().open(path)?;
        let mut files = self.files();
        files.push(Some(file));
        Ok(files.len() as u64 - 1)
    }

    /// Runs `body` on a file that is open.
    fn with_file<T>(
        &self,
        file: u64,
        body: impl FnOnce(&mut dyn ReadSeek) -> std::io::Result<T>,
    ) -> Result<T> {
        let mut files = self.files();
        let open = usize::try_from(file).ok().and_then(|i| files.get_mut(i)?.as_mut());
        let open = open.ok_or_else(|| Error::malformed("file", "one that is open", file))?;
        body(&mut **open).map_err(|error| Error::outside("file", error))
    }
}

/// The lender behind a table of [`Lender::lend`].
///
/// # Safety
///
/// `of` came from there and its loan has not ended.
unsafe fn lender<'a>(of: *mut c_void) -> &'a Lender<'a> {
    // SAFETY: as for this function. Services may be called from any thread, and so is it shared.
    unsafe { &*of.cast::<Lender<'a>>() }
}

unsafe extern "C" fn log(of: *mut c_void, level: u32, message: RStr<'_>) {
    // SAFETY: only called through a table that is lent.
    let host = unsafe { lender(of) }.host;
    let message = message.as_str();
    // Nobody hears of a log that panics.
    let _ = catch_unwind(AssertUnwindSafe(|| match level {
        0 => host.info(format_args!("{message}")),
        _ => host.warn(format_args!("{message}")),
    }));
}

unsafe extern "C" fn monotonic_us(of: *mut c_void) -> u64 {
    // SAFETY: only called through a table that is lent.
    let host = unsafe { lender(of) }.host;
    catch_unwind(AssertUnwindSafe(|| host.services().monotonic_us())).unwrap_or(0)
}

unsafe extern "C" fn call(
    of: *mut c_void,
    service: RStr<'_>,
    arguments: RSlice<'_, u8>,
    piece: PieceV1,
    out: *const Out,
) -> Code {
    let body = || {
        // SAFETY: only called through a table that is lent.
        let lender = unsafe { lender(of) };
        let mut answered = Vec::new();
        // SAFETY: `piece` is the plugin's, for this call.
        let give = |part: &[u8]| unsafe { hand_out(piece, part) };
        let arguments = &mut Reader::new(arguments.as_slice());
        serve(lender, service.as_str(), arguments, &give, &mut answered)?;
        // SAFETY: `out` is the plugin's, for this call.
        unsafe { write(out, &answered) };
        Ok(())
    };
    // SAFETY: as above.
    unsafe { guard(out, body) }
}

fn serve(
    lender: &Lender<'_>,
    service: &str,
    r: &mut Reader<'_>,
    give: &dyn Fn(&[u8]) -> Result<()>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let services = lender.host.services();
    match service {
        "unix_seconds" => services.unix_seconds()?.put(out),
        "open" => lender.open(path(r)?)?.put(out),
        "file_end" => {
            lender.with_file(Wire::take(r)?, |file| file.seek(SeekFrom::End(0)))?.put(out);
        }
        "list" => services.list(path(r)?)?.put(out),
        "size_bytes" => services.size_bytes(path(r)?)?.put(out),
        "append" => {
            let (path, len) = (path(r)?, r.count(1)?);
            services.append(path, r.bytes(len)?)?;
        }
        "rename" => services.rename(path(r)?, path(r)?)?,
        "remove" => services.remove(path(r)?)?,
        "run" => {
            let command = take_command(r)?;
            // A plugin that fails in a tick says so after the program has ended.
            services.run(&command, &mut || drop(give(&[])))?.put(out);
        }
        "http_get" => {
            let (url, offset, mut part) = (r.text()?, u64::take(r)?, Vec::new());
            services.http_get(url, offset, &mut |piece| {
                part.clear();
                put_piece(&piece, &mut part);
                give(&part)
            })?;
        }
        "vocabulary" => services.vocabulary()?.put(out),
        "encode" => services.encode(r.text()?)?.put(out),
        "store_rows" => services.store_rows(r.text()?, r.text()?)?.put(out),
        "store_change" => {
            let (session, changes): (_, Vec<Change>) = (r.text()?, Wire::take(r)?);
            services.store_change(session, &changes)?.put(out);
        }
        other => return Err(Error::unsupported(format!("service `{other}`"), "no such service")),
    }
    Ok(())
}

fn path<'a>(r: &mut Reader<'a>) -> Result<&'a Path> {
    r.text().map(Path::new)
}

unsafe extern "C" fn read(
    of: *mut c_void,
    file: u64,
    position: u64,
    len: u64,
    out: *const Out,
) -> Code {
    // SAFETY: only called through a table that is lent; `out` is the plugin's, for this call.
    unsafe {
        guard(out, || {
            let mut bytes = vec![0; len.min(READ_BYTES_MAX) as usize];
            let count = lender(of).with_file(file, |file| {
                file.seek(SeekFrom::Start(position))?;
                file.read(&mut bytes)
            })?;
            write(out, bytes.get(..count).unwrap_or(&bytes));
            Ok(())
        })
    }
}

unsafe extern "C" fn close(of: *mut c_void, file: u64) {
    // SAFETY: only called through a table that is lent.
    let lender = unsafe { lender(of) };
    let closed = usize::try_from(file).ok().and_then(|i| lender.files().get_mut(i)?.take());
    // Nobody hears of a file that panics when it is closed.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(closed)));
}

/// Most bytes that one call reads: whoever wants more calls again.
const READ_BYTES_MAX: u64 = 1 << 20;
