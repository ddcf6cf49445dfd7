//! Finding blocks again by their keys, both sides.

use std::ffi::c_void;

use crate::error::{Error, Result};
use crate::kinds::kv_cache::{BlockKey, PrefixCaching, SeqId};
use crate::native::abi::prefix_caching::PrefixCachingV1;
use crate::native::abi::{Code, Out, RSlice};
use crate::native::call::Remote;
use crate::native::guard::{guard, instance};

/// What is exported of a cache that may keep blocks.
pub(super) trait CachesPrefixes {
    /// What the plugin offers.
    fn prefix_caching(&mut self) -> Option<&mut dyn PrefixCaching>;
}

/// The functions for what is exported as an `E`.
pub(super) const fn table<E: CachesPrefixes>() -> PrefixCachingV1 {
    PrefixCachingV1 {
        is_offered: is_offered::<E>,
        find: find::<E>,
        adopt: adopt::<E>,
        publish: publish::<E>,
    }
}

unsafe extern "C" fn is_offered<E: CachesPrefixes>(
    this: *mut c_void,
    answer: *mut u8,
    out: *const Out,
) -> Code {
    // SAFETY: the host opened this instance as an `E`, and calls it from one thread at a time; the
    // answer and `out` are its own, for this call.
    unsafe {
        guard(out, || {
            *answer = u8::from(instance::<E>(this).prefix_caching().is_some());
            Ok(())
        })
    }
}

unsafe extern "C" fn find<E: CachesPrefixes>(
    this: *mut c_void,
    keys: RSlice<'_, u8>,
    blocks: *mut u64,
    out: *const Out,
) -> Code {
    // SAFETY: as in `is_offered`.
    unsafe {
        guard(out, || {
            let cache = instance::<E>(this).prefix_caching().ok_or_else(no_caching)?;
            *blocks = cache.find(keys_in(keys.as_slice())) as u64;
            Ok(())
        })
    }
}

unsafe extern "C" fn adopt<E: CachesPrefixes>(
    this: *mut c_void,
    seq: u32,
    keys: RSlice<'_, u8>,
    blocks: *mut u64,
    out: *const Out,
) -> Code {
    // SAFETY: as in `is_offered`.
    unsafe {
        guard(out, || {
            let cache = instance::<E>(this).prefix_caching().ok_or_else(no_caching)?;
            *blocks = cache.adopt(SeqId(seq), keys_in(keys.as_slice())) as u64;
            Ok(())
        })
    }
}

unsafe extern "C" fn publish<E: CachesPrefixes>(
    this: *mut c_void,
    seq: u32,
    first: u64,
    keys: RSlice<'_, u8>,
    out: *const Out,
) -> Code {
    // SAFETY: as in `is_offered`.
    unsafe {
        guard(out, || {
            let cache = instance::<E>(this).prefix_caching().ok_or_else(no_caching)?;
            cache.publish(SeqId(seq), first as usize, keys_in(keys.as_slice()));
            Ok(())
        })
    }
}

fn no_caching() -> Error {
    Error::unsupported("prefix caching", "this cache keeps no blocks")
}

/// The functions of a plugin in another library, on the host's side.
#[derive(Clone, Copy)]
pub(super) struct RemotePrefixCaching<'a> {
    pub(super) remote: &'a Remote,
    pub(super) table: &'a PrefixCachingV1,
}

impl RemotePrefixCaching<'_> {
    /// Whether the others can be called.
    pub(super) fn is_offered(self) -> bool {
        let mut answer = 0;
        let to = &raw mut answer;
        let call = |this, out| {
            // SAFETY: the table belongs to the instance; all pointers live until the call ends.
            unsafe { (self.table.is_offered)(this, to, out) }
        };
        self.remote.tell(call) && answer == 1
    }

    /// As [`PrefixCaching::find`].
    pub(super) fn find(self, keys: &[BlockKey]) -> usize {
        let mut blocks = 0;
        let to = &raw mut blocks;
        let call = |this, out| {
            // SAFETY: as in `is_offered`.
            unsafe { (self.table.find)(this, bytes_of(keys).into(), to, out) }
        };
        self.counted(keys, self.remote.tell(call), blocks)
    }

    /// As [`PrefixCaching::adopt`].
    pub(super) fn adopt(self, seq: SeqId, keys: &[BlockKey]) -> usize {
        let mut blocks = 0;
        let to = &raw mut blocks;
        let call = |this, out| {
            // SAFETY: as in `is_offered`.
            unsafe { (self.table.adopt)(this, seq.0, bytes_of(keys).into(), to, out) }
        };
        self.counted(keys, self.remote.tell(call), blocks)
    }

    /// As [`PrefixCaching::publish`].
    pub(super) fn publish(self, seq: SeqId, first: usize, keys: &[BlockKey]) {
        self.remote.tell(|this, out| {
            // SAFETY: as in `is_offered`.
            unsafe { (self.table.publish)(this, seq.0, first as u64, bytes_of(keys).into(), out) }
        });
    }

    /// A number of blocks that there can be for `keys`; the owner is told of any other.
    fn counted(self, keys: &[BlockKey], is_told: bool, blocks: u64) -> usize {
        let checked = if !is_told {
            Ok(0)
        } else if blocks <= keys.len() as u64 {
            Ok(blocks as usize)
        } else {
            let expected = format!("at most {} blocks", keys.len());
            Err(Error::malformed("prefix caching", expected, blocks))
        };
        let judged: Result<usize> = self.remote.judged(checked);
        judged.unwrap_or(0)
    }
}

fn bytes_of(keys: &[BlockKey]) -> &[u8] {
    // SAFETY: a key is an array of bytes, so keys side by side are bytes side by side.
    unsafe { std::slice::from_raw_parts(keys.as_ptr().cast(), size_of_val(keys)) }
}

/// The keys that `bytes` are made of; bytes that make no whole key are left out.
fn keys_in(bytes: &[u8]) -> &[BlockKey] {
    let count = bytes.len() / size_of::<BlockKey>();
    // SAFETY: as many whole keys lie there, and a key may lie anywhere: its alignment is 1.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), count) }
}
