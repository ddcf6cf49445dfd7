//! A closure that takes parts of an answer, lent across the boundary for one call.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::abi::host::PieceV1;
use super::abi::{Code, FAILED, OK, PANICKED, RSlice};
use crate::error::{Error, Result};

/// The side that takes parts. What its closure fails with does not cross: it waits here until the
/// call has come back.
pub(super) struct Taker<'a> {
    take: &'a mut dyn FnMut(&[u8]) -> Result<()>,
    end: Option<End>,
}

enum End {
    Failed(Error),
    Panicked(Box<dyn Any + Send>),
}

impl<'a> Taker<'a> {
    pub(super) fn new(take: &'a mut dyn FnMut(&[u8]) -> Result<()>) -> Self {
        Self { take, end: None }
    }

    /// The closure as a table; valid while `self` is borrowed.
    pub(super) fn lend(&mut self) -> PieceV1 {
        PieceV1 { to: std::ptr::from_mut(self).cast(), take }
    }

    /// What came of the call: the closure's own failure goes before what the other side made of it.
    pub(super) fn finish<T>(self, result: Result<T>) -> Result<T> {
        match self.end {
            None => result,
            Some(End::Failed(error)) => Err(error),
            Some(End::Panicked(payload)) => resume_unwind(payload),
        }
    }
}

unsafe extern "C" fn take(to: *mut c_void, part: RSlice<'_, u8>) -> Code {
    // SAFETY: `to` came from `lend` and its loan has not ended.
    let taker = unsafe { &mut *to.cast::<Taker<'_>>() };
    if taker.end.is_some() {
        return FAILED;
    }
    match catch_unwind(AssertUnwindSafe(|| (taker.take)(part.as_slice()))) {
        Ok(Ok(())) => OK,
        Ok(Err(error)) => {
            taker.end = Some(End::Failed(error));
            FAILED
        }
        Err(payload) => {
            taker.end = Some(End::Panicked(payload));
            PANICKED
        }
    }
}

/// For calls whose answer comes in one part.
pub(super) fn nowhere() -> PieceV1 {
    unsafe extern "C" fn take(_to: *mut c_void, _part: RSlice<'_, u8>) -> Code {
        OK
    }
    PieceV1 { to: std::ptr::null_mut(), take }
}

/// Hands out a part, on the side that has it.
///
/// # Errors
///
/// [`Error::Outside`] if the taker wants no more; it knows itself why.
///
/// # Safety
///
/// `piece` is lent for the call that this is part of.
pub(super) unsafe fn hand_out(piece: PieceV1, part: &[u8]) -> Result<()> {
    // SAFETY: as for this function.
    let code = unsafe { (piece.take)(piece.to, part.into()) };
    if code == OK { Ok(()) } else { Err(Error::outside("parts of an answer", "no more wanted")) }
}
