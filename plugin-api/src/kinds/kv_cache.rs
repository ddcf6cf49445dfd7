//! Caches of keys and values: layout, allocation, sharing, eviction.
//!
//! A cache is policy: it says which block of memory a token's state goes to. It never computes
//! attention (the backend does) and never owns the memory (the host does).

mod paged_cache;
mod pages;
mod prefix;
mod scales;
mod storage;
mod tables;
mod tiering;

pub use paged_cache::{PageCodec, PagedCache};
pub use pages::{Bitmap, Pages};
pub use prefix::{BlockKey, PrefixCaching};
pub use scales::StateScales;
pub use storage::{
    AffineStorage, CodeLayout, CodeScales, Patches, Storage, block_bytes, plain_dtype, plain_id,
};
pub use tables::{SavedTables, SeqTable, TableShape, save_tables};
pub use tiering::{TierSpec, Tiering};

use super::{Handover, SemanticId, kind};
use crate::error::{Error, Result};
use crate::plan::StateSpec;

/// Decides where the state of each token lies.
///
/// A sequence is known from its first [`reserve`](Self::reserve) or [`fork`](Self::fork) until its
/// [`release`](Self::release).
pub trait KvCache: Send {
    /// Lays out memory for these states, for sequences of up to `limits`. Called once before
    /// anything else. [loading]
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for states it cannot keep, [`Error::NoSpace`] if not even one block
    /// fits into the limits.
    fn pool(&mut self, states: &[StateSpec], limits: &PoolLimits) -> Result<PoolSpec>;

    /// Makes room for `tokens` more tokens of `seq`, all or nothing, and returns its block table:
    /// token `i` lies in entry `i / block_size`. Reservations add up until they are committed. A
    /// block that another sequence shares is copied before it is written: such copies are appended
    /// to `moves` and have to happen before the step. [step thread]
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`](crate::Error::NoSpace) with nothing taken.
    fn reserve(&mut self, seq: SeqId, tokens: usize, moves: &mut Vec<BlockCopy>) -> Result<&[u32]>;

    /// Keeps the first `keep` of the reserved tokens and gives the rest back. Copies that have to
    /// happen before the next step are appended to `moves`. [step thread]
    fn commit(&mut self, seq: SeqId, keep: usize, moves: &mut Vec<BlockCopy>);

    /// Lets `child` start with everything that `parent` has committed. [step thread]
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`](crate::Error::NoSpace) with nothing taken.
    fn fork(&mut self, parent: SeqId, child: SeqId, moves: &mut Vec<BlockCopy>) -> Result<()>;

    /// Forgets the tokens of `seq` from `upto` on; the sequence itself when `upto` is 0.
    /// [step thread]
    fn release(&mut self, seq: SeqId, upto: usize);

    /// How much is in use. [any thread between steps]
    fn usage(&self) -> PoolUsage;

    /// Background work of at most `budget_bytes`: eviction, tiers, re-encoding. [boundary]
    fn tick(&mut self, budget_bytes: u64, moves: &mut Vec<BlockCopy>) {
        let _ = (budget_bytes, moves);
    }

    /// How this cache passes its tables on, and takes those of another over that lays out the same
    /// pool. Without it, it is replaced only while no sequence holds tokens. [boundary]
    ///
    /// What [`save`](Handover::save) writes and [`restore`](Handover::restore) reads is exact:
    /// afterwards both caches answer everything alike. [`save_tables`] is a schema to share.
    ///
    /// What [`PrefixCaching`] keeps need not go along: a block without owner may arrive as a free one.
    fn handover(&mut self) -> Option<&mut dyn Handover> {
        None
    }

    /// How this cache keeps blocks for sequences that begin as others did. Without it, every prompt
    /// is evaluated from its first token. [step thread]
    fn prefix_caching(&mut self) -> Option<&mut dyn PrefixCaching> {
        None
    }

    /// How this cache keeps parts of its pool in files. Without it, all of the pool is in memory.
    /// For builtin plugins only: a library whose cache answers here is refused when it lays out its
    /// pool, and a cache that answers is not swapped while the engine runs. [step thread]
    fn tiering(&mut self) -> Option<&mut dyn Tiering> {
        None
    }
}

kind!(KvCache, "kv-cache", EngineStep, traced: false);

/// One growing list of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u32);

/// What a pool has to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Sequences at a time.
    pub num_seqs_max: usize,
    /// Tokens in one sequence.
    pub tokens_per_seq_max: usize,
    /// Bytes of state memory, over all sequences.
    pub size_bytes_max: u64,
}

/// How a cache lays out its memory.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSpec {
    /// Tokens in a block.
    pub block_size: usize,
    /// Blocks in the pool.
    pub num_blocks: usize,
    /// Most blocks that one sequence has.
    pub blocks_per_seq_max: usize,
    /// How the numbers of each state are stored, in the order of the states.
    pub storage: Vec<Storage>,
    /// What the stored numbers mean: caches with equal ids may take over from each other.
    pub semantic_id: SemanticId,
}

impl PoolSpec {
    /// Checks that every state has a storage that it can be stored in.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] for a storage too few or too many; those of
    /// [`Storage::check`].
    pub fn check(&self, states: &[StateSpec]) -> Result<()> {
        if self.storage.len() != states.len() {
            return Err(Error::malformed("storage of states", states.len(), self.storage.len()));
        }
        let mut each = states.iter().zip(&self.storage);
        each.try_for_each(|(state, storage)| storage.check(state, self.block_size))
    }
}

/// How much of a pool is in use, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUsage {
    /// Blocks that hold tokens.
    pub used: usize,
    /// All blocks.
    pub total: usize,
}

/// One block to be copied to another, in every state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCopy {
    /// Block to read.
    pub from: u32,
    /// Block to write.
    pub to: u32,
}
