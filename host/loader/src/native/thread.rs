//! A thread on which calls are made for others, who wait for them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};

/// The thread; it ends with this.
pub(super) struct Thread {
    calls: Option<SyncSender<Call>>,
    handle: Option<JoinHandle<()>>,
    id: ThreadId,
}

/// A call that somebody waits for.
struct Call {
    call: *mut dyn FnMut(),
    done: *const Done,
}

// SAFETY: whoever sends a call waits until it has been made, so that what it borrows is used by one
// thread at a time and outlives it; what calls borrow must not care which thread that is, as
// `Owner::run` says.
unsafe impl Send for Call {}

/// How a call ended.
#[derive(Default)]
struct Done {
    result: Mutex<Option<thread::Result<()>>>,
    told: Condvar,
}

impl Thread {
    /// Starts it for the plugin with this label.
    pub(super) fn start(label: &str) -> std::io::Result<Self> {
        let (calls, received) = sync_channel(1);
        let handle = thread::Builder::new()
            .name(format!("plugin {label}"))
            .spawn(move || serve(&received))?;
        let id = handle.thread().id();
        Ok(Self { calls: Some(calls), handle: Some(handle), id })
    }

    /// Makes a call on the thread and waits for it; right here if this is the thread.
    pub(super) fn run(&self, call: &mut dyn FnMut()) {
        let calls = self.calls.as_ref().filter(|_| thread::current().id() != self.id);
        let Some(calls) = calls else { return call() };
        let done = Done::default();
        // SAFETY: only the lifetime goes: this function returns after the call has been made.
        let erased = unsafe {
            std::mem::transmute::<*mut (dyn FnMut() + '_), *mut (dyn FnMut() + 'static)>(call)
        };
        let sent = calls.send(Call { call: erased, done: &raw const done });
        assert!(sent.is_ok(), "the thread lives as long as whoever sends to it");
        let mut result = done.result.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match result.take() {
                None => result = done.told.wait(result).unwrap_or_else(PoisonError::into_inner),
                Some(Ok(())) => return,
                Some(Err(payload)) => {
                    drop(result);
                    resume_unwind(payload);
                }
            }
        }
    }

    /// Lets it end, with all of its thread-locals; not from itself.
    pub(super) fn end(&mut self) -> bool {
        if thread::current().id() == self.id {
            return false;
        }
        self.calls = None;
        self.handle.take().is_none_or(|handle| handle.join().is_ok())
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn serve(calls: &Receiver<Call>) {
    for Call { call, done } in calls {
        // SAFETY: whoever sent them waits, and nobody else uses the call.
        let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*call)() }));
        // SAFETY: as above; the lock is held until the last use of what is behind it.
        let done = unsafe { &*done };
        let mut place = done.result.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Some(result);
        done.told.notify_one();
    }
}
