//! Memory that calls reuse without a lock.

use std::sync::atomic::{AtomicPtr, Ordering};

/// A value that one call takes and puts back; whoever comes meanwhile makes one of its own.
pub(super) struct Cached<T: Send> {
    /// Null while it is taken.
    place: AtomicPtr<T>,
}

impl<T: Default + Send> Cached<T> {
    pub(super) fn new() -> Self {
        Self { place: AtomicPtr::default() }
    }

    /// The value that was put back last, or a new one.
    pub(super) fn take(&self) -> Box<T> {
        let value = self.place.swap(std::ptr::null_mut(), Ordering::Acquire);
        if value.is_null() {
            return Box::default();
        }
        // SAFETY: `put` made it of a box, and nobody else can have taken it.
        unsafe { Box::from_raw(value) }
    }

    /// Keeps a value for the next call.
    pub(super) fn put(&self, value: Box<T>) {
        let before = self.place.swap(Box::into_raw(value), Ordering::AcqRel);
        if !before.is_null() {
            // SAFETY: as in `take`.
            drop(unsafe { Box::from_raw(before) });
        }
    }
}

impl<T: Send> Drop for Cached<T> {
    fn drop(&mut self) {
        let value = *self.place.get_mut();
        if !value.is_null() {
            // SAFETY: as in `take`.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}
