//! Caches of keys and values: layout, allocation, sharing, eviction.
//!
//! A cache is policy: it says which block of memory a token's state goes to. It never computes
//! attention (the backend does) and never owns the memory (the host does).

mod prefix;
mod tables;

pub use prefix::{BlockKey, PrefixCaching};
pub use tables::{SavedTables, SeqTable, TableShape, save_tables};

use super::{Handover, SemanticId, kind};
use crate::error::Result;
use crate::plan::{Part, Per, StateSpec};
use crate::tensor::DType;

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
    /// [`Error::Unsupported`](crate::Error::Unsupported) for states it cannot keep,
    /// [`Error::NoSpace`](crate::Error::NoSpace) if not even one block fits into the limits.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSpec {
    /// Tokens in a block.
    pub block_size: usize,
    /// Blocks in the pool.
    pub num_blocks: usize,
    /// Most blocks that one sequence has.
    pub blocks_per_seq_max: usize,
    /// Type of the stored elements.
    pub dtype: DType,
    /// What the stored numbers mean: caches with equal ids may take over from each other.
    pub semantic_id: SemanticId,
}

/// How much of a pool is in use, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUsage {
    /// Blocks that hold tokens.
    pub used: usize,
    /// All blocks.
    pub total: usize,
}

/// Bytes that a block of `block_size` tokens takes in all `states` together: those per token stored as
/// `dtype`, and a copy of those per sequence as `f32`. The largest number if there are more.
pub fn bytes_per_block(states: &[StateSpec], dtype: DType, block_size: usize) -> u64 {
    let bytes = |state: &StateSpec| {
        let sizes = state.parts.iter().map(Part::num_elements);
        let elements = sizes.fold(0, u64::saturating_add);
        let each = match state.per {
            Per::Token { .. } => (block_size as u64).saturating_mul(dtype.size_bytes() as u64),
            Per::Sequence => DType::F32.size_bytes() as u64,
        };
        elements.saturating_mul(each)
    };
    states.iter().map(bytes).fold(0, u64::saturating_add)
}

/// One block to be copied to another, in every state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCopy {
    /// Block to read.
    pub from: u32,
    /// Block to write.
    pub to: u32,
}
