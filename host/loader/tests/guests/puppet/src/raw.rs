//! A table written by hand, whose functions answer what a shim never would.

#![allow(unsafe_code, reason = "what crosses a library boundary is pointers")]

use std::ffi::c_void;

use plugin_api::native::abi::host::HostV1;
use plugin_api::native::abi::logits_processor::{BatchChangeV1, LogitsProcessorV1, RowsV1};
use plugin_api::native::abi::{Code, Entry, FAILED, OK, Open, Opened, Out};
use plugin_api::native::entry_of;

use crate::mode;

#[unsafe(link_section = ".jackfield.manifest")]
static MANIFEST: [u8; include_bytes!("../plugin.toml").len()] = *include_bytes!("../plugin.toml");

#[unsafe(export_name = "plugin_entry_plugin_puppet")]
static ENTRY: Entry = entry_of::<dyn plugin_api::LogitsProcessor>(&MANIFEST, open);

static TABLE: LogitsProcessorV1 = LogitsProcessorV1 {
    size: size_of::<LogitsProcessorV1>() as u32,
    open: lend,
    batch,
    need,
    is_argmax_invariant,
    apply,
    close,
};

/// What the mode, as `answer@function`, answers for `function`.
fn answer(function: &str, out: *const Out) -> Code {
    let mode = mode();
    match mode.split_once('@') {
        // No code that there is.
        Some(("code", at)) if at == function => 9,
        // An error that cannot be read.
        Some(("garbage", at)) if at == function => {
            // SAFETY: the host's, for this call.
            unsafe { ((*out).write)((*out).to, (&[0xFF_u8; 33][..]).into()) };
            FAILED
        }
        _ => OK,
    }
}

unsafe extern "C" fn open(_: *const Open<'_>, opened: *mut Opened, out: *const Out) -> Code {
    let table = if mode() == "null@open" { std::ptr::null() } else { (&raw const TABLE).cast() };
    // SAFETY: the host's, for this call.
    unsafe { *opened = Opened { this: std::ptr::null_mut(), table } };
    answer("open", out)
}

unsafe extern "C" fn lend(_: *mut c_void, _: *const HostV1, out: *const Out) -> Code {
    answer("lend", out)
}

unsafe extern "C" fn batch(_: *mut c_void, _: *const BatchChangeV1<'_>, out: *const Out) -> Code {
    answer("batch", out)
}

unsafe extern "C" fn need(_: *mut c_void, need: *mut u32, out: *const Out) -> Code {
    // SAFETY: the host's, for this call.
    unsafe { *need = if mode() == "wild@need" { 77 } else { 0 } };
    answer("need", out)
}

unsafe extern "C" fn is_argmax_invariant(_: *mut c_void, yes: *mut u8, out: *const Out) -> Code {
    // SAFETY: the host's, for this call.
    unsafe { *yes = if mode() == "wild@argmax" { 7 } else { 0 } };
    answer("argmax", out)
}

unsafe extern "C" fn apply(_: *mut c_void, _: *const RowsV1, out: *const Out) -> Code {
    answer("apply", out)
}

unsafe extern "C" fn close(_: *mut c_void, out: *const Out) -> Code {
    answer("close", out)
}
