//! Logits processors across the boundary.

use std::ffi::c_void;
use std::sync::Arc;

use super::abi::host::HostV1;
use super::abi::logits_processor::{BatchChangeV1, LogitsProcessorV1, RowsV1};
use super::abi::{Code, Opened, Out, RSlice};
use super::call::Remote;
use super::guard::{self, guard, instance};
use super::host::{Lender, Lent};
use super::{Owner, rows};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::kinds::logits_processor::{BatchChange, LogitsProcessor, LogitsRows, Need, RowId};
use crate::wire::{Wire, from_bytes, marks, take_marks};

type Instance = dyn LogitsProcessor;

/// A processor with the lists that rows answer into, which are kept from call to call.
struct Exported {
    processor: Box<Instance>,
    top: rows::Top,
}

static TABLE: LogitsProcessorV1 = LogitsProcessorV1 {
    size: size_of::<LogitsProcessorV1>() as u32,
    open,
    batch,
    need,
    is_argmax_invariant,
    apply,
    close: guard::close::<Exported>,
};

/// In the order of their codes.
const NEEDS: [Need; 5] = [Need::Nothing, Need::Max, Need::Top, Need::Ids, Need::All];

pub(super) fn export(processor: Box<Instance>) -> (*mut c_void, *const c_void) {
    let exported = Exported { processor, top: rows::Top::default() };
    (guard::export(Box::new(exported)), (&raw const TABLE).cast())
}

unsafe extern "C" fn open(this: *mut c_void, host: *const HostV1, out: *const Out) -> Code {
    // SAFETY: the host opened this instance here, calls it from one thread at a time, and lends its
    // services and `out` for the call.
    unsafe {
        guard(out, || {
            let processor = &mut instance::<Exported>(this).processor;
            Lent::default().with(host, |host| processor.open(host))
        })
    }
}

unsafe extern "C" fn batch(
    this: *mut c_void,
    change: *const BatchChangeV1<'_>,
    out: *const Out,
) -> Code {
    let body = || {
        // SAFETY: the host opened this instance here, calls it from one thread at a time, and
        // lends `change` for the call.
        let (exported, change) = unsafe { (instance::<Exported>(this), &*change) };
        let processor = &mut exported.processor;
        let (row, other) = (RowId(change.row), change.other);
        let history = change.history.as_slice();
        match change.change {
            0 => {
                let params: Config = from_bytes(change.params.as_slice())?;
                processor.batch(&BatchChange::Added { row, params: &params, history })?;
                // SAFETY: `out` is the host's, for this call.
                unsafe { guard::write(out, &marks(&params)) };
                Ok(())
            }
            1 => processor.batch(&BatchChange::Advanced { row, token: other }),
            2 => processor.batch(&BatchChange::RolledBack { row, history }),
            3 => processor.batch(&BatchChange::Forked { parent: RowId(other), child: row }),
            4 => processor.batch(&BatchChange::Removed { row }),
            other => Err(Error::malformed("change of the batch", "0 to 4", other)),
        }
    };
    // SAFETY: `out` is the host's, for this call.
    unsafe { guard(out, body) }
}

unsafe extern "C" fn need(this: *mut c_void, need: *mut u32, out: *const Out) -> Code {
    let body = || {
        // SAFETY: as in `batch`; `need` is lent for the call.
        let (exported, answer) = unsafe { (instance::<Exported>(this), &mut *need) };
        let need = exported.processor.need();
        *answer = NEEDS.iter().position(|&x| x == need).unwrap_or(0) as u32;
        Ok(())
    };
    // SAFETY: `out` is the host's, for this call.
    unsafe { guard(out, body) }
}

unsafe extern "C" fn is_argmax_invariant(
    this: *mut c_void,
    answer: *mut u8,
    out: *const Out,
) -> Code {
    // SAFETY: as in `need`.
    unsafe {
        guard(out, || {
            *answer = u8::from(instance::<Exported>(this).processor.is_argmax_invariant());
            Ok(())
        })
    }
}

unsafe extern "C" fn apply(this: *mut c_void, lent: *const RowsV1, out: *const Out) -> Code {
    let body = || {
        // SAFETY: as in `batch`; the rows are lent for the call.
        let (exported, lent) = unsafe { (instance::<Exported>(this), &*lent) };
        let Exported { processor, top } = &mut **exported;
        processor.apply(&mut LogitsRows::new(&mut rows::Lent::new(lent, top)))
    };
    // SAFETY: `out` is the host's, for this call.
    unsafe { guard(out, body) }
}

/// A logits processor in another library.
struct Adapter {
    remote: Remote,
    table: &'static LogitsProcessorV1,
    is_argmax_invariant: bool,
    need: Need,
    bytes: Vec<u8>,
}

/// # Safety
///
/// `opened` came from [`export`] of a library that matches and stays mapped.
pub(super) unsafe fn import(opened: Opened, owner: Arc<dyn Owner>) -> Box<Instance> {
    // SAFETY: as for this function.
    let table = unsafe { &*opened.table.cast::<LogitsProcessorV1>() };
    let remote = Remote::new(opened.this, owner);
    // Neither answer changes during an instance's life: asked once, they cost nothing in a step.
    let (mut need, mut invariant) = (0, 0);
    // SAFETY: the table belongs to the instance; the answers live until the calls end.
    remote.tell(|this, out| unsafe { (table.need)(this, &raw mut need, out) });
    // SAFETY: as above.
    remote.tell(|this, out| unsafe { (table.is_argmax_invariant)(this, &raw mut invariant, out) });
    let need = NEEDS.get(need as usize).copied().unwrap_or(Need::All);
    let is_argmax_invariant = invariant == 1;
    Box::new(Adapter { remote, table, is_argmax_invariant, need, bytes: Vec::new() })
}

impl LogitsProcessor for Adapter {
    fn open(&mut self, host: &Host) -> Result<()> {
        let (table, lender) = (self.table, Lender::new(host));
        let host = lender.lend();
        self.remote.call(&mut self.bytes, |this, out| {
            // SAFETY: the table belongs to the instance; the services live until the call ends.
            unsafe { (table.open)(this, &raw const host, out) }
        })
    }

    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()> {
        let (mut params_bytes, mut params_here) = (Vec::new(), None);
        let none: &[u32] = &[];
        let (code, row, other, history) = match *change {
            BatchChange::Added { row, params, history } => {
                params.put(&mut params_bytes);
                params_here = Some(params);
                (0, row, 0, history)
            }
            BatchChange::Advanced { row, token } => (1, row, token, none),
            BatchChange::RolledBack { row, history } => (2, row, 0, history),
            BatchChange::Forked { parent, child } => (3, child, parent.0, none),
            BatchChange::Removed { row } => (4, row, 0, none),
        };
        let there = BatchChangeV1 {
            change: code,
            row: row.0,
            other,
            params: RSlice::from_slice(&params_bytes),
            history: RSlice::from_slice(history),
        };
        let table = self.table;
        self.remote.call(&mut self.bytes, |this, out| {
            // SAFETY: the table belongs to the instance; all pointers live until the call ends.
            unsafe { (table.batch)(this, &raw const there, out) }
        })?;
        if let Some(params) = params_here {
            take_marks(params, &self.bytes);
        }
        Ok(())
    }

    fn need(&self) -> Need {
        self.need
    }

    fn apply(&mut self, logits: &mut LogitsRows<'_>) -> Result<()> {
        let table = self.table;
        let mut lender = rows::Lender::new(logits.access());
        let lent = lender.lend();
        self.remote.call(&mut self.bytes, |this, out| {
            // SAFETY: the table belongs to the instance; the rows are lent until the call ends.
            unsafe { (table.apply)(this, &raw const lent, out) }
        })
    }

    fn is_argmax_invariant(&self) -> bool {
        self.is_argmax_invariant
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let table = self.table;
        // SAFETY: the instance is closed once, here.
        self.remote.tell(|this, out| unsafe { (table.close)(this, out) });
    }
}
