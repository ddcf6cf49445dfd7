//! What stands around every call that crosses the boundary, on the side that is called.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::abi::{Code, FAILED, OK, Out, PANICKED, RSlice};
use crate::error::Result;
use crate::wire::{Wire, put_text};

/// Runs `body`; its error or panic goes to `out` as bytes.
///
/// # Safety
///
/// `out` is valid for the call.
pub(super) unsafe fn guard(out: *const Out, body: impl FnOnce() -> Result<()>) -> Code {
    let mut bytes = Vec::new();
    let code = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return OK,
        Ok(Err(error)) => {
            error.put(&mut bytes);
            FAILED
        }
        Err(payload) => {
            put_text(message_of(&*payload), &mut bytes);
            // Dropping a payload may panic once more.
            let _ = catch_unwind(AssertUnwindSafe(move || drop(payload)));
            PANICKED
        }
    };
    // SAFETY: as for this function.
    unsafe { write(out, &bytes) };
    code
}

/// Appends to an answer.
///
/// # Safety
///
/// `out` is valid for the call.
pub(super) unsafe fn write(out: *const Out, bytes: &[u8]) {
    // SAFETY: the caller's side keeps `out` and what is behind it for the call.
    unsafe { ((*out).write)((*out).to, RSlice::from_slice(bytes)) };
}

/// Appends a value to an answer.
///
/// # Safety
///
/// `out` is valid for the call.
pub(super) unsafe fn answer(out: *const Out, value: &impl Wire) {
    // SAFETY: as for this function.
    unsafe { write(out, &crate::wire::to_bytes(value)) };
}

/// The trait object behind a pointer that [`export`] made.
///
/// # Safety
///
/// `this` came from [`export`] with the same `K` and has not been closed, and no other reference
/// to the instance is in use.
pub(super) unsafe fn instance<'a, K: ?Sized>(this: *mut c_void) -> &'a mut Box<K> {
    // SAFETY: as for this function.
    unsafe { &mut *this.cast::<Box<K>>() }
}

/// The same for kinds whose methods take `&self` and may run at the same time.
///
/// # Safety
///
/// As for [`instance`], but other shared references may be in use.
pub(super) unsafe fn shared<'a, K: ?Sized>(this: *mut c_void) -> &'a K {
    // SAFETY: as for this function.
    unsafe { &*this.cast::<Box<K>>() }
}

/// Gives an instance to the other side, until it closes it.
pub(super) fn export<K: ?Sized>(instance: Box<K>) -> *mut c_void {
    Box::into_raw(Box::new(instance)).cast()
}

/// Ends an instance.
///
/// # Safety
///
/// `this` came from [`export`] with the same `K`; nobody uses it afterwards.
pub(super) unsafe extern "C" fn close<K: ?Sized>(this: *mut c_void, out: *const Out) -> Code {
    // SAFETY: as for this function.
    unsafe {
        guard(out, || {
            drop(Box::from_raw(this.cast::<Box<K>>()));
            Ok(())
        })
    }
}

fn message_of(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic")
}
