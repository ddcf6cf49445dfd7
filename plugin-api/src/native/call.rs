//! What stands around every call that crosses the boundary, on the side that calls.

use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Owner;
use super::abi::{Code, FAILED, OK, Out, PANICKED, RSlice};
use crate::error::{Error, Result};
use crate::wire::{Reader, Wire, from_bytes};

/// Collects what a call writes.
///
/// The memory stays where a call cannot reach it again: only its address is lent.
pub(super) struct Answer<'a> {
    bytes: &'a mut Vec<u8>,
}

impl<'a> Answer<'a> {
    /// Collects into `bytes`, which keeps its memory from call to call.
    pub(super) fn into(bytes: &'a mut Vec<u8>) -> Self {
        bytes.clear();
        Self { bytes }
    }

    /// What the other side writes to.
    pub(super) fn out(&mut self) -> Out {
        unsafe extern "C" fn write(to: *mut c_void, bytes: RSlice<'_, u8>) {
            // SAFETY: `to` is the vector behind `out`, lent for the call that this is part of.
            unsafe { (*to.cast::<Vec<u8>>()).extend_from_slice(bytes.as_slice()) };
        }
        Out { to: std::ptr::from_mut(self.bytes).cast(), write }
    }
}

/// A foreign instance: pointer, owner, and whether it may still be called.
pub(super) struct Remote {
    pub(super) this: *mut c_void,
    owner: Arc<dyn Owner>,
    /// Set by the first panic: what the instance holds cannot be trusted afterwards.
    has_panicked: AtomicBool,
}

// SAFETY: the pointer is to an instance of a kind whose trait is `Send`; adapters of kinds that
// are `Sync` as well share it, others do not.
unsafe impl Send for Remote {}
// SAFETY: as above.
unsafe impl Sync for Remote {}

impl Remote {
    pub(super) fn new(this: *mut c_void, owner: Arc<dyn Owner>) -> Self {
        Self { this, owner, has_panicked: AtomicBool::new(false) }
    }

    /// Calls a function of the table; whatever it wrote is in `bytes` if it succeeded.
    pub(super) fn call(
        &self,
        bytes: &mut Vec<u8>,
        function: impl FnOnce(*mut c_void, *const Out) -> Code,
    ) -> Result<()> {
        if self.has_panicked.load(Ordering::Relaxed) {
            return Err(self.error("an earlier call panicked: it has to be replaced"));
        }
        let mut answer = Answer::into(bytes);
        let out = answer.out();
        let (mut function, mut code) = (Some(function), PANICKED);
        self.owner.run(&mut || {
            if let Some(function) = function.take() {
                code = function(self.this, &raw const out);
            }
        });
        if code == OK { Ok(()) } else { Err(self.failure(code, bytes)) }
    }

    /// A call whose answer is one value.
    pub(super) fn ask<T: Wire>(
        &self,
        function: impl FnOnce(*mut c_void, *const Out) -> Code,
    ) -> Result<T> {
        let mut bytes = Vec::new();
        self.call(&mut bytes, function)?;
        self.judged(from_bytes(&bytes))
    }

    /// A call that answers nothing and is told of no mistake: a panic goes to the owner.
    pub(super) fn tell(&self, function: impl FnOnce(*mut c_void, *const Out) -> Code) -> bool {
        self.call(&mut Vec::new(), function).is_ok()
    }

    /// Passes on what was found of an answer; a mistake goes to the owner too.
    pub(super) fn judged<T>(&self, found: Result<T>) -> Result<T> {
        found.inspect_err(|error| self.owner.fault(error))
    }

    /// Tells the owner of an error that nobody but the plugin is to blame for, unless it is the one
    /// in `told`. Panics and garbage were told when they were met.
    #[cold]
    pub(super) fn blame(&self, error: &Error, told: &mut Option<Error>) {
        if !self.has_panicked.load(Ordering::Relaxed) && told.as_ref() != Some(error) {
            self.owner.fault(error);
            *told = Some(error.clone());
        }
    }

    /// The mistake of a plugin that its trait has no error for.
    pub(super) fn error(&self, message: &str) -> Error {
        Error::outside(self.owner.label(), message)
    }

    #[cold]
    fn failure(&self, code: Code, bytes: &[u8]) -> Error {
        let error = error_of(code, bytes, &self.owner.label());
        // An error that cannot be read is garbage as any other answer is.
        if code != FAILED || from_bytes::<Error>(bytes).is_err() {
            self.has_panicked.store(true, Ordering::Relaxed);
            self.owner.fault(&error);
        }
        error
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.owner.label())
    }
}

/// The error that a code other than [`OK`] came with.
#[cold]
pub(super) fn error_of(code: Code, bytes: &[u8], who: &str) -> Error {
    let garbled = || Error::outside(who, format!("an error that cannot be read, code {code}"));
    match code {
        FAILED => from_bytes(bytes).unwrap_or_else(|_| garbled()),
        PANICKED => match Reader::new(bytes).text() {
            Ok(message) => Error::outside(who, format!("it panicked: {message}")),
            Err(_) => garbled(),
        },
        _ => garbled(),
    }
}
