//! Lending something to a guest for the time of one call.
//!
//! A store's data outlives every call, so what is lent lies there as a bare pointer. [`Lending`]
//! puts it there and takes it away again, however the call ends.

#![allow(unsafe_code, reason = "lends for the time of a call")]

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use plugin_api::kinds::logits_processor::RowAccess;
use plugin_api::kinds::model_source::Progress;
use plugin_api::plan::{OpSink, Val};
use wasmtime::Store;

use super::state::State;

/// What may be lent.
#[derive(Default)]
pub(super) enum Lent {
    /// Nothing: the guest is not in a call that lends.
    #[default]
    Nothing,
    /// The rows of a step.
    Rows(LentPtr<dyn RowAccess>),
    /// The place where a trace describes itself, with the values that the guest may name.
    Sink(LentPtr<dyn OpSink>, Vec<Val>),
    /// Whoever waits for a fetch.
    Progress(LentPtr<Tell>),
}

/// Is told how far a fetch is.
pub(super) type Tell = dyn for<'a> FnMut(Progress<'a>);

/// A pointer that is only followed between [`Lending`]'s start and end.
pub(super) struct LentPtr<T: ?Sized>(NonNull<T>);

// SAFETY: the pointer is there only while `Lending` borrows the store, and the store, with the
// pointer in it, does not leave the thread of that call.
unsafe impl<T: ?Sized> Send for LentPtr<T> {}

impl<T: ?Sized> LentPtr<T> {
    /// What is lent.
    ///
    /// # Safety
    ///
    /// The lending that made this pointer has not ended, and no other reference made here is alive.
    pub(super) unsafe fn get(&mut self) -> &mut T {
        // SAFETY: `lend_rows` and `lend_sink` made the pointer from a unique reference that lives
        // as long as the lending; that it has not ended is the caller's promise.
        unsafe { self.0.as_mut() }
    }
}

/// A store with something lent to its guest. The unique reference is held as long as the lending.
pub(super) struct Lending<'a> {
    store: &'a mut Store<State>,
}

impl<'a> Lending<'a> {
    pub(super) fn rows(store: &'a mut Store<State>, rows: &'a mut dyn RowAccess) -> Self {
        // SAFETY: only the lifetime changes. `Drop` takes the pointer away before `'a` ends:
        // `Instance::call` drops every lending, a panic included, and nothing else makes one.
        let rows = unsafe {
            std::mem::transmute::<NonNull<dyn RowAccess + '_>, NonNull<dyn RowAccess>>(
                NonNull::from(rows),
            )
        };
        store.data_mut().lent = Lent::Rows(LentPtr(rows));
        Self { store }
    }

    pub(super) fn sink(
        store: &'a mut Store<State>,
        sink: &'a mut dyn OpSink,
        given: &[Val],
    ) -> Self {
        // SAFETY: as in `rows`.
        let sink = unsafe {
            std::mem::transmute::<NonNull<dyn OpSink + '_>, NonNull<dyn OpSink>>(NonNull::from(
                sink,
            ))
        };
        store.data_mut().lent = Lent::Sink(LentPtr(sink), given.to_vec());
        Self { store }
    }
}

impl<'a> Lending<'a> {
    pub(super) fn progress(
        store: &'a mut Store<State>,
        tell: &'a mut (dyn for<'b> FnMut(Progress<'b>) + 'a),
    ) -> Self {
        // SAFETY: as in `rows`.
        let tell = unsafe {
            std::mem::transmute::<
                NonNull<dyn for<'b> FnMut(Progress<'b>) + '_>,
                NonNull<dyn for<'b> FnMut(Progress<'b>)>,
            >(NonNull::from(tell))
        };
        store.data_mut().lent = Lent::Progress(LentPtr(tell));
        Self { store }
    }
}

impl Deref for Lending<'_> {
    type Target = Store<State>;

    fn deref(&self) -> &Store<State> {
        self.store
    }
}

impl DerefMut for Lending<'_> {
    fn deref_mut(&mut self) -> &mut Store<State> {
        self.store
    }
}

impl Drop for Lending<'_> {
    fn drop(&mut self) {
        self.store.data_mut().lent = Lent::Nothing;
    }
}
