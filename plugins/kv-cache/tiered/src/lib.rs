//! Pages of which only some are in memory, and the policies that say which.
//!
//! Source: Qureshi et al., "Adaptive Insertion Policies for High Performance Caching", ISCA 2007,
//! section 4, for the policy that survives scans.

mod order;

use std::path::PathBuf;

use order::Order;
use plugin_api::prelude::*;

/// Pages whose chunks are in memory or in files.
#[derive(Debug)]
pub struct Tiered {
    pages: PagedCache<Plain>,
    spec: TierSpec,
    policy: Policy,
    prefetches: bool,
    order: Order,
    resident_max: usize,
    /// Chunks that came in on a miss, counted for the policy.
    num_misses: u64,
}

/// Where a chunk stands that came in because it was missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// As the one used last: it leaves when all others have been used since.
    Lru,
    /// As the next to leave, but one in so many: whatever is used again stays, and a scan of more
    /// than fits takes the place of nothing but itself.
    Bimodal,
}

/// One in so many chunks comes in as if it had been used before.
const BIMODAL_EVERY: u64 = 32;

/// How numbers are stored.
#[derive(Debug)]
struct Plain {
    dtype: DType,
}

impl PageCodec for Plain {
    const NAME: &'static str = "tiered";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { dtype: plain_dtype(config)? })
    }

    fn storage(&self, states: &[StateSpec]) -> Result<Vec<Storage>> {
        Ok(vec![Storage::Plain(self.dtype); states.len()])
    }

    fn semantic_id(&self) -> SemanticId {
        plain_id(self.dtype)
    }
}

impl Capability for Tiered {
    const NAME: &'static str = "tiered";

    fn from_config(config: &Config) -> Result<Self> {
        let chunk_kib = config.count_or("chunk_kib", 64, 4..=1 << 14)?;
        if !chunk_kib.is_power_of_two() {
            return Err(config.wrong("chunk_kib", "a power of two", config.get("chunk_kib")));
        }
        let policy = match config.one_of("policy", &["lru", "bimodal"])? {
            "lru" => Policy::Lru,
            _ => Policy::Bimodal,
        };
        let spec = TierSpec {
            chunk_bytes: chunk_kib as usize * 1024,
            resident_bytes_max: config.count_or("memory_kib", 256 << 10, 4..=1 << 32)? * 1024,
            folder: PathBuf::from(config.text_or("folder", "")?),
        };
        Ok(Self {
            pages: PagedCache::from_config(config)?,
            spec,
            policy,
            prefetches: config.flag_or("prefetch", true)?,
            order: Order::default(),
            resident_max: 0,
            num_misses: 0,
        })
    }
}

impl KvCache for Tiered {
    fn pool(&mut self, states: &[StateSpec], limits: &PoolLimits) -> Result<PoolSpec> {
        if self.spec.folder.as_os_str().is_empty() {
            let (key, expected) = ("folder".to_owned(), "a folder for files".to_owned());
            return Err(Error::Config { key, expected, found: "nothing".to_owned() });
        }
        self.pages.pool(states, limits)
    }

    fn reserve(&mut self, seq: SeqId, tokens: usize, moves: &mut Vec<BlockCopy>) -> Result<&[u32]> {
        self.pages.reserve(seq, tokens, moves)
    }

    fn commit(&mut self, seq: SeqId, keep: usize, moves: &mut Vec<BlockCopy>) {
        self.pages.commit(seq, keep, moves);
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

    fn prefix_caching(&mut self) -> Option<&mut dyn PrefixCaching> {
        self.pages.prefix_caching()
    }

    fn tiering(&mut self) -> Option<&mut dyn Tiering> {
        Some(self)
    }
}

impl Tiering for Tiered {
    fn spec(&self) -> TierSpec {
        self.spec.clone()
    }

    fn lay_out(&mut self, num_chunks: usize, resident_max: usize) {
        self.order = Order::new(num_chunks);
        self.resident_max = resident_max.min(num_chunks);
        self.num_misses = 0;
    }

    fn touch(&mut self, chunks: &[u32], evict: &mut Vec<u32>) -> Result<()> {
        if chunks.len() > self.resident_max {
            let (what, needed) = ("chunks of a layer in memory".into(), chunks.len() as u64);
            return Err(Error::NoSpace { what, needed, free: self.resident_max as u64 });
        }
        self.order.pin(chunks);
        for &chunk in chunks {
            if self.order.has(chunk) {
                // What was only fetched ahead has been used once, like any other that was missing.
                let was_fetched = self.order.take_fetched(chunk);
                if self.policy == Policy::Lru || !was_fetched {
                    self.order.move_to(chunk, true);
                }
                continue;
            }
            self.bring_in(chunk, evict);
        }
        Ok(())
    }

    fn correct(&mut self, chunk: u32, is_resident: bool) {
        match is_resident {
            true if !self.order.has(chunk) => self.order.insert(chunk, false),
            false if self.order.has(chunk) => self.order.remove(chunk),
            _ => {}
        }
    }

    fn lost(&mut self) {
        self.pages.pages_mut().forget_keys();
    }

    fn prefetch(&mut self, soon: &[u32], fetch: &mut Vec<u32>, evict: &mut Vec<u32>) {
        if !self.prefetches {
            return;
        }
        self.order.pin_more(soon);
        for &chunk in soon.iter().filter(|&&chunk| !self.order.has(chunk)).collect::<Vec<_>>() {
            if self.order.len() >= self.resident_max {
                let Some(victim) = self.order.last_free() else { return };
                self.order.remove(victim);
                evict.push(victim);
            }
            self.order.insert(chunk, self.policy == Policy::Lru);
            self.order.set_fetched(chunk);
            fetch.push(chunk);
        }
    }
}

impl Tiered {
    /// Makes room for a missing chunk and lets it in.
    fn bring_in(&mut self, chunk: u32, evict: &mut Vec<u32>) {
        while self.order.len() >= self.resident_max {
            let Some(victim) = self.order.last_free() else { break };
            self.order.remove(victim);
            evict.push(victim);
        }
        self.num_misses += 1;
        let is_first = self.policy == Policy::Lru || self.num_misses.is_multiple_of(BIMODAL_EVERY);
        self.order.insert(chunk, is_first);
    }
}

export_plugin!(Tiered);

#[cfg(test)]
mod tests;
