//! What a plugin holds of the host: of use only while a call from the host is under way.
//!
//! Safe code may keep a handle for longer than the call that lent it, even on another thread. So
//! a call that ends takes the table away again, and waits for services that are still running.

use std::ptr::NonNull;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::native::abi::host::HostV1;

/// A place for the table of the call that is under way.
#[derive(Default)]
pub(super) struct Lease {
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Default)]
struct State {
    table: Option<Table>,
    /// Which call it is: files belong to the one that they were opened in.
    number: u64,
    /// Services that are running.
    running: usize,
}

#[derive(Clone, Copy)]
struct Table(NonNull<HostV1>);

// SAFETY: the host's services may be called from any thread.
unsafe impl Send for Table {}

impl Lease {
    /// Takes a table until the answer is dropped.
    ///
    /// # Safety
    ///
    /// `table` is valid for as long as the answer lives.
    pub(super) unsafe fn begin(&self, table: *const HostV1) -> Loan<'_> {
        let mut state = self.lock();
        state.table = NonNull::new(table.cast_mut()).map(Table);
        state.number += 1;
        Loan { lease: self }
    }

    /// Calls a service through the table; `of` limits it to one call from the host.
    pub(super) fn with<T>(
        &self,
        of: Option<u64>,
        service: impl FnOnce(&HostV1, u64) -> T,
    ) -> Result<T> {
        let (table, number) = {
            let mut state = self.lock();
            let is_over = of.is_some_and(|of| of != state.number);
            let Some(table) = state.table.filter(|_| !is_over) else {
                return Err(Error::outside("host", "lent for the time of one call, which is over"));
            };
            state.running += 1;
            (table, state.number)
        };
        let _running = Running { lease: self };
        // SAFETY: the loan does not end while a service is running.
        Ok(service(unsafe { table.0.as_ref() }, number))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the loan when it is dropped.
pub(super) struct Loan<'a> {
    lease: &'a Lease,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let mut state = self.lease.lock();
        state.table = None;
        while state.running > 0 {
            state = self.lease.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

struct Running<'a> {
    lease: &'a Lease,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.lease.lock().running -= 1;
        self.lease.idle.notify_all();
    }
}
