//! By priority, with ageing: whoever waits rises, so nobody waits for ever.
//!
//! Source: Silberschatz et al., "Operating System Concepts", 10th ed., section 5.3.4 (aging).

use std::cmp::Reverse;
use std::collections::HashMap;

use plugin_api::prelude::*;

/// Ranks sequences by what their requests say, and by how long they have waited.
#[derive(Debug)]
pub struct Priority {
    steps_per_level: u32,
    /// Picks so far.
    round: u64,
    /// What is known of sequences that were not picked.
    waits: HashMap<SeqId, Wait>,
    /// Places in the queue by rank, kept from step to step.
    ranked: Vec<(Reverse<i64>, bool, usize)>,
}

/// How long a sequence waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wait {
    /// Picks in vain.
    steps: u32,
    /// The round that it was in the queue last.
    seen: u64,
}

impl Capability for Priority {
    const NAME: &'static str = "priority";

    fn from_config(config: &Config) -> Result<Self> {
        let steps_per_level = config.count_or("steps_per_level", 64, 1..=1_000_000)? as u32;
        let (waits, ranked) = (HashMap::new(), Vec::new());
        Ok(Self { steps_per_level, round: 0, waits, ranked })
    }
}

impl Scheduler for Priority {
    fn pick(&mut self, queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) -> Result<()> {
        self.rank(queue, limits);
        let first = out.len();
        let mut step = Step { queue, tokens: limits.tokens, out };
        let is_stream = |index: usize| {
            let entry = &queue[index];
            entry.is_running && (entry.pending == 1 || entry.is_atomic)
        };
        let chosen = &self.ranked[..self.ranked.len().min(limits.seqs)];
        // Whoever ranks first always goes on: whole, or by a token at least.
        let head = chosen.first().map(|rank| rank.2).filter(|&index| !is_stream(index));
        let kept = match head {
            Some(index) if queue[index].is_atomic => {
                step.take(index, 0);
                0
            }
            Some(_) => 1,
            None => 0,
        };
        for &(.., index) in chosen.iter().filter(|rank| is_stream(rank.2)) {
            step.take(index, kept);
        }
        let prompts = chosen.iter().map(|rank| rank.2).filter(|&index| !is_stream(index));
        for index in prompts.filter(|index| head != Some(*index) || kept == 1) {
            step.take(index, 0);
        }
        self.remember(queue, &out[first..]);
        Ok(())
    }

    fn handover(&mut self) -> Option<&mut dyn Handover> {
        Some(self)
    }
}

impl Priority {
    /// Sorts what can run in this step: highest first, running before waiting, then by arrival.
    fn rank(&mut self, queue: &[Waiting], limits: &Limits) {
        let level = |seq| {
            let waited = self.waits.get(&seq).map_or(0, |wait| wait.steps);
            i64::from(waited / self.steps_per_level)
        };
        let fits = |entry: &Waiting| !entry.is_atomic || entry.pending <= limits.tokens;
        let entries = queue.iter().enumerate().filter(|(_, entry)| fits(entry));
        let rank = |(index, entry): (usize, &Waiting)| {
            let priority = i64::from(entry.priority) + level(entry.seq);
            (Reverse(priority), !entry.is_running, index)
        };
        self.ranked.clear();
        self.ranked.extend(entries.map(rank));
        self.ranked.sort_unstable();
    }

    /// Whoever was picked has not waited; whoever was not has waited a step longer.
    fn remember(&mut self, queue: &[Waiting], picked: &[Picked]) {
        self.round += 1;
        for entry in queue {
            let wait = self.waits.entry(entry.seq).or_insert(Wait { steps: 0, seen: 0 });
            *wait = Wait { steps: wait.steps.saturating_add(1), seen: self.round };
        }
        for entry in picked.iter().filter_map(|pick| queue.get(pick.index)) {
            self.waits.remove(&entry.seq);
        }
        // Plans that take turns show their sequences every few rounds; others have ended.
        let round = self.round;
        self.waits.retain(|_, wait| round - wait.seen < ROUNDS_UNSEEN_MAX);
    }
}

/// A step that is being filled.
struct Step<'a> {
    queue: &'a [Waiting],
    /// Tokens that are left of it.
    tokens: usize,
    out: &'a mut Vec<Picked>,
}

impl Step<'_> {
    /// Picks what there is room for of an entry, and keeps some tokens for another.
    fn take(&mut self, index: usize, keep: usize) {
        let entry = &self.queue[index];
        let tokens = entry.pending.min(self.tokens.saturating_sub(keep));
        if tokens > 0 && (tokens == entry.pending || !entry.is_atomic) {
            self.out.push(Picked { index, tokens });
            self.tokens -= tokens;
        }
    }
}

impl Handover for Priority {
    fn save(&self, out: &mut Vec<u8>) -> Result<()> {
        let mut waits: Vec<(SeqId, Wait)> =
            self.waits.iter().map(|(s, wait)| (*s, *wait)).collect();
        waits.sort_unstable_by_key(|(seq, _)| *seq);
        out.extend_from_slice(&SCHEMA.to_le_bytes());
        for (seq, Wait { steps, seen }) in waits {
            out.extend_from_slice(&seq.0.to_le_bytes());
            out.extend_from_slice(&steps.to_le_bytes());
            out.extend_from_slice(&(self.round - seen).to_le_bytes());
        }
        Ok(())
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        let malformed = |found: &str| {
            Err(Error::malformed(
                "state of priority",
                format!("schema {SCHEMA}, then waits"),
                found,
            ))
        };
        let Some((schema, rest)) = bytes.split_first_chunk() else { return malformed("no schema") };
        if u32::from_le_bytes(*schema) != SCHEMA {
            return malformed("another schema");
        }
        let (waits, rest) = rest.as_chunks::<16>();
        if !rest.is_empty() {
            return malformed("half a wait");
        }
        // Counted from a round that leaves room for everything that was seen before it.
        let round = ROUNDS_UNSEEN_MAX;
        let mut restored = HashMap::with_capacity(waits.len());
        for wait in waits {
            let word = |i: usize| [wait[i], wait[i + 1], wait[i + 2], wait[i + 3]];
            let unseen = u64::from(u32::from_le_bytes(word(8)))
                | u64::from(u32::from_le_bytes(word(12))) << 32;
            if unseen >= ROUNDS_UNSEEN_MAX {
                return malformed("a wait that nobody saw");
            }
            let steps = u32::from_le_bytes(word(4));
            restored
                .insert(SeqId(u32::from_le_bytes(word(0))), Wait { steps, seen: round - unseen });
        }
        (self.round, self.waits) = (round, restored);
        Ok(())
    }
}

/// The layout of what is handed over.
const SCHEMA: u32 = 1;

/// Rounds after which a sequence that is not in the queue has ended.
const ROUNDS_UNSEEN_MAX: u64 = 16;

export_plugin!(Priority);

#[cfg(test)]
mod tests;
