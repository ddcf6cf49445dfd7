//! Caches of keys and values on the host's side.

use std::ffi::c_void;
use std::sync::Arc;

use super::Instance;
use super::pool::Pool;
use super::prefix;
use crate::error::{Error, Result};
use crate::kinds::Handover;
use crate::kinds::kv_cache::{
    BlockCopy, BlockKey, KvCache, PoolLimits, PoolSpec, PoolUsage, PrefixCaching, SeqId,
};
use crate::native::Owner;
use crate::native::abi::kv_cache::{BlockTableV1, KvCacheV1, MovesV1};
use crate::native::abi::{Code, Opened, Out};
use crate::native::call::Remote;
use crate::native::handover::RemoteHandover;
use crate::plan::StateSpec;
use crate::wire::{put_list, to_bytes};

/// A cache in another library.
struct Adapter {
    remote: Remote,
    table: &'static KvCacheV1,
    pool: Pool,
    bytes: Vec<u8>,
}

/// # Safety
///
/// `opened` came from `export` of a library that matches and stays mapped.
pub(in crate::native) unsafe fn import(opened: Opened, owner: Arc<dyn Owner>) -> Box<Instance> {
    // SAFETY: as for this function.
    let table = unsafe { &*opened.table.cast::<KvCacheV1>() };
    let remote = Remote::new(opened.this, owner);
    Box::new(Adapter { remote, table, pool: Pool::default(), bytes: Vec::new() })
}

impl Adapter {
    fn remotely(&self) -> RemoteHandover<'_> {
        RemoteHandover { remote: &self.remote, table: &self.table.handover }
    }

    fn prefixes(&self) -> prefix::RemotePrefixCaching<'_> {
        prefix::RemotePrefixCaching { remote: &self.remote, table: &self.table.prefix_caching }
    }

    /// A call that may append to `moves`: all of them or none.
    fn moving(
        &mut self,
        moves: &mut Vec<BlockCopy>,
        function: impl FnOnce(&KvCacheV1, *mut c_void, MovesV1, *const Out) -> Code,
    ) -> Result<()> {
        unsafe extern "C" fn push(to: *mut c_void, from_block: u32, to_block: u32) {
            let copy = BlockCopy { from: from_block, to: to_block };
            // SAFETY: `to` is the vector below, for the call that this is part of.
            unsafe { (*to.cast::<Vec<BlockCopy>>()).push(copy) };
        }
        let (before, table) = (moves.len(), self.table);
        let there = MovesV1 { to: std::ptr::from_mut(moves).cast(), push };
        let called =
            self.remote.call(&mut self.bytes, |this, out| function(table, this, there, out));
        let made = moves.iter().skip(before).flat_map(|copy| [copy.from, copy.to]);
        let checked = called.and_then(|()| self.remote.judged(self.pool.check(made)));
        if checked.is_err() {
            moves.truncate(before);
        }
        checked
    }
}

impl KvCache for Adapter {
    fn pool(&mut self, states: &[StateSpec], limits: &PoolLimits) -> Result<PoolSpec> {
        let (table, mut states_there, limits_there) = (self.table, Vec::new(), to_bytes(limits));
        put_list(states, &mut states_there);
        let spec = self.remote.ask(|this, out| {
            let (states, limits) = (states_there[..].into(), limits_there[..].into());
            // SAFETY: the table belongs to the instance; all pointers live until the call ends.
            unsafe { (table.pool)(this, states, limits, out) }
        })?;
        self.pool = self.remote.judged(Pool::of(&spec, states, limits))?;
        Ok(spec)
    }

    fn reserve(&mut self, seq: SeqId, tokens: usize, moves: &mut Vec<BlockCopy>) -> Result<&[u32]> {
        let before = moves.len();
        let mut lent = BlockTableV1 { blocks: std::ptr::null(), len: 0 };
        let answer = &raw mut lent;
        // SAFETY: the table belongs to the instance; all pointers live until the call ends.
        self.moving(moves, |table, this, moves, out| unsafe {
            (table.reserve)(this, seq.0, tokens as u64, moves, answer, out)
        })?;
        let checked = self.pool.check_table(lent, tokens).and_then(|()| {
            // SAFETY: the plugin's memory, which it leaves as it is until its next call. Each call
            // but that for numbers in use needs this adapter exclusively, and so does this borrow.
            let blocks = unsafe { std::slice::from_raw_parts(lent.blocks, lent.len as usize) };
            self.pool.check(blocks.iter().copied()).map(|()| blocks)
        });
        self.remote.judged(checked).inspect_err(|_| moves.truncate(before))
    }

    fn commit(&mut self, seq: SeqId, keep: usize, moves: &mut Vec<BlockCopy>) {
        // The owner knows of a failure, the trait has no error to give.
        // SAFETY: as in `reserve`.
        let _ = self.moving(moves, |table, this, moves, out| unsafe {
            (table.commit)(this, seq.0, keep as u64, moves, out)
        });
    }

    fn fork(&mut self, parent: SeqId, child: SeqId, moves: &mut Vec<BlockCopy>) -> Result<()> {
        // SAFETY: as in `reserve`.
        self.moving(moves, |table, this, moves, out| unsafe {
            (table.fork)(this, parent.0, child.0, moves, out)
        })
    }

    fn release(&mut self, seq: SeqId, upto: usize) {
        let table = self.table;
        // SAFETY: as in `reserve`.
        self.remote.tell(|this, out| unsafe { (table.release)(this, seq.0, upto as u64, out) });
    }

    fn usage(&self) -> PoolUsage {
        let (table, mut used, mut total) = (self.table, 0, 0);
        let answers = (&raw mut used, &raw mut total);
        // SAFETY: as in `reserve`.
        let is_told =
            self.remote.tell(|this, out| unsafe { (table.usage)(this, answers.0, answers.1, out) });
        if is_told && used <= total && total <= self.pool.num_blocks() as u64 {
            return PoolUsage { used: used as usize, total: total as usize };
        }
        if is_told {
            let expected = format!("at most {} blocks", self.pool.num_blocks());
            let error = Error::malformed("usage", expected, format!("{used} of {total}"));
            let _ = self.remote.judged::<()>(Err(error));
        }
        // Nothing is promised to be free.
        PoolUsage { used: self.pool.num_blocks(), total: self.pool.num_blocks() }
    }

    fn tick(&mut self, budget_bytes: u64, moves: &mut Vec<BlockCopy>) {
        // SAFETY: as in `reserve`.
        let _ = self.moving(moves, |table, this, moves, out| unsafe {
            (table.tick)(this, budget_bytes, moves, out)
        });
    }

    fn handover(&mut self) -> Option<&mut dyn Handover> {
        if self.remotely().is_offered() { Some(self) } else { None }
    }

    fn prefix_caching(&mut self) -> Option<&mut dyn PrefixCaching> {
        if self.prefixes().is_offered() { Some(self) } else { None }
    }
}

impl PrefixCaching for Adapter {
    fn find(&self, keys: &[BlockKey]) -> usize {
        self.prefixes().find(keys)
    }

    fn adopt(&mut self, seq: SeqId, keys: &[BlockKey]) -> usize {
        self.prefixes().adopt(seq, keys)
    }

    fn publish(&mut self, seq: SeqId, first: usize, keys: &[BlockKey]) {
        self.prefixes().publish(seq, first, keys);
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
