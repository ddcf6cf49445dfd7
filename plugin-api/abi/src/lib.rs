//! What crosses the boundary of a native plugin: frozen tables, one file for each kind.
//!
//! Tables only, no logic. Authors never see this crate: they implement the safe traits of
//! `plugin-api`, whose `native` room translates. A table that has been released never changes;
//! growth is another table under another interface id. Until the boundary is frozen, host and
//! plugin have to match exactly, which the [`Entry`] says by a digest of these sources.
//!
//! Rules of every function here: pointers are valid for the call only; nobody frees what the other
//! side allocated; answers of unknown size go through [`Out`]; nothing unwinds across.

#![allow(unsafe_code, reason = "the tables are the boundary")]

pub mod backend;
pub mod compressor;
pub mod curriculum;
pub mod decoding_strategy;
pub mod events;
pub mod handover;
pub mod hook;
pub mod host;
pub mod kv_cache;
pub mod logits_processor;
pub mod memory;
pub mod model_source;
pub mod op_sink;
pub mod output_parser;
pub mod prefix_caching;
pub mod quantizer;
pub mod reward;
pub mod scheduler;
pub mod traced;

pub use abi_stable::StableAbi;
pub use abi_stable::std_types::{RSlice, RSliceMut, RStr};
pub use abi_stable::type_layout::TypeLayout;

use std::ffi::c_void;

/// How a call ended.
pub type Code = u32;
/// It did what it should.
pub const OK: Code = 0;
/// It failed; the error is in [`Out`].
pub const FAILED: Code = 1;
/// It panicked; the message is in [`Out`].
pub const PANICKED: Code = 2;

/// Where an answer is written, in as many pieces as the callee likes.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct Out {
    /// Passed back to `write`.
    pub to: *mut c_void,
    /// Appends bytes.
    pub write: unsafe extern "C" fn(to: *mut c_void, bytes: RSlice<'_, u8>),
}

/// The one symbol that a plugin exports, `plugin_entry_<crate>`: data, so that it can be judged
/// before any code of the plugin is called.
#[repr(C)]
pub struct Entry {
    /// [`MAGIC`].
    pub magic: u64,
    /// Bytes of this struct as the plugin was built.
    pub size: u32,
    /// Version of the boundary.
    pub abi_major: u16,
    /// Version of the boundary.
    pub abi_minor: u16,
    /// Digest of the sources of the boundary that the plugin was built with.
    pub digest: [u64; 2],
    /// 1 if panics unwind in this build: others cannot be contained.
    pub unwinds: u8,
    /// The plugin's `plugin.toml`.
    pub manifest: RStr<'static>,
    /// The layout of the table behind an interface id, to compare; null for unknown ids.
    pub layout: unsafe extern "C" fn(interface: RStr<'_>) -> *const TypeLayout,
    /// Makes an instance.
    pub open: unsafe extern "C" fn(
        request: *const Open<'_>,
        opened: *mut Opened,
        out: *const Out,
    ) -> Code,
}

// SAFETY: nothing behind an entry is ever written.
unsafe impl Sync for Entry {}

/// What an instance is to be made of.
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct Open<'a> {
    /// The kind, in kebab-case.
    pub kind: RStr<'a>,
    /// The name of the capability.
    pub name: RStr<'a>,
    /// The plugin's table of the configuration, as bytes.
    pub config: RSlice<'a, u8>,
}

/// An instance; [`Out`] gets the marks of the keys that were read.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct Opened {
    /// Passed back to every function of the table.
    pub this: *mut c_void,
    /// The kind's table; the plugin keeps it for as long as it is mapped.
    pub table: *const c_void,
}

/// The first bytes of every [`Entry`].
pub const MAGIC: u64 = u64::from_le_bytes(*b"jackfeld");

/// What every exported symbol begins with.
pub const SYMBOL_PREFIX: &str = "plugin_entry_";

/// Digest of the sources of this crate: FNV-1a, in two 64-bit halves with different seeds. It
/// guards against mistakes, not against malice.
pub const DIGEST: [u64; 2] = digest(&[
    include_bytes!("lib.rs"),
    include_bytes!("backend.rs"),
    include_bytes!("compressor.rs"),
    include_bytes!("curriculum.rs"),
    include_bytes!("decoding_strategy.rs"),
    include_bytes!("events.rs"),
    include_bytes!("handover.rs"),
    include_bytes!("hook.rs"),
    include_bytes!("host.rs"),
    include_bytes!("kv_cache.rs"),
    include_bytes!("logits_processor.rs"),
    include_bytes!("memory.rs"),
    include_bytes!("model_source.rs"),
    include_bytes!("op_sink.rs"),
    include_bytes!("output_parser.rs"),
    include_bytes!("prefix_caching.rs"),
    include_bytes!("quantizer.rs"),
    include_bytes!("reward.rs"),
    include_bytes!("scheduler.rs"),
    include_bytes!("traced.rs"),
]);

/// FNV-1a over several texts, in words of eight bytes: it runs in the compiler.
pub const fn digest(texts: &[&[u8]]) -> [u64; 2] {
    const PRIME: u64 = 0x0000_0100_0000_01B3;
    let mut hash = [0xCBF2_9CE4_8422_2325_u64, 0x9AE1_6A3B_2F90_404F];
    let mut t = 0;
    while t < texts.len() {
        let mut rest = texts[t];
        while let Some((eight, more)) = rest.split_first_chunk() {
            hash = mixed(hash, u64::from_le_bytes(*eight), PRIME);
            rest = more;
        }
        while let Some((byte, more)) = rest.split_first() {
            hash = mixed(hash, *byte as u64, PRIME);
            rest = more;
        }
        hash = mixed(hash, texts[t].len() as u64, PRIME);
        t += 1;
    }
    hash
}

const fn mixed(hash: [u64; 2], word: u64, prime: u64) -> [u64; 2] {
    let low = (hash[0] ^ word).wrapping_mul(prime);
    let high = (hash[1] ^ word.rotate_left(32)).wrapping_mul(prime);
    // A multiplication alone never carries a high bit down.
    [low ^ (low >> 29), high ^ (high >> 31)]
}
