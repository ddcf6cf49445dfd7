//! Schedulers across the boundary.

use std::ffi::c_void;
use std::sync::Arc;

use super::Owner;
use super::abi::scheduler::{LimitsV1, PickedOutV1, SchedulerV1, WaitingV1};
use super::abi::{Code, Opened, Out, RSlice};
use super::call::Remote;
use super::guard::{self, guard, instance};
use super::handover::{self, HandsOver, RemoteHandover};
use crate::error::{Error, Result};
use crate::kinds::Handover;
use crate::kinds::kv_cache::SeqId;
use crate::kinds::scheduler::{Limits, Picked, Scheduler, Waiting};

type Instance = dyn Scheduler;

/// A scheduler with the lists that it reads and fills, which are kept from call to call.
struct Exported {
    scheduler: Box<Instance>,
    queue: Vec<Waiting>,
    picked: Vec<Picked>,
}

static TABLE: SchedulerV1 = SchedulerV1 {
    size: size_of::<SchedulerV1>() as u32,
    pick,
    handover: handover::table::<Exported>(),
    close: guard::close::<Exported>,
};

pub(super) fn export(scheduler: Box<Instance>) -> (*mut c_void, *const c_void) {
    let exported = Exported { scheduler, queue: Vec::new(), picked: Vec::new() };
    (guard::export(Box::new(exported)), (&raw const TABLE).cast())
}

unsafe extern "C" fn pick(
    this: *mut c_void,
    queue: RSlice<'_, WaitingV1>,
    limits: LimitsV1,
    picked: PickedOutV1,
    out: *const Out,
) -> Code {
    let body = || {
        let waiting = |w: &WaitingV1| Waiting {
            seq: SeqId(w.seq),
            pending: w.pending as usize,
            is_running: w.is_running != 0,
            is_atomic: w.is_atomic != 0,
            priority: w.priority,
        };
        let limits = Limits { tokens: limits.tokens as usize, seqs: limits.seqs as usize };
        // SAFETY: the host opened this instance here and calls it from one thread at a time.
        let exported = unsafe { &mut **instance::<Exported>(this) };
        let Exported { scheduler, queue: here, picked: chosen } = exported;
        here.clear();
        here.extend(queue.as_slice().iter().map(waiting));
        chosen.clear();
        scheduler.pick(here, &limits, chosen)?;
        for Picked { index, tokens } in &*chosen {
            // SAFETY: `picked` is the host's, for this call.
            unsafe { (picked.push)(picked.to, *index as u64, *tokens as u64) };
        }
        Ok(())
    };
    // SAFETY: `out` is the host's, for this call.
    unsafe { guard(out, body) }
}

impl HandsOver for Exported {
    fn handover(&mut self) -> Option<&mut dyn Handover> {
        self.scheduler.handover()
    }
}

/// A scheduler in another library.
struct Adapter {
    remote: Remote,
    table: &'static SchedulerV1,
    queue: Vec<WaitingV1>,
    bytes: Vec<u8>,
    /// The error that its owner was told of last.
    blamed: Option<Error>,
}

/// # Safety
///
/// `opened` came from [`export`] of a library that matches and stays mapped.
pub(super) unsafe fn import(opened: Opened, owner: Arc<dyn Owner>) -> Box<Instance> {
    // SAFETY: as for this function.
    let table = unsafe { &*opened.table.cast::<SchedulerV1>() };
    let remote = Remote::new(opened.this, owner);
    Box::new(Adapter { remote, table, queue: Vec::new(), bytes: Vec::new(), blamed: None })
}

impl Scheduler for Adapter {
    fn pick(&mut self, queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) -> Result<()> {
        unsafe extern "C" fn push(to: *mut c_void, index: u64, tokens: u64) {
            let picked = Picked { index: index as usize, tokens: tokens as usize };
            // SAFETY: `to` is the vector below, for the call that this is part of.
            unsafe { (*to.cast::<Vec<Picked>>()).push(picked) };
        }
        self.queue.clear();
        self.queue.extend(queue.iter().map(|w| WaitingV1 {
            pending: w.pending as u64,
            seq: w.seq.0,
            priority: w.priority,
            is_running: u8::from(w.is_running),
            is_atomic: u8::from(w.is_atomic),
        }));
        let mine = LimitsV1 { tokens: limits.tokens as u64, seqs: limits.seqs as u64 };
        let before = out.len();
        let picked = PickedOutV1 { to: std::ptr::from_mut(out).cast(), push };
        let (table, queue_there) = (self.table, self.queue.as_slice());
        let called = self.remote.call(&mut self.bytes, |this, to| {
            // SAFETY: the table belongs to the instance; all pointers live until the call ends.
            unsafe { (table.pick)(this, queue_there.into(), mine, picked, to) }
        });
        called.inspect_err(|error| {
            out.truncate(before);
            // The host asks for nothing that could be wrong: whatever fails is the plugin's fault.
            self.remote.blame(error, &mut self.blamed);
        })
    }

    fn handover(&mut self) -> Option<&mut dyn Handover> {
        if self.remotely().is_offered() { Some(self) } else { None }
    }
}

impl Adapter {
    fn remotely(&self) -> RemoteHandover<'_> {
        RemoteHandover { remote: &self.remote, table: &self.table.handover }
    }
}

impl Handover for Adapter {
    fn save(&self, out: &mut Vec<u8>) -> Result<()> {
        self.remotely().save(out)
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        self.remotely().restore(state)
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let table = self.table;
        // SAFETY: the instance is closed once, here.
        self.remote.tell(|this, out| unsafe { (table.close)(this, out) });
    }
}
