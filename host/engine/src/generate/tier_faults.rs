//! What becomes of sequences when a chunk of the pool cannot be had, or has no room.

use plugin_api::kinds::kv_cache::{BlockCopy, SeqId};
use plugin_api::plan::StateSpec;
use plugin_api::{Error, Kind, KvCache};

use super::engine::Engine;
use super::step::{Sink, StepReport};
use super::tiers::{TierFault, TierStats, Tiers};
use crate::error::EngineError;
use crate::model::memory::StateLayout;

/// Says whether a block is lost.
type IsLost<'a> = &'a dyn Fn(&Tiers, (&StateLayout, &[StateSpec]), u32) -> bool;

/// How often a sequence is computed again before its request fails.
const LOSSES_MAX: u32 = 8;

impl Engine {
    /// What moved between memory and files; nothing for a cache without tiers.
    pub fn tier_stats(&self) -> Option<TierStats> {
        self.tiers.as_ref().map(|tiers| tiers.stats)
    }

    /// After a run that failed: if it was for a chunk, requests are put right and the step is over;
    /// else the error is the backend's.
    pub(super) fn after_tier_fault(
        &mut self,
        error: EngineError,
        sink: Sink<'_>,
    ) -> Result<StepReport, EngineError> {
        let fault = self.tiers.as_mut().and_then(|tiers| tiers.fault.take());
        match fault {
            None => return Err(error),
            Some(TierFault::Full(error)) => {
                // On a full disk whoever came last makes room for the others, in memory whoever needs most.
                let is_memory = matches!(error, Error::NoSpace { .. });
                let tokens =
                    |seq: SeqId| self.sequences.get(seq.0 as usize).map(|s| s.tokens.len());
                let entries = self.work.batch.entries.iter();
                let last = entries.max_by_key(|entry| {
                    let needs = if is_memory { tokens(entry.seq) } else { None };
                    (needs, self.request_of(entry.seq))
                });
                if let Some(seq) = last.map(|entry| entry.seq) {
                    self.abort_seq(seq, &error, sink);
                }
                self.drop_unheld();
            }
            Some(TierFault::Lost(chunk)) => {
                let what = error.to_string();
                for seq in self.lose_chunk(chunk) {
                    let error = Error::outside("tiers of the kv-cache", &what);
                    self.abort_seq(seq, &error, sink);
                }
            }
        }
        self.tell_load();
        Ok(StepReport::default())
    }

    /// Lets go what lies in memory of nobody, so that there is room without files.
    fn drop_unheld(&mut self) {
        let Some(tiers) = &mut self.tiers else { return };
        let (cache, of) = (self.cache.get_mut(), (&*self.layout, &self.model.states[..]));
        let mut held = Vec::new();
        for (place, _) in self.sequences.iter().filter(|(_, s)| s.num_evaluated > 0) {
            let seq = SeqId(place as u32);
            let table = cache.reserve(seq, 0, &mut self.work.moves).unwrap_or_default();
            table.iter().for_each(|&block| tiers.hold(of, block, &mut held));
        }
        let gone = tiers.drop_unheld(&held, self.state.as_mut_slice());
        if let Some(policy) = cache.tiering() {
            gone.iter().for_each(|&chunk| policy.correct(chunk, false));
            policy.lost();
        }
    }

    /// After a run outside of steps that failed: others go on.
    pub(super) fn tiers_failed(&mut self) {
        let fault = self.tiers.as_mut().and_then(|tiers| tiers.fault.take());
        if let Some(TierFault::Lost(chunk)) = fault {
            self.lose_chunk(chunk);
        }
    }

    /// Has every sequence with tokens in a chunk that is lost, or in one lost with it, computed again. Those that this has happened to
    /// too often are returned.
    pub(super) fn lose_chunk(&mut self, chunk: u32) -> Vec<SeqId> {
        let Some(tiers) = &mut self.tiers else { return Vec::new() };
        let lost = tiers.forget(chunk);
        if let Some(policy) = self.cache.get_mut().tiering() {
            lost.iter().for_each(|&chunk| policy.correct(chunk, false));
        }
        self.lose_where(&|tiers, of, block| tiers.is_in(of, block, &lost))
    }

    /// Has every sequence with a block that is lost computed again, and no other one adopt it.
    fn lose_where(&mut self, is_lost: IsLost<'_>) -> Vec<SeqId> {
        let Some(tiers) = &self.tiers else { return Vec::new() };
        let (cache, of) = (self.cache.get_mut(), (&*self.layout, &self.model.states[..]));
        let mut hit = Vec::new();
        for (place, _) in self.sequences.iter().filter(|(_, s)| s.num_evaluated > 0) {
            let seq = SeqId(place as u32);
            let table = cache.reserve(seq, 0, &mut self.work.moves).unwrap_or_default();
            if table.iter().any(|&block| is_lost(tiers, of, block)) {
                hit.push(seq);
            }
        }
        if let Some(policy) = cache.tiering() {
            policy.lost();
        }
        hit.retain(|seq| {
            self.cache.get_mut().release(*seq, 0);
            let Some(sequence) = self.sequences.get_mut(seq.0 as usize) else { return false };
            sequence.num_evaluated = 0;
            sequence.chain.forget();
            sequence.losses += 1;
            sequence.losses > LOSSES_MAX
        });
        hit
    }

    /// Makes resident what is about to be copied in a state; whether it is. Who holds a block that
    /// cannot be copied to is computed again.
    pub(super) fn bring_in_move(&mut self, state: usize, copy: BlockCopy) -> bool {
        let (Some(tiers), Some(policy)) = (&mut self.tiers, self.cache.get_mut().tiering()) else {
            return true;
        };
        let of = (&*self.layout, &self.model.states[..]);
        let arena = self.state.as_mut_slice();
        let Err(error) = tiers.enter_blocks(policy, of, state, [copy.from, copy.to], arena) else {
            return true;
        };
        tiers.fault = None;
        self.tell_fault(<dyn KvCache>::NAME, "tiers", 0, &error);
        // A sequence that this happens to again and again fails when it is evaluated.
        self.lose_where(&|_, _, block| block == copy.to);
        false
    }
}
