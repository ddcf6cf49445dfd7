//! A cache of pages around a codec: everything but how numbers are stored.

use super::pages::no_space;
use super::{
    BlockCopy, KvCache, Pages, PoolLimits, PoolSpec, PoolUsage, PrefixCaching, SeqId, Storage,
    block_bytes,
};
use crate::config::Config;
use crate::error::Result;
use crate::kinds::{Capability, Handover, SemanticId};
use crate::plan::StateSpec;

/// How the numbers of a [`PagedCache`] are stored: all that such a cache has to say for itself.
pub trait PageCodec: Sized + Send {
    /// Name of the cache.
    const NAME: &'static str;

    /// Reads the codec's own keys; `block_size` and `prefix_caching` are the cache's. [loading]
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for values that it cannot take.
    fn from_config(config: &Config) -> Result<Self>;

    /// How each of `states` is stored, in order. Those per sequence are kept as `f32`, whatever it
    /// says of them. [loading]
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) for states that it cannot store.
    fn storage(&self, states: &[StateSpec]) -> Result<Vec<Storage>>;

    /// What the stored numbers mean. [loading]
    fn semantic_id(&self) -> SemanticId;
}

/// A cache of [`Pages`] whose numbers are stored as its codec says.
///
/// It reads two keys of its configuration: `block_size`, tokens in a block, 16 if absent; and
/// `prefix_caching`, whether blocks are kept for sequences to come, true if absent.
#[derive(Debug)]
pub struct PagedCache<C> {
    codec: C,
    pages: Pages,
    keeps_prefixes: bool,
}

impl<C> PagedCache<C> {
    /// Its blocks and tables.
    pub fn pages_mut(&mut self) -> &mut Pages {
        &mut self.pages
    }
}

impl<C: PageCodec> Capability for PagedCache<C> {
    const NAME: &'static str = C::NAME;

    fn from_config(config: &Config) -> Result<Self> {
        let codec = C::from_config(config)?;
        let pages = Pages::new(config.count_or("block_size", 16, 1..=4096)? as usize);
        Ok(Self { codec, pages, keeps_prefixes: config.flag_or("prefix_caching", true)? })
    }
}

impl<C: PageCodec> KvCache for PagedCache<C> {
    fn pool(&mut self, states: &[StateSpec], limits: &PoolLimits) -> Result<PoolSpec> {
        let storage = self.codec.storage(states)?.into_iter();
        let storage: Vec<_> = storage.zip(states).map(|(s, state)| s.for_state(state)).collect();
        let block_size = self.pages.block_size();
        let block_bytes = block_bytes(states, &storage, block_size)?.max(1);
        let blocks_per_seq_max = limits.tokens_per_seq_max.div_ceil(block_size);
        let fitting = usize::try_from(limits.size_bytes_max / block_bytes).unwrap_or(usize::MAX);
        let num_blocks = fitting.min(limits.num_seqs_max * blocks_per_seq_max);
        if num_blocks == 0 {
            let free = limits.size_bytes_max as usize;
            return Err(no_space("kv cache, in bytes", block_bytes as usize, free));
        }
        self.pages.lay_out(num_blocks, limits);
        let semantic_id = self.codec.semantic_id();
        Ok(PoolSpec { block_size, num_blocks, blocks_per_seq_max, storage, semantic_id })
    }

    fn reserve(&mut self, seq: SeqId, tokens: usize, moves: &mut Vec<BlockCopy>) -> Result<&[u32]> {
        self.pages.reserve(seq, tokens, moves)
    }

    fn commit(&mut self, seq: SeqId, keep: usize, _: &mut Vec<BlockCopy>) {
        self.pages.commit(seq, keep);
    }

    fn fork(&mut self, parent: SeqId, child: SeqId, moves: &mut Vec<BlockCopy>) -> Result<()> {
        self.pages.fork(parent, child, moves)
    }

    fn release(&mut self, seq: SeqId, upto: usize) {
        self.pages.release(seq, upto);
    }

    fn usage(&self) -> PoolUsage {
        self.pages.usage()
    }

    fn handover(&mut self) -> Option<&mut dyn Handover> {
        Some(&mut self.pages)
    }

    fn prefix_caching(&mut self) -> Option<&mut dyn PrefixCaching> {
        if self.keeps_prefixes { Some(&mut self.pages) } else { None }
    }
}
