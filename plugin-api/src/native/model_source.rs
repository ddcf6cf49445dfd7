//! Model sources across the boundary.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Owner;
use super::abi::host::{HostV1, PieceV1};
use super::abi::model_source::ModelSourceV1;
use super::abi::{Code, Opened, Out, RSlice, RStr};
use super::call::Remote;
use super::guard::{self, answer, guard, shared};
use super::host::{Lender, Lent, text};
use super::piece::{Taker, hand_out};
use crate::error::Result;
use crate::host::Host;
use crate::kinds::model_source::{ModelEntry, ModelSource, Progress};
use crate::wire::{Reader, Wire, from_bytes, put_text, to_bytes};

type Instance = dyn ModelSource;

static TABLE: ModelSourceV1 = ModelSourceV1 {
    size: size_of::<ModelSourceV1>() as u32,
    list,
    resolve,
    fetch,
    close: guard::close::<Instance>,
};

pub(super) fn export(instance: Box<Instance>) -> (*mut c_void, *const c_void) {
    (guard::export(instance), (&raw const TABLE).cast())
}

unsafe extern "C" fn list(this: *mut c_void, out: *const Out) -> Code {
    // SAFETY: the host opened this instance here, and `out` is its own for this call.
    unsafe {
        guard(out, || {
            answer(out, &shared::<Instance>(this).list());
            Ok(())
        })
    }
}

unsafe extern "C" fn resolve(
    this: *mut c_void,
    name: RStr<'_>,
    host: *const HostV1,
    out: *const Out,
) -> Code {
    // SAFETY: as in `list`; name and host are lent for the call.
    unsafe {
        guard(out, || {
            let source = shared::<Instance>(this);
            let found = Lent::default().with(host, |host| source.resolve(name.as_str(), host))?;
            answer(out, &found);
            Ok(())
        })
    }
}

unsafe extern "C" fn fetch(
    this: *mut c_void,
    entry: RSlice<'_, u8>,
    folder: RStr<'_>,
    progress: PieceV1,
    host: *const HostV1,
    out: *const Out,
) -> Code {
    // SAFETY: as in `resolve`; so are all other arguments.
    unsafe {
        guard(out, || {
            let (source, folder) = (shared::<Instance>(this), Path::new(folder.as_str()));
            let (entry, mut bytes) = (from_bytes::<ModelEntry>(entry.as_slice())?, Vec::new());
            let mut tell = |now: Progress<'_>| {
                bytes.clear();
                put_text(now.stage, &mut bytes);
                (now.done, now.total).put(&mut bytes);
                // Whoever fetches has no way to stop: a host that fails here says so afterwards.
                let _ = hand_out(progress, &bytes);
            };
            let path =
                Lent::default().with(host, |host| source.fetch(&entry, folder, &mut tell, host))?;
            answer(out, &text(&path)?.to_owned());
            Ok(())
        })
    }
}

/// A model source in another library.
struct Adapter {
    remote: Remote,
    table: &'static ModelSourceV1,
}

/// # Safety
///
/// `opened` came from [`export`] of a library that matches and stays mapped.
pub(super) unsafe fn import(opened: Opened, owner: Arc<dyn Owner>) -> Box<Instance> {
    // SAFETY: as for this function.
    let table = unsafe { &*opened.table.cast::<ModelSourceV1>() };
    Box::new(Adapter { remote: Remote::new(opened.this, owner), table })
}

impl ModelSource for Adapter {
    fn list(&self) -> Vec<ModelEntry> {
        let table = self.table;
        // The owner knows of a failure; a source that failed can name nothing.
        // SAFETY: the table belongs to the instance; all pointers live until the call ends.
        self.remote.ask(|this, out| unsafe { (table.list)(this, out) }).unwrap_or_default()
    }

    fn resolve(&self, name: &str, host: &Host) -> Result<Option<ModelEntry>> {
        let (table, lender) = (self.table, Lender::new(host));
        let host = lender.lend();
        // SAFETY: as in `list`.
        self.remote
            .ask(|this, out| unsafe { (table.resolve)(this, name.into(), &raw const host, out) })
    }

    fn fetch(
        &self,
        entry: &ModelEntry,
        folder: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
        host: &Host,
    ) -> Result<PathBuf> {
        let (table, lender, entry) = (self.table, Lender::new(host), to_bytes(entry));
        let (host, folder) = (lender.lend(), text(folder)?);
        let mut take = |part: &[u8]| {
            let mut r = Reader::new(part);
            let (stage, (done, total)) = (r.text()?, Wire::take(&mut r)?);
            progress(Progress { stage, done, total });
            Ok(())
        };
        let mut taker = Taker::new(&mut take);
        let progress = taker.lend();
        let fetched = self.remote.ask::<String>(|this, out| {
            let (entry, folder) = (entry[..].into(), folder.into());
            // SAFETY: as in `list`.
            unsafe { (table.fetch)(this, entry, folder, progress, &raw const host, out) }
        });
        taker.finish(fetched).map(PathBuf::from)
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let table = self.table;
        // SAFETY: the instance is closed once, here.
        self.remote.tell(|this, out| unsafe { (table.close)(this, out) });
    }
}
