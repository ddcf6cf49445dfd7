//! The blocks of a pool: free, owned by sequences, or kept for their key alone.

use super::bitmap::Bitmap;
use super::shelf::Shelf;
use crate::kinds::kv_cache::BlockKey;

/// Who owns which block.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// Blocks without owner and key.
    free: Bitmap,
    /// How many sequences own each block.
    num_owners: Vec<u32>,
    pub(crate) shelf: Shelf,
}

impl Blocks {
    pub(crate) fn new(num_blocks: usize) -> Self {
        let (free, shelf) = (Bitmap::new(num_blocks), Shelf::new(num_blocks));
        Self { free, num_owners: vec![0; num_blocks], shelf }
    }

    /// The blocks as another cache has handed them over, without keys.
    pub(crate) fn restored(free: &[u32], num_owners: Vec<u32>) -> Self {
        let num_blocks = num_owners.len();
        let (free, shelf) = (Bitmap::with(num_blocks, free), Shelf::new(num_blocks));
        Self { free, num_owners, shelf }
    }

    pub(crate) fn total(&self) -> usize {
        self.num_owners.len()
    }

    /// Blocks that can be taken.
    pub(crate) fn available(&self) -> usize {
        self.free.num_free() + self.shelf.num_idle()
    }

    /// The blocks that [`available`](Self::available) counts.
    pub(crate) fn unowned(&self) -> Vec<u32> {
        self.free.free().chain(self.shelf.idle()).collect()
    }

    pub(crate) fn is_shared(&self, block: u32) -> bool {
        self.num_owners[block as usize] > 1
    }

    /// A block that had no owner and now has one: an empty one while there are any, then that which
    /// nobody has used for longest. The caller has checked that there is one.
    pub(crate) fn take(&mut self) -> u32 {
        let block = self.free.take().or_else(|| self.shelf.evict()).unwrap_or_default();
        self.num_owners[block as usize] += 1;
        block
    }

    /// One more owner for a block.
    pub(crate) fn share(&mut self, block: u32) {
        if self.num_owners[block as usize] == 0 {
            self.shelf.pick_up(block);
        }
        self.num_owners[block as usize] += 1;
    }

    /// One owner less.
    pub(crate) fn give(&mut self, block: u32) {
        self.num_owners[block as usize] -= 1;
        if self.num_owners[block as usize] > 0 {
            return;
        }
        if self.shelf.has(block) {
            self.shelf.lay_down(block);
        } else {
            self.free.give(block);
        }
    }

    /// No block has a key; those without owner are free.
    pub(crate) fn forget_keys(&mut self) {
        while let Some(block) = self.shelf.evict() {
            self.free.give(block);
        }
        (0..self.num_owners.len()).for_each(|block| self.shelf.unname(block as u32));
    }

    /// How many of `keys`, from the first on, are here.
    pub(crate) fn find(&self, keys: &[BlockKey]) -> usize {
        keys.iter().take_while(|key| self.shelf.find(key).is_some()).count()
    }
}
