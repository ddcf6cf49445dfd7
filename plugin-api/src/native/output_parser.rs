//! Output parsers across the boundary.

use std::ffi::c_void;
use std::sync::Arc;

use super::Owner;
use super::abi::output_parser::OutputParserV1;
use super::abi::{Code, Opened, Out, RSlice, RStr};
use super::call::Remote;
use super::guard::{self, answer as write, guard, instance};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kinds::output_parser::{AnswerId, OutputParser, Piece};
use crate::wire::{from_bytes, marks, take_marks, to_bytes};

type Instance = dyn OutputParser;

static TABLE: OutputParserV1 = OutputParserV1 {
    size: size_of::<OutputParserV1>() as u32,
    open,
    push,
    finish,
    end,
    close: guard::close::<Instance>,
};

pub(super) fn export(parser: Box<Instance>) -> (*mut c_void, *const c_void) {
    (guard::export(parser), (&raw const TABLE).cast())
}

unsafe extern "C" fn open(
    this: *mut c_void,
    answer: u32,
    params: RSlice<'_, u8>,
    out: *const Out,
) -> Code {
    // SAFETY: the host opened this instance here and calls it from one thread at a time; `out` is its
    // own for this call.
    unsafe {
        guard(out, || {
            let params: Config = from_bytes(params.as_slice())?;
            instance::<Instance>(this).open(AnswerId(answer), &params)?;
            guard::write(out, &marks(&params));
            Ok(())
        })
    }
}

unsafe extern "C" fn push(this: *mut c_void, answer: u32, text: RStr<'_>, out: *const Out) -> Code {
    // SAFETY: as in `open`.
    unsafe {
        guard(out, || {
            let mut pieces = Vec::new();
            instance::<Instance>(this).push(AnswerId(answer), text.as_str(), &mut pieces)?;
            write(out, &pieces);
            Ok(())
        })
    }
}

unsafe extern "C" fn finish(this: *mut c_void, answer: u32, out: *const Out) -> Code {
    // SAFETY: as in `open`.
    unsafe {
        guard(out, || {
            let mut pieces = Vec::new();
            instance::<Instance>(this).finish(AnswerId(answer), &mut pieces)?;
            write(out, &pieces);
            Ok(())
        })
    }
}

unsafe extern "C" fn end(this: *mut c_void, answer: u32, out: *const Out) -> Code {
    // SAFETY: as in `open`.
    unsafe {
        guard(out, || {
            instance::<Instance>(this).close(AnswerId(answer));
            Ok(())
        })
    }
}

/// An output parser in another library.
struct Adapter {
    remote: Remote,
    table: &'static OutputParserV1,
    bytes: Vec<u8>,
    /// The error that its owner was told of last.
    blamed: Option<Error>,
}

/// # Safety
///
/// `opened` came from [`export`] of a library that matches and stays mapped.
pub(super) unsafe fn import(opened: Opened, owner: Arc<dyn Owner>) -> Box<Instance> {
    // SAFETY: as for this function.
    let table = unsafe { &*opened.table.cast::<OutputParserV1>() };
    let remote = Remote::new(opened.this, owner);
    Box::new(Adapter { remote, table, bytes: Vec::new(), blamed: None })
}

impl Adapter {
    /// Calls a function that answers with pieces. Whatever fails is the plugin's fault: any text may come.
    fn pieces(
        &mut self,
        out: &mut Vec<Piece>,
        function: impl FnOnce(*mut c_void, *const Out) -> Code,
    ) -> Result<()> {
        let called = self.remote.call(&mut self.bytes, function);
        called.inspect_err(|error| self.remote.blame(error, &mut self.blamed))?;
        out.append(&mut self.remote.judged(from_bytes(&self.bytes))?);
        Ok(())
    }
}

impl OutputParser for Adapter {
    fn open(&mut self, answer: AnswerId, params: &Config) -> Result<()> {
        let (table, bytes) = (self.table, to_bytes(params));
        self.remote.call(&mut self.bytes, |this, out| {
            // SAFETY: the table belongs to the instance; all pointers live until the call ends.
            unsafe { (table.open)(this, answer.0, bytes[..].into(), out) }
        })?;
        take_marks(params, &self.bytes);
        Ok(())
    }

    fn push(&mut self, answer: AnswerId, text: &str, out: &mut Vec<Piece>) -> Result<()> {
        let table = self.table;
        // SAFETY: as in `open`.
        self.pieces(out, |this, to| unsafe { (table.push)(this, answer.0, text.into(), to) })
    }

    fn finish(&mut self, answer: AnswerId, out: &mut Vec<Piece>) -> Result<()> {
        let table = self.table;
        // SAFETY: as in `open`.
        self.pieces(out, |this, to| unsafe { (table.finish)(this, answer.0, to) })
    }

    fn close(&mut self, answer: AnswerId) {
        let table = self.table;
        // SAFETY: as in `open`.
        self.remote.tell(|this, out| unsafe { (table.end)(this, answer.0, out) });
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let table = self.table;
        // SAFETY: the instance is closed once, here.
        self.remote.tell(|this, out| unsafe { (table.close)(this, out) });
    }
}

crate::wire::wire_enum!(Piece, "piece of an answer",
    0 => Content { 0: text },
    1 => Reasoning { 0: text },
    2 => ToolCall { index: index, name: name },
    3 => Arguments { index: index, text: text },
);
