//! How busy an engine is, for threads that do not own it: numbers in atomics, no locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::engine::Engine;

/// What an engine has to do and has done. Counts are since it was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests with tokens in the cache.
    pub running: u64,
    /// Requests without any: not begun, or preempted.
    pub waiting: u64,
    /// Blocks of the cache that sequences hold.
    pub blocks_used: u64,
    /// All blocks.
    pub blocks_total: u64,
    /// Steps that evaluated something.
    pub steps: u64,
    /// Tokens that were evaluated.
    pub evaluated_tokens: u64,
    /// Tokens of prompts that were begun.
    pub prompt_tokens: u64,
    /// Those of them that were in the cache.
    pub cached_tokens: u64,
    /// Tokens of answers.
    pub tokens: u64,
    /// Drafts of tokens that were evaluated.
    pub draft_tokens: u64,
    /// Those of them that came true.
    pub accepted_tokens: u64,
    /// How often a sequence lost its cache to an older one.
    pub preemptions: u64,
    /// Bytes of state that were converted for a cache of another type.
    pub converted_bytes: u64,
    /// Requests that went on with precise weights.
    pub precise_requests: u64,
}

/// Reads the load of an engine from any thread. Numbers are those of the last step, cancellation or
/// submission; each is exact, together they may be of two moments.
#[derive(Debug, Clone)]
pub struct Gauge {
    numbers: Arc<Numbers>,
}

impl Gauge {
    /// The load as it is told now.
    pub fn read(&self) -> Load {
        let of = |place: &AtomicU64| place.load(Ordering::Relaxed);
        let n = &*self.numbers;
        Load {
            running: of(&n.running),
            waiting: of(&n.waiting),
            blocks_used: of(&n.blocks_used),
            blocks_total: of(&n.blocks_total),
            steps: of(&n.steps),
            evaluated_tokens: of(&n.evaluated_tokens),
            prompt_tokens: of(&n.prompt_tokens),
            cached_tokens: of(&n.cached_tokens),
            tokens: of(&n.tokens),
            draft_tokens: of(&n.draft_tokens),
            accepted_tokens: of(&n.accepted_tokens),
            preemptions: of(&n.preemptions),
            converted_bytes: of(&n.converted_bytes),
            precise_requests: of(&n.precise_requests),
        }
    }
}

/// A load that is written by one thread and read by others.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    running: AtomicU64,
    waiting: AtomicU64,
    blocks_used: AtomicU64,
    blocks_total: AtomicU64,
    steps: AtomicU64,
    evaluated_tokens: AtomicU64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    tokens: AtomicU64,
    draft_tokens: AtomicU64,
    accepted_tokens: AtomicU64,
    preemptions: AtomicU64,
    converted_bytes: AtomicU64,
    precise_requests: AtomicU64,
}

impl Numbers {
    fn tell(&self, load: &Load) {
        let tell = |place: &AtomicU64, number: u64| place.store(number, Ordering::Relaxed);
        tell(&self.running, load.running);
        tell(&self.waiting, load.waiting);
        tell(&self.blocks_used, load.blocks_used);
        tell(&self.blocks_total, load.blocks_total);
        tell(&self.steps, load.steps);
        tell(&self.evaluated_tokens, load.evaluated_tokens);
        tell(&self.prompt_tokens, load.prompt_tokens);
        tell(&self.cached_tokens, load.cached_tokens);
        tell(&self.tokens, load.tokens);
        tell(&self.draft_tokens, load.draft_tokens);
        tell(&self.accepted_tokens, load.accepted_tokens);
        tell(&self.preemptions, load.preemptions);
        tell(&self.converted_bytes, load.converted_bytes);
        tell(&self.precise_requests, load.precise_requests);
    }
}

impl Engine {
    /// Reads the load of this engine, from any thread.
    pub fn gauge(&self) -> Gauge {
        Gauge { numbers: Arc::clone(&self.numbers) }
    }

    /// Tells other threads how busy the engine is.
    pub(super) fn tell_load(&mut self) {
        let is_running = |seq: &plugin_api::kinds::kv_cache::SeqId| {
            self.sequences.get(seq.0 as usize).is_some_and(|s| s.num_evaluated > 0)
        };
        let running = self.groups.iter().filter(|(_, group)| group.seqs.iter().any(is_running));
        let running = running.count() as u64;
        let usage = self.cache.get().usage();
        let load = &mut self.load;
        (load.running, load.waiting) = (running, self.groups.len() as u64 - running);
        (load.blocks_used, load.blocks_total) = (usage.used as u64, usage.total as u64);
        self.numbers.tell(load);
    }
}
