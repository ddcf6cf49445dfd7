//! A pool that is larger than its memory: chunks that go to files and come back.
//!
//! The cache decides which chunks are resident; here they are moved. A step enters one state after
//! the other; while it computes with one, the chunks of the next are read by a thread.

mod reader;
mod spill;

use plugin_api::kinds::backend::StatePager;
use plugin_api::kinds::kv_cache::{TierSpec, Tiering};
use plugin_api::plan::{Per, StateSpec};
use plugin_api::{Error, Host, KvCache, Result};

use super::batch::StepBatch;
use crate::model::memory::StateLayout;
use crate::model::mmap::release_pages;
use reader::Reader;
use spill::Spill;

/// What moved between memory and files since the engine was made, in chunks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TierStats {
    /// Uses of a chunk with something in it.
    pub uses: u64,
    /// Those that found it resident.
    pub hits: u64,
    /// Those whose chunk was being fetched, or had been, before it was asked for.
    pub prefetched: u64,
    /// Chunks read from files.
    pub reads: u64,
    /// Chunks written to files.
    pub writes: u64,
    /// Most chunks in memory at a time.
    pub resident_peak: u64,
    /// Chunks that a pool may have in memory.
    pub resident_max: u64,
    /// All chunks.
    pub chunks: u64,
}

/// Why a step could not enter a state.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TierFault {
    /// A chunk is not to be had back: what lies in it is gone.
    Lost(u32),
    /// There is no room, in memory or in files: everything is where it was.
    Full(Error),
}

/// The chunks of one engine's pool.
pub(super) struct Tiers {
    spec: TierSpec,
    spill: Spill,
    reader: Reader,
    chunks: Vec<Chunk>,
    num_resident: usize,
    pub(super) stats: TierStats,
    /// Why the last run failed, until somebody asks.
    pub(super) fault: Option<TierFault>,
    /// What the state at hand needs, and the one after it.
    now: Vec<u32>,
    soon: Vec<u32>,
    evict: Vec<u32>,
    fetch: Vec<u32>,
    /// Tells which chunks are listed already.
    mark: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Chunk {
    is_resident: bool,
    /// Something was ever written there.
    is_used: bool,
    /// Memory holds more than the file.
    is_dirty: bool,
    /// The request of the thread that reads it.
    awaited: Option<u64>,
    mark: u64,
}

impl Tiers {
    /// For a pool of `size_bytes`, if the cache has tiers; `host` gives its handle.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] for a chunk that is no power of two from 4 KiB on; those of `host`.
    pub(super) fn of(
        cache: &mut dyn KvCache,
        size_bytes: usize,
        host: impl FnOnce() -> Result<Host>,
    ) -> Result<Option<Box<Self>>> {
        let Some(policy) = cache.tiering() else { return Ok(None) };
        Ok(Some(Box::new(Self::new(policy, host()?, size_bytes)?)))
    }

    fn new(policy: &mut dyn Tiering, host: Host, size_bytes: usize) -> Result<Self> {
        let spec = policy.spec();
        if !spec.chunk_bytes.is_power_of_two() || spec.chunk_bytes < 4096 {
            let expected = "a power of two from 4096 on";
            return Err(Error::malformed("bytes of a chunk", expected, spec.chunk_bytes));
        }
        let num_chunks = size_bytes.div_ceil(spec.chunk_bytes);
        let resident_max = (spec.resident_bytes_max / spec.chunk_bytes as u64) as usize;
        policy.lay_out(num_chunks, resident_max);
        let stats = TierStats {
            resident_max: resident_max as u64,
            chunks: num_chunks as u64,
            ..TierStats::default()
        };
        let spill = Spill::new(host, &spec.folder, num_chunks);
        Ok(Self {
            reader: Reader::new(spill.host().clone(), spec.chunk_bytes),
            spill,
            chunks: vec![Chunk::default(); num_chunks],
            num_resident: 0,
            stats,
            fault: None,
            now: Vec::new(),
            soon: Vec::new(),
            evict: Vec::new(),
            fetch: Vec::new(),
            mark: 0,
            spec,
        })
    }

    fn bytes_of<'a>(&self, chunk: u32, arena: &'a mut [u8]) -> &'a mut [u8] {
        let start = chunk as usize * self.spec.chunk_bytes;
        let end = arena.len().min(start + self.spec.chunk_bytes);
        &mut arena[start..end]
    }

    /// Whether a block of any state lies in one of some chunks, in whole or in part.
    pub(super) fn is_in(
        &self,
        (layout, states): (&StateLayout, &[StateSpec]),
        block: u32,
        chunks: &[u32],
    ) -> bool {
        let size = self.spec.chunk_bytes;
        let lies_there = |(start, end): (usize, usize)| {
            (start / size..end.div_ceil(size)).any(|chunk| chunks.contains(&(chunk as u32)))
        };
        (0..states.len()).any(|state| ranges(layout, states, state, block).any(lies_there))
    }

    /// Lists the chunks of a block of a state in `now` or `soon`.
    fn list(&mut self, is_now: bool, (start, end): (usize, usize)) {
        let size = self.spec.chunk_bytes;
        for chunk in start / size..end.div_ceil(size) {
            if self.chunks[chunk].mark != self.mark {
                self.chunks[chunk].mark = self.mark;
                let list = if is_now { &mut self.now } else { &mut self.soon };
                list.push(chunk as u32);
            }
        }
    }

    fn list_state(&mut self, is_now: bool, of: &Step<'_>, state: usize) {
        self.mark += 1;
        let size = of.layout.pool.block_size;
        // A state per sequence goes on from that after the token before.
        let window = match of.states[state].per {
            Per::Token { window } => window as usize,
            Per::Sequence => 2,
        };
        of.batch.each_row(&mut |positions, table| {
            let first = if window == 0 { 0 } else { (positions.start + 1).saturating_sub(window) };
            for block in &table[first / size..positions.end.div_ceil(size).min(table.len())] {
                for range in ranges(of.layout, of.states, state, *block) {
                    self.list(is_now, range);
                }
            }
        });
    }

    /// Makes everything that a step touches of a state resident, and has what it touches of the next
    /// one fetched.
    fn enter(
        &mut self,
        policy: &mut dyn Tiering,
        of: &Step<'_>,
        state: usize,
        arena: &mut [u8],
    ) -> Result<()> {
        self.now.clear();
        self.list_state(true, of, state);
        self.bring_in(policy, arena)?;
        // Blocks that are written: their chunks are listed, and resident.
        let size = of.layout.pool.block_size;
        for (block, _) in of.batch.places(size) {
            self.write_to(ranges(of.layout, of.states, state, block));
        }
        self.soon.clear();
        self.list_state(false, of, (state + 1) % of.states.len());
        self.fetch_ahead(policy, arena);
        Ok(())
    }

    fn write_to(&mut self, ranges: impl Iterator<Item = (usize, usize)>) {
        for (start, end) in ranges {
            for chunk in start / self.spec.chunk_bytes..end.div_ceil(self.spec.chunk_bytes) {
                (self.chunks[chunk].is_dirty, self.chunks[chunk].is_used) = (true, true);
            }
        }
    }

    /// Makes blocks resident in a state before one is copied to the other.
    pub(super) fn enter_blocks(
        &mut self,
        policy: &mut dyn Tiering,
        (layout, states): (&StateLayout, &[StateSpec]),
        state: usize,
        [from, to]: [u32; 2],
        arena: &mut [u8],
    ) -> Result<()> {
        self.now.clear();
        self.mark += 1;
        for block in [from, to] {
            ranges(layout, states, state, block).for_each(|range| self.list(true, range));
        }
        self.bring_in(policy, arena)?;
        self.write_to(ranges(layout, states, state, to));
        Ok(())
    }

    /// Makes the chunks in `now` resident.
    fn bring_in(&mut self, policy: &mut dyn Tiering, arena: &mut [u8]) -> Result<()> {
        let now = std::mem::take(&mut self.now);
        let result = self.bring(policy, &now, arena);
        if result.is_err() {
            // What was decided and did not come about.
            for &chunk in &now {
                if !self.chunks[chunk as usize].is_resident {
                    policy.correct(chunk, false);
                }
            }
        }
        self.now = now;
        result
    }

    fn bring(&mut self, policy: &mut dyn Tiering, now: &[u32], arena: &mut [u8]) -> Result<()> {
        self.evict.clear();
        let touched = policy.touch(now, &mut self.evict);
        touched.inspect_err(|error| self.fault = Some(TierFault::Full(error.clone())))?;
        self.leave_all(policy, arena).inspect_err(|error| {
            self.fault = Some(TierFault::Full(error.clone()));
        })?;
        for &chunk in now {
            let Chunk { is_resident, is_used, awaited, .. } = self.chunks[chunk as usize];
            self.stats.uses += u64::from(is_used);
            match awaited {
                Some(_) => self.stats.prefetched += 1,
                None => self.stats.hits += u64::from(is_used && is_resident),
            }
            if !is_resident || awaited.is_some() {
                self.load(chunk, arena)
                    .inspect_err(|_| self.fault = Some(TierFault::Lost(chunk)))?;
            }
        }
        self.stats.resident_peak = self.stats.resident_peak.max(self.num_resident as u64);
        Ok(())
    }

    /// Reads a chunk, or waits for the thread that reads it.
    fn load(&mut self, chunk: u32, arena: &mut [u8]) -> Result<()> {
        let awaited = self.chunks[chunk as usize].awaited.take();
        let place = self.spill.find(chunk);
        self.set_resident(chunk, false);
        if let Some((path, place)) = place {
            self.stats.reads += 1;
            let out = self.bytes_of(chunk, arena);
            let is_here = awaited.is_some_and(|ticket| self.reader.take(ticket, out));
            if !is_here {
                spill::read(self.spill.host(), &path, &place, chunk, out)?;
            }
        }
        self.set_resident(chunk, true);
        Ok(())
    }

    fn set_resident(&mut self, chunk: u32, is_resident: bool) {
        let of = &mut self.chunks[chunk as usize];
        self.num_resident += usize::from(is_resident);
        self.num_resident -= usize::from(of.is_resident);
        of.is_resident = is_resident;
    }

    /// Lets the chunks in `evict` go. After one that cannot be written, it and the others stay.
    fn leave_all(&mut self, policy: &mut dyn Tiering, arena: &mut [u8]) -> Result<()> {
        let mut result = Ok(());
        for i in 0..self.evict.len() {
            let chunk = self.evict[i];
            if result.is_ok() {
                result = self.leave(chunk, arena);
            }
            if result.is_err() {
                policy.correct(chunk, true);
            }
        }
        result
    }

    fn leave(&mut self, chunk: u32, arena: &mut [u8]) -> Result<()> {
        let bytes = self.bytes_of(chunk, arena);
        let of = self.chunks[chunk as usize];
        if of.is_dirty && of.awaited.is_none() {
            self.spill.write(chunk, bytes)?;
            self.stats.writes += 1;
            self.chunks[chunk as usize].is_dirty = false;
        }
        self.chunks[chunk as usize].awaited = None;
        release_pages(bytes);
        self.set_resident(chunk, false);
        Ok(())
    }

    /// Has chunks in `soon` fetched, as far as the cache has room for them. What does not succeed
    /// here is tried again when it is needed.
    fn fetch_ahead(&mut self, policy: &mut dyn Tiering, arena: &mut [u8]) {
        let soon = std::mem::take(&mut self.soon);
        let mut fetch = std::mem::take(&mut self.fetch);
        fetch.clear();
        self.evict.clear();
        policy.prefetch(&soon, &mut fetch, &mut self.evict);
        let is_room = self.leave_all(policy, arena).is_ok();
        for &chunk in &fetch {
            match self.spill.find(chunk) {
                Some((path, place)) if is_room => {
                    let ticket = self.reader.ask(chunk, path, place);
                    self.chunks[chunk as usize].awaited = Some(ticket);
                    self.set_resident(chunk, true);
                }
                // Nothing to read: what was never written is resident as soon as it is touched.
                _ => policy.correct(chunk, false),
            }
        }
        (self.soon, self.fetch) = (soon, fetch);
    }

    /// Marks the chunks of a block, in all states.
    pub(super) fn hold(
        &self,
        (layout, states): (&StateLayout, &[StateSpec]),
        block: u32,
        held: &mut Vec<bool>,
    ) {
        held.resize(self.chunks.len(), false);
        let size = self.spec.chunk_bytes;
        for (start, end) in (0..states.len()).flat_map(|state| ranges(layout, states, state, block))
        {
            held[start / size..end.div_ceil(size)].fill(true);
        }
    }

    /// Lets what is in memory and not held go, unwritten. Returns the chunks.
    pub(super) fn drop_unheld(&mut self, held: &[bool], arena: &mut [u8]) -> Vec<u32> {
        let is_held = |chunk: u32| held.get(chunk as usize).copied().unwrap_or(false);
        let gone: Vec<u32> = (0..self.chunks.len() as u32)
            .filter(|&chunk| self.chunks[chunk as usize].is_resident && !is_held(chunk))
            .collect();
        for &chunk in &gone {
            release_pages(self.bytes_of(chunk, arena));
            self.spill.forget(chunk);
            self.set_resident(chunk, false);
            self.chunks[chunk as usize] = Chunk::default();
        }
        gone
    }

    /// A chunk could not be read: those that are gone with it, in memory as if nothing had been
    /// written there. What is in memory is not lost, wherever its record is.
    pub(super) fn forget(&mut self, chunk: u32) -> Vec<u32> {
        let mut lost = self.spill.lost_with(chunk, self.spec.chunk_bytes);
        lost.retain(|other| {
            self.spill.forget(*other);
            let of = &mut self.chunks[*other as usize];
            let is_here = of.is_resident && of.awaited.is_none() && *other != chunk;
            of.is_dirty |= is_here;
            !is_here
        });
        for &chunk in &lost {
            self.set_resident(chunk, false);
            self.chunks[chunk as usize] = Chunk::default();
        }
        lost
    }
}

/// What a step is about.
pub(super) struct Step<'a> {
    pub(super) batch: &'a StepBatch,
    pub(super) layout: &'a StateLayout,
    pub(super) states: &'a [StateSpec],
}

/// Where a block of a state lies: one range of bytes for each part.
fn ranges<'a>(
    layout: &'a StateLayout,
    states: &'a [StateSpec],
    state: usize,
    block: u32,
) -> impl Iterator<Item = (usize, usize)> + use<'a> {
    let place = &layout.places[state];
    let rows = states[state].per.rows_of_block(layout.pool.block_size);
    states[state].parts.iter().zip(&place.offsets).map(move |(part, offset)| {
        let size = place.storage.block_bytes(part, rows);
        let start = offset + block as usize * size;
        (start, start + size)
    })
}

/// Lent to a backend for one run.
pub(super) struct Pager<'a> {
    pub(super) tiers: &'a mut Tiers,
    pub(super) policy: &'a mut dyn Tiering,
    pub(super) step: Step<'a>,
}

impl StatePager for Pager<'_> {
    fn enter(&mut self, state: usize, arena: &mut [u8]) -> Result<()> {
        self.tiers.enter(self.policy, &self.step, state, arena)
    }
}
