//! Caches of keys and values on the plugin's side.

use std::ffi::c_void;

use super::Instance;
use super::prefix::{self, CachesPrefixes};
use crate::error::Error;
use crate::kinds::Handover;
use crate::kinds::kv_cache::{BlockCopy, PrefixCaching, SeqId};
use crate::native::abi::kv_cache::{BlockTableV1, KvCacheV1, MovesV1};
use crate::native::abi::{Code, Out, RSlice};
use crate::native::guard::{self, answer, guard, instance};
use crate::native::handover::{self, HandsOver};
use crate::wire::from_bytes;

/// A cache with the list of copies that it asks for, which is kept from call to call.
struct Exported {
    cache: Box<Instance>,
    made: Vec<BlockCopy>,
}

static TABLE: KvCacheV1 = KvCacheV1 {
    size: size_of::<KvCacheV1>() as u32,
    pool,
    reserve,
    commit,
    fork,
    release,
    usage,
    tick,
    handover: handover::table::<Exported>(),
    prefix_caching: prefix::table::<Exported>(),
    close: guard::close::<Exported>,
};

pub(in crate::native) fn export(cache: Box<Instance>) -> (*mut c_void, *const c_void) {
    let exported = Exported { cache, made: Vec::new() };
    (guard::export(Box::new(exported)), (&raw const TABLE).cast())
}

/// The cache behind a pointer, and its list of copies, empty.
///
/// # Safety
///
/// As for [`instance`].
unsafe fn parts<'a>(this: *mut c_void) -> (&'a mut Instance, &'a mut Vec<BlockCopy>) {
    // SAFETY: as for this function.
    let Exported { cache, made } = unsafe { &mut **instance::<Exported>(this) };
    made.clear();
    (&mut **cache, made)
}

unsafe extern "C" fn pool(
    this: *mut c_void,
    states: RSlice<'_, u8>,
    limits: RSlice<'_, u8>,
    out: *const Out,
) -> Code {
    // SAFETY: the host opened this instance here, calls it from one thread at a time, and `out` is
    // its own for this call.
    unsafe {
        guard(out, || {
            let states: Vec<_> = from_bytes(states.as_slice())?;
            let limits = from_bytes(limits.as_slice())?;
            let cache = &mut instance::<Exported>(this).cache;
            if cache.tiering().is_some() {
                let missing = "the host asks builtin plugins only: link it in";
                return Err(Error::unsupported("a cache with tiers in a library", missing));
            }
            answer(out, &cache.pool(&states, &limits)?);
            Ok(())
        })
    }
}

unsafe extern "C" fn reserve(
    this: *mut c_void,
    seq: u32,
    tokens: u64,
    moves: MovesV1,
    table: *mut BlockTableV1,
    out: *const Out,
) -> Code {
    // SAFETY: as in `pool`; `table` and `moves` are the host's, for this call. The blocks stay
    // where they are until the host calls this instance again.
    unsafe {
        guard(out, || {
            let (cache, made) = parts(this);
            let blocks = cache.reserve(SeqId(seq), tokens as usize, made)?;
            *table = BlockTableV1 { blocks: blocks.as_ptr(), len: blocks.len() as u64 };
            pass(moves, made);
            Ok(())
        })
    }
}

unsafe extern "C" fn commit(
    this: *mut c_void,
    seq: u32,
    keep: u64,
    moves: MovesV1,
    out: *const Out,
) -> Code {
    // SAFETY: as in `reserve`.
    unsafe {
        guard(out, || {
            let (cache, made) = parts(this);
            cache.commit(SeqId(seq), keep as usize, made);
            pass(moves, made);
            Ok(())
        })
    }
}

unsafe extern "C" fn fork(
    this: *mut c_void,
    parent: u32,
    child: u32,
    moves: MovesV1,
    out: *const Out,
) -> Code {
    // SAFETY: as in `reserve`.
    unsafe {
        guard(out, || {
            let (cache, made) = parts(this);
            cache.fork(SeqId(parent), SeqId(child), made)?;
            pass(moves, made);
            Ok(())
        })
    }
}

unsafe extern "C" fn release(this: *mut c_void, seq: u32, upto: u64, out: *const Out) -> Code {
    // SAFETY: as in `pool`.
    unsafe {
        guard(out, || {
            instance::<Exported>(this).cache.release(SeqId(seq), upto as usize);
            Ok(())
        })
    }
}

unsafe extern "C" fn usage(
    this: *mut c_void,
    used: *mut u64,
    total: *mut u64,
    out: *const Out,
) -> Code {
    // SAFETY: as in `pool`; the answers are the host's, for this call.
    unsafe {
        guard(out, || {
            let usage = instance::<Exported>(this).cache.usage();
            (*used, *total) = (usage.used as u64, usage.total as u64);
            Ok(())
        })
    }
}

unsafe extern "C" fn tick(
    this: *mut c_void,
    budget_bytes: u64,
    moves: MovesV1,
    out: *const Out,
) -> Code {
    // SAFETY: as in `reserve`.
    unsafe {
        guard(out, || {
            let (cache, made) = parts(this);
            cache.tick(budget_bytes, made);
            pass(moves, made);
            Ok(())
        })
    }
}

impl HandsOver for Exported {
    fn handover(&mut self) -> Option<&mut dyn Handover> {
        self.cache.handover()
    }
}

impl CachesPrefixes for Exported {
    fn prefix_caching(&mut self) -> Option<&mut dyn PrefixCaching> {
        self.cache.prefix_caching()
    }
}

/// # Safety
///
/// `moves` is lent for the call that this is part of.
unsafe fn pass(moves: MovesV1, made: &[BlockCopy]) {
    for copy in made {
        // SAFETY: as for this function.
        unsafe { (moves.push)(moves.to, copy.from, copy.to) };
    }
}
