//! Libraries that are unmapped once nothing of them is left.
//!
//! What keeps a Rust library mapped, or crashes after it is gone, are thread-locals and thread keys
//! of threads that have run its code. So all of its code runs on one thread, which ends first. What
//! cannot be made sure of beforehand is looked up afterwards: a library counts as unmapped when the
//! system says so.

use std::ffi::{c_int, c_uint, c_void};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use libloading::os::unix::Library;

use super::MAPPED;
use super::thread::Thread;
use crate::owner::Generation;

/// What became of a library that was to be unloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It is not mapped any more.
    Unloaded,
    /// It stays mapped for this reason.
    Stays(String),
}

/// An open library, until the last instance and whoever could make one are gone.
pub(crate) struct Mapping {
    generation: Arc<Generation>,
    thread: Thread,
    library: Mutex<Option<Library>>,
    /// Name of the copy that is mapped; no other copy ever has it.
    name: String,
    /// The first free thread key before the library was opened.
    key: Option<c_uint>,
}

impl Mapping {
    /// For the library at `path`, to be opened with [`run`](Self::run).
    pub(crate) fn new(generation: Arc<Generation>, path: &Path) -> std::io::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let thread = Thread::start(generation.label())?;
        Ok(Self { generation, thread, library: Mutex::default(), name, key: free_key() })
    }

    /// Makes a call that runs code of the library.
    pub(crate) fn run(&self, call: &mut dyn FnMut()) {
        self.thread.run(call);
    }

    /// Takes the handle of the library.
    pub(super) fn hold(&self, library: Library) {
        *self.library.lock().unwrap_or_else(PoisonError::into_inner) = Some(library);
    }

    fn end(&mut self, library: Library) -> Fate {
        let keep = |library: Library, reason: &str| {
            // The handle is given up, the mapping stays.
            let _ = library.into_raw();
            Fate::Stays(reason.to_owned())
        };
        if !self.thread.end() {
            return keep(library, "its last instance ended in a call of its own");
        }
        if free_key() != self.key {
            return keep(library, "a thread key is left, whose destructor may lie in it");
        }
        if let Err(error) = library.close() {
            return Fate::Stays(format!("the linker keeps it: {error}"));
        }
        match std::fs::read_to_string("/proc/self/maps") {
            Ok(maps) if !maps.contains(&self.name) => Fate::Unloaded,
            Ok(_) => Fate::Stays("the linker keeps it, without saying why".to_owned()),
            Err(error) => Fate::Stays(format!("that it is gone cannot be seen: {error}")),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let library = self.library.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(library) = library else { return };
        let fate = self.end(library);
        if fate == Fate::Unloaded {
            MAPPED.fetch_sub(1, Ordering::Relaxed);
        }
        self.generation.decide(fate);
    }
}

unsafe extern "C" {
    fn pthread_key_create(
        key: *mut c_uint,
        destructor: Option<unsafe extern "C" fn(*mut c_void)>,
    ) -> c_int;
    fn pthread_key_delete(key: c_uint) -> c_int;
}

/// The key that the next one to ask would get. Keys are given out from the first free one on, and a
/// library that asked for one never gives it back: then another is free than before.
fn free_key() -> Option<c_uint> {
    let mut key = 0;
    // SAFETY: the key is written here, has no destructor, and is given back at once.
    unsafe {
        if pthread_key_create(&raw mut key, None) != 0 {
            return None;
        }
        pthread_key_delete(key);
    }
    Some(key)
}
