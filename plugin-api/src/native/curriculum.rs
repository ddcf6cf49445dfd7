//! Curricula across the boundary.

use std::ffi::c_void;
use std::sync::Arc;

use super::Owner;
use super::abi::curriculum::{ChoiceV1, CurriculumV1, SourceViewV1};
use super::abi::{Code, Opened, Out, RSlice};
use super::call::Remote;
use super::guard::{self, guard, instance};
use super::handover::{self, HandsOver, RemoteHandover};
use crate::error::{Error, Result};
use crate::kinds::Handover;
use crate::kinds::curriculum::{Choice, Curriculum, SourceView};

type Instance = dyn Curriculum;

/// A curriculum with the list that it reads, which is kept from call to call.
struct Exported {
    curriculum: Box<Instance>,
    sources: Vec<SourceView>,
}

static TABLE: CurriculumV1 = CurriculumV1 {
    size: size_of::<CurriculumV1>() as u32,
    next,
    handover: handover::table::<Exported>(),
    close: guard::close::<Exported>,
};

pub(super) fn export(curriculum: Box<Instance>) -> (*mut c_void, *const c_void) {
    let exported = Exported { curriculum, sources: Vec::new() };
    (guard::export(Box::new(exported)), (&raw const TABLE).cast())
}

unsafe extern "C" fn next(
    this: *mut c_void,
    sources: RSlice<'_, SourceViewV1>,
    choice: *mut ChoiceV1,
    out: *const Out,
) -> Code {
    let body = || {
        // SAFETY: the host opened this instance here and calls it from one thread at a time.
        let exported = unsafe { &mut **instance::<Exported>(this) };
        let Exported { curriculum, sources: here } = exported;
        here.clear();
        here.extend(sources.as_slice().iter().map(|source| SourceView {
            num_examples: source.num_examples,
            given: source.given,
            next: source.next,
        }));
        let Choice { source, again } = curriculum.next(here)?;
        let chosen = ChoiceV1 {
            source: source as u64,
            again: again.unwrap_or(0),
            is_again: u8::from(again.is_some()),
        };
        // SAFETY: `choice` is the host's, for this call.
        unsafe { choice.write(chosen) };
        Ok(())
    };
    // SAFETY: `out` is the host's, for this call.
    unsafe { guard(out, body) }
}

impl HandsOver for Exported {
    fn handover(&mut self) -> Option<&mut dyn Handover> {
        self.curriculum.handover()
    }
}

/// A curriculum in another library.
struct Adapter {
    remote: Remote,
    table: &'static CurriculumV1,
    sources: Vec<SourceViewV1>,
    bytes: Vec<u8>,
    /// The error that its owner was told of last.
    blamed: Option<Error>,
}

/// # Safety
///
/// `opened` came from [`export`] of a library that matches and stays mapped.
pub(super) unsafe fn import(opened: Opened, owner: Arc<dyn Owner>) -> Box<Instance> {
    // SAFETY: as for this function.
    let table = unsafe { &*opened.table.cast::<CurriculumV1>() };
    let remote = Remote::new(opened.this, owner);
    let (sources, bytes) = (Vec::new(), Vec::new());
    Box::new(Adapter { remote, table, sources, bytes, blamed: None })
}

impl Curriculum for Adapter {
    fn next(&mut self, sources: &[SourceView]) -> Result<Choice> {
        self.sources.clear();
        self.sources.extend(sources.iter().map(|source| SourceViewV1 {
            num_examples: source.num_examples,
            given: source.given,
            next: source.next,
        }));
        let mut choice = ChoiceV1 { source: 0, again: 0, is_again: 0 };
        let (table, theirs, to) = (self.table, self.sources.as_slice(), &raw mut choice);
        let called = self.remote.call(&mut self.bytes, |this, out| {
            // SAFETY: the table belongs to the instance; all pointers live until the call ends.
            unsafe { (table.next)(this, theirs.into(), to, out) }
        });
        // The host asks for nothing that could be wrong: whatever fails is the plugin's fault.
        called.inspect_err(|error| self.remote.blame(error, &mut self.blamed))?;
        let again = (choice.is_again != 0).then_some(choice.again);
        Ok(Choice { source: choice.source as usize, again })
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
