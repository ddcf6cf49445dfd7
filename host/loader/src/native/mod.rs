//! The native lane: shared libraries in this process, trusted.
//!
//! A library is judged by its bytes, then by its entry, which is data, then by the layouts of its
//! tables, and only then called. It stays mapped: a thread-local with a destructor would pin it
//! anyway, and a bare thread handle in it crashes the thread that made it. What stays mapped is
//! counted and bounded. Who wants it back all the same pays with a thread: see [`mapping`].

#![allow(unsafe_code, reason = "opening a library, and believing its entry, is unsafe")]

mod layout;
mod mapping;
mod thread;

pub use mapping::Fate;
pub(crate) use mapping::Mapping;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use plugin_api::native::{DIGEST, Entry, Foreign, MAGIC};
use plugin_api::version::ABI_VERSION;

use crate::artifact::artifact;
use crate::error::LoadError;

/// Libraries that this process has mapped as plugins, whoever asked for them.
static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// How many native plugins are mapped: all that were ever loaded and not unloaded.
pub fn mapped() -> usize {
    MAPPED.load(Ordering::Relaxed)
}

/// Opens the library at `path`, a name that no library had before, and judges it. It stays mapped,
/// unless there is a `mapping` to end.
///
/// # Errors
///
/// [`LoadError`] that says what does not fit; the library may stay mapped then, and is counted.
pub(crate) fn open(
    file: &str,
    path: &Path,
    symbol: &str,
    kind: &str,
    mapping: Option<&Mapping>,
) -> Result<Foreign, LoadError> {
    let Some(mapping) = mapping else {
        return open_here(file, path, symbol, kind, |library| {
            // The handle is given up, the mapping stays.
            let _ = library.into_raw();
        });
    };
    let mut opened = None;
    mapping.run(&mut || {
        opened = Some(open_here(file, path, symbol, kind, |library| mapping.hold(library)));
    });
    opened.expect("a call is made before `run` returns")
}

fn open_here(
    file: &str,
    path: &Path,
    symbol: &str,
    kind: &str,
    hold: impl FnOnce(Library),
) -> Result<Foreign, LoadError> {
    // SAFETY: opening runs the library's constructors. The lane is for plugins that the operator
    // trusts, and they ran before in a process of their own.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    let library = library.map_err(|e| artifact(file, "a library that can be opened", e))?;
    MAPPED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the symbol's size was checked in the file: it has the bytes of an entry.
    let entry = unsafe { library.get::<*const Entry>(symbol.as_bytes()) };
    let entry = entry.map(|entry| entry.into_raw().cast_const().cast::<Entry>());
    hold(library);
    let entry = entry.map_err(|e| artifact(file, "its entry symbol", e))?;
    judge(file, entry)?;
    // SAFETY: magic, size, version and digest are those of this host, and the library stays.
    let foreign = unsafe { Foreign::new(&*entry) };
    layout::check(file, foreign, kind)?;
    Ok(foreign)
}

/// Looks at the front of an entry, field by field, before anything believes the rest of it.
fn judge(file: &str, entry: *const Entry) -> Result<(), LoadError> {
    let differs = |difference: String| {
        let file = file.to_owned();
        Err(LoadError::Abi { file, difference })
    };
    // SAFETY: `entry` points to as many mapped bytes as an entry has, and numbers have no invalid
    // values.
    let (magic, size, abi, digest, unwinds) = unsafe {
        let e = &raw const *entry;
        let abi = ((*e).abi_major, (*e).abi_minor);
        ((*e).magic, (*e).size, abi, (*e).digest, (*e).unwinds)
    };
    if magic != MAGIC {
        return differs("its entry has another magic number".to_owned());
    }
    if abi != ABI_VERSION {
        let (expected, found) = (ABI_VERSION, abi);
        return differs(format!(
            "plugin API {}.{}, not {}.{}",
            found.0, found.1, expected.0, expected.1
        ));
    }
    if size as usize != size_of::<Entry>() {
        return differs(format!("an entry of {size} bytes, not {}", size_of::<Entry>()));
    }
    if digest != DIGEST {
        return differs(format!("digest {:016x}, not {:016x}", digest[0], DIGEST[0]));
    }
    if unwinds != 1 {
        return differs("panics abort in it, so that none could be contained".to_owned());
    }
    Ok(())
}
