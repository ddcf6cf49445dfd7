//! Pools that are larger than the memory they may take: which parts of one stay, and which go to
//! files.

use std::path::PathBuf;

use crate::error::Result;

/// Optional for caches: decides which chunks of the pool are in memory.
///
/// The host divides the pool's memory into chunks of equal size, moves them to a file and back, and
/// asks before a step uses one. A layer's keys and values lie together, so a step goes through the
/// chunks layer by layer, in the same order every time. The cache only decides: a chunk counts as
/// resident from the [`touch`](Self::touch) or [`prefetch`](Self::prefetch) that brings it in, until
/// one that lists it among those that leave.
pub trait Tiering {
    /// Sizes, and where files may lie. [loading]
    fn spec(&self) -> TierSpec;

    /// Starts over with `num_chunks`, none of which is resident; `resident_max` may be. [loading]
    fn lay_out(&mut self, num_chunks: usize, resident_max: usize);

    /// A step is about to use `chunks`, each of them listed once. Afterwards all are resident; those
    /// that leave for them are appended to `evict`. [step thread]
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`](crate::Error::NoSpace), with nothing changed, if they are more than may be
    /// resident.
    fn touch(&mut self, chunks: &[u32], evict: &mut Vec<u32>) -> Result<()>;

    /// What became of a chunk that was not what was decided: it could not be written and stays, or
    /// was not read and is not there. [step thread]
    fn correct(&mut self, chunk: u32, is_resident: bool);

    /// A chunk was lost. The host computes again what sequences held in it; the cache forgets the
    /// keys of [`PrefixCaching`](super::PrefixCaching), whose blocks may have lain there. [step thread]
    fn lost(&mut self);

    /// `soon` are the chunks that will be used after the last ones that were touched, which stay.
    /// Those worth fetching now are appended to `fetch` and are resident, those that leave for
    /// them to `evict`. [step thread]
    fn prefetch(&mut self, soon: &[u32], fetch: &mut Vec<u32>, evict: &mut Vec<u32>) {
        let _ = (soon, fetch, evict);
    }
}

/// How a pool is divided, and where files may lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierSpec {
    /// Bytes of a chunk: a power of two from 4 KiB on.
    pub chunk_bytes: usize,
    /// Bytes of the pool in memory at a time.
    pub resident_bytes_max: u64,
    /// Folder for files, which the plugin has to be granted to read and to write.
    pub folder: PathBuf,
}
