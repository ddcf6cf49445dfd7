//! Blocks that stay when their sequence goes, for others that begin alike.

use std::fmt;

use super::SeqId;

/// Optional for caches: finds full blocks again by a key that the host makes of everything that
/// decides what they hold, and keeps those that no sequence holds until room is needed.
///
/// A key stands for a block together with all blocks before it, so equal keys mean equal numbers,
/// bit for bit: the cache compares keys and nothing else. It may forget any block that no sequence
/// holds, at any time. Blocks that are kept for their key alone count as free in
/// [`usage`](super::KvCache::usage), and yield before [`reserve`](super::KvCache::reserve) or
/// [`fork`](super::KvCache::fork) refuse. A sequence that writes into a block that it holds alone
/// takes the key from it; one that is shared is copied first, as ever.
pub trait PrefixCaching {
    /// How many blocks [`adopt`](Self::adopt) would take. [step thread]
    fn find(&self, keys: &[BlockKey]) -> usize;

    /// Lets `seq`, which the cache does not know, start with the blocks under `keys`, from the first
    /// on and up to one that is not there. They count as committed. Returns how many they are; where
    /// there are none, or no room for a sequence, it stays unknown and the answer is 0.
    /// [step thread]
    fn adopt(&mut self, seq: SeqId, keys: &[BlockKey]) -> usize;

    /// Names committed blocks of `seq`, `keys[0]` that at index `first` of its table. Blocks that
    /// are not full are left out; so is a key that another block has. [step thread]
    fn publish(&mut self, seq: SeqId, first: usize, keys: &[BlockKey]);
}

/// Stands for what a block and all blocks before it hold: plan, adapter and tokens, hashed so that
/// nobody finds two with one key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct BlockKey(pub [u8; 32]);

impl fmt::Debug for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
