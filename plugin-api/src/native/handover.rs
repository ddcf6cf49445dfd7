//! Carrying a state into another generation, across the boundary: what caches and schedulers share.

use std::ffi::c_void;

use super::abi::handover::HandoverV1;
use super::abi::{Code, Out, RSlice};
use super::call::Remote;
use super::guard::{guard, instance, write};
use crate::error::{Error, Result};
use crate::kinds::Handover;

/// What is exported of a kind that may hand over.
pub(super) trait HandsOver {
    /// What the plugin offers.
    fn handover(&mut self) -> Option<&mut dyn Handover>;
}

/// The functions for what is exported as an `E`.
pub(super) const fn table<E: HandsOver>() -> HandoverV1 {
    HandoverV1 { is_offered: is_offered::<E>, save: save::<E>, restore: restore::<E> }
}

unsafe extern "C" fn is_offered<E: HandsOver>(
    this: *mut c_void,
    answer: *mut u8,
    out: *const Out,
) -> Code {
    // SAFETY: the host opened this instance as an `E`, and calls it from one thread at a time; the
    // answer and `out` are its own, for this call.
    unsafe {
        guard(out, || {
            *answer = u8::from(instance::<E>(this).handover().is_some());
            Ok(())
        })
    }
}

unsafe extern "C" fn save<E: HandsOver>(this: *mut c_void, out: *const Out) -> Code {
    // SAFETY: as in `is_offered`.
    unsafe {
        guard(out, || {
            let mut state = Vec::new();
            instance::<E>(this).handover().ok_or_else(no_handover)?.save(&mut state)?;
            write(out, &state);
            Ok(())
        })
    }
}

unsafe extern "C" fn restore<E: HandsOver>(
    this: *mut c_void,
    state: RSlice<'_, u8>,
    out: *const Out,
) -> Code {
    // SAFETY: as in `is_offered`.
    unsafe {
        guard(out, || {
            let handover = instance::<E>(this).handover().ok_or_else(no_handover)?;
            handover.restore(state.as_slice())
        })
    }
}

fn no_handover() -> Error {
    Error::unsupported("handover", "this plugin passes nothing on")
}

/// The functions of a plugin in another library, on the host's side.
#[derive(Clone, Copy)]
pub(super) struct RemoteHandover<'a> {
    pub(super) remote: &'a Remote,
    pub(super) table: &'a HandoverV1,
}

impl RemoteHandover<'_> {
    /// Whether the others can be called.
    pub(super) fn is_offered(self) -> bool {
        let mut answer = 0;
        let to = &raw mut answer;
        let call = |this, out| {
            // SAFETY: the table belongs to the instance; all pointers live until the call ends.
            unsafe { (self.table.is_offered)(this, to, out) }
        };
        self.remote.tell(call) && answer == 1
    }

    /// As [`Handover::save`].
    pub(super) fn save(self, out: &mut Vec<u8>) -> Result<()> {
        let mut state = Vec::new();
        // SAFETY: as in `is_offered`.
        self.remote.call(&mut state, |this, to| unsafe { (self.table.save)(this, to) })?;
        out.append(&mut state);
        Ok(())
    }

    /// As [`Handover::restore`].
    pub(super) fn restore(self, state: &[u8]) -> Result<()> {
        self.remote.call(&mut Vec::new(), |this, out| {
            // SAFETY: as in `is_offered`.
            unsafe { (self.table.restore)(this, state.into(), out) }
        })
    }
}
