//! Memory that the host owns: packed weights, the state arena, scratch.

use std::ops::Range;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use memmap2::{Advice, MmapMut};
use plugin_api::kinds::backend::{DomainId, Memory, StatePlace};
use plugin_api::kinds::kv_cache::PoolSpec;
use plugin_api::plan::{Per, StateSpec};

/// Bytes on a cache line boundary, zero at first.
#[derive(Debug)]
pub struct AlignedBytes {
    room: Room,
    len: usize,
}

#[derive(Debug)]
enum Room {
    Small(Vec<Line>),
    Mapped(MmapMut),
}

/// One cache line: what makes the vector of them aligned.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; LINE_BYTES]);

const LINE_BYTES: usize = 64;
/// From here on a mapping of its own costs less than the zeros.
const MAPPED_BYTES_MIN: usize = 256 << 10;

impl AlignedBytes {
    /// `len` zero bytes; pages are taken from the system when they are first written. An allocator
    /// does not promise that: it writes zeros itself where they have to be aligned.
    pub fn zeroed(len: usize) -> Self {
        let map = if len < MAPPED_BYTES_MIN { None } else { MmapMut::map_anon(len).ok() };
        let room = map.map(Room::Mapped).unwrap_or_else(|| {
            Room::Small(bytemuck::allocation::zeroed_vec(len.div_ceil(LINE_BYTES)))
        });
        Self { room, len }
    }

    /// `len` zero bytes that will all be used: in huge pages where the system has them, because a
    /// step walks through all weights, and looking up a page for each 4 KiB costs it a third.
    pub fn huge(len: usize) -> Self {
        let bytes = Self::zeroed(len);
        if let Room::Mapped(map) = &bytes.room {
            // Advice only: a system without huge pages takes small ones.
            let _ = map.advise(Advice::HugePage);
        }
        bytes
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match &self.room {
            Room::Small(lines) => &bytemuck::cast_slice(lines)[..self.len],
            Room::Mapped(map) => &map[..self.len],
        }
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.room {
            Room::Small(lines) => &mut bytemuck::cast_slice_mut(lines)[..self.len],
            Room::Mapped(map) => &mut map[..self.len],
        }
    }
}

/// A part of memory that others have parts of, too.
#[derive(Debug)]
pub struct Piece {
    whole: Arc<AlignedBytes>,
    range: Range<usize>,
}

impl Piece {
    /// Divides memory into pieces of `sizes` bytes, each on a cache line; [`room_for`] says how
    /// much they take.
    pub fn divide(whole: AlignedBytes, sizes: impl Iterator<Item = usize>) -> Vec<Self> {
        let (whole, mut start) = (Arc::new(whole), 0);
        let piece = |size: usize| {
            let range = start..start + size;
            start = range.end.next_multiple_of(LINE_BYTES);
            Self { whole: Arc::clone(&whole), range }
        };
        sizes.map(piece).collect()
    }
}

/// Bytes that pieces of `sizes` bytes take together.
pub fn room_for(sizes: impl Iterator<Item = usize>) -> usize {
    sizes.map(|size| size.next_multiple_of(LINE_BYTES)).sum()
}

impl Memory for Piece {
    fn domain(&self) -> DomainId {
        DomainId::HOST
    }

    fn host_bytes(&self) -> Option<&[u8]> {
        Some(&self.whole.as_slice()[self.range.clone()])
    }
}

impl Memory for AlignedBytes {
    fn domain(&self) -> DomainId {
        DomainId::HOST
    }

    fn host_bytes(&self) -> Option<&[u8]> {
        Some(self.as_slice())
    }
}

/// How a cache's pool lies in one arena.
#[derive(Debug, Clone, PartialEq)]
pub struct StateLayout {
    /// What the cache answered.
    pub pool: PoolSpec,
    /// Where each state lies.
    pub places: Vec<StatePlace>,
    /// Size of the arena.
    pub size_bytes: usize,
    /// Whether the cache keeps parts of it in files.
    pub is_tiered: bool,
    /// Of those bytes, what one more token takes, with its share of what a block has besides.
    pub bytes_per_token: usize,
    /// Whether there is a state per sequence, which cannot be taken back to any token.
    pub is_recurrent: bool,
}

impl StateLayout {
    /// Lays out `states`: those per token in every slot, those per sequence in every block, as `f32`.
    pub fn new(states: &[StateSpec], pool: PoolSpec) -> Self {
        let mut end = 0_usize;
        let mut bytes_per_token = 0;
        let mut places = Vec::with_capacity(states.len());
        for (spec, storage) in states.iter().zip(&pool.storage) {
            let is_per_token = matches!(spec.per, Per::Token { .. });
            let rows = spec.per.rows_of_block(pool.block_size);
            let mut offsets = Vec::with_capacity(spec.parts.len());
            for part in &spec.parts {
                let bytes = storage.block_bytes(part, rows);
                offsets.push(end);
                end = (end + pool.num_blocks * bytes).next_multiple_of(LINE_BYTES);
                bytes_per_token += if is_per_token { bytes.div_ceil(rows) } else { 0 };
            }
            let storage = storage.clone();
            places.push(StatePlace { storage, offsets, num_blocks: pool.num_blocks });
        }
        let is_recurrent = states.iter().any(|state| state.per == Per::Sequence);
        Self { pool, places, size_bytes: end, is_tiered: false, bytes_per_token, is_recurrent }
    }

    /// How many of its first `keep` tokens a sequence goes on from, of which `num_evaluated` are in its states:
    /// those per sequence are known at the ends of blocks and after the last token.
    pub fn resumable(&self, keep: usize, num_evaluated: usize) -> usize {
        if !self.is_recurrent || keep == num_evaluated {
            return keep;
        }
        keep / self.pool.block_size.max(1) * self.pool.block_size
    }
}
