//! Memories across the boundary.

use std::ffi::c_void;
use std::sync::Arc;

use super::Owner;
use super::abi::host::HostV1;
use super::abi::memory::MemoryV1;
use super::abi::{Code, Opened, Out, RSlice, RStr};
use super::call::Remote;
use super::guard::{self, answer, guard, instance};
use super::host::{Lender, Lent};
use crate::error::Result;
use crate::host::Host;
use crate::kinds::memory::{Memory, Message, Passage, Turn};
use crate::wire::{from_bytes, to_bytes, wire_struct};

type Instance = dyn Memory;

static TABLE: MemoryV1 = MemoryV1 {
    size: size_of::<MemoryV1>() as u32,
    recall,
    remember,
    close: guard::close::<Instance>,
};

pub(super) fn export(instance: Box<Instance>) -> (*mut c_void, *const c_void) {
    (guard::export(instance), (&raw const TABLE).cast())
}

unsafe extern "C" fn recall(
    this: *mut c_void,
    turn: RSlice<'_, u8>,
    host: *const HostV1,
    out: *const Out,
) -> Code {
    // SAFETY: the host opened this instance here and calls it from one thread at a time; `out` and the host are
    // lent for the call.
    unsafe {
        guard(out, || {
            let memory = instance::<Instance>(this);
            let turn: Turn = from_bytes(turn.as_slice())?;
            answer(out, &Lent::default().with(host, |host| memory.recall(&turn, host))?);
            Ok(())
        })
    }
}

unsafe extern "C" fn remember(
    this: *mut c_void,
    turn: RSlice<'_, u8>,
    said: RStr<'_>,
    host: *const HostV1,
    out: *const Out,
) -> Code {
    // SAFETY: as in `recall`.
    unsafe {
        guard(out, || {
            let memory = instance::<Instance>(this);
            let (turn, said): (Turn, &str) = (from_bytes(turn.as_slice())?, said.as_str());
            answer(out, &Lent::default().with(host, |host| memory.remember(&turn, said, host))?);
            Ok(())
        })
    }
}

/// A memory in another library.
struct Adapter {
    remote: Remote,
    table: &'static MemoryV1,
}

/// # Safety
///
/// `opened` came from [`export`] of a library that matches and stays mapped.
pub(super) unsafe fn import(opened: Opened, owner: Arc<dyn Owner>) -> Box<Instance> {
    // SAFETY: as for this function.
    let table = unsafe { &*opened.table.cast::<MemoryV1>() };
    Box::new(Adapter { remote: Remote::new(opened.this, owner), table })
}

impl Memory for Adapter {
    fn recall(&mut self, turn: &Turn, host: &Host) -> Result<Vec<Passage>> {
        let (table, lender, turn) = (self.table, Lender::new(host), to_bytes(turn));
        let host = lender.lend();
        self.remote.ask(|this, out| {
            // SAFETY: the table belongs to the instance; all pointers live until the call ends.
            unsafe { (table.recall)(this, turn[..].into(), &raw const host, out) }
        })
    }

    fn remember(&mut self, turn: &Turn, answer: &str, host: &Host) -> Result<Vec<String>> {
        let (table, lender, turn) = (self.table, Lender::new(host), to_bytes(turn));
        let host = lender.lend();
        self.remote.ask(|this, out| {
            // SAFETY: as in `recall`.
            unsafe { (table.remember)(this, turn[..].into(), answer.into(), &raw const host, out) }
        })
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let table = self.table;
        // SAFETY: the instance is closed once, here.
        self.remote.tell(|this, out| unsafe { (table.close)(this, out) });
    }
}

wire_struct!(Message { role, content });
wire_struct!(Turn { session, messages, tokens_max });
wire_struct!(Passage { source, text });
