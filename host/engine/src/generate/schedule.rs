//! What waits, what the scheduler picks of it, and who picks when it cannot.

use plugin_api::kinds::scheduler::{Limits, Picked, Waiting};
use plugin_api::{Error, Kind, Scheduler};

use super::engine::Engine;
use super::prefix;

impl Engine {
    /// Lets the scheduler pick from all sequences with tokens to evaluate by the plan whose turn it
    /// is.
    pub(super) fn schedule(&mut self) {
        let (work, turn) = (&mut self.work, self.plans.turn());
        work.queue.clear();
        // Only as many as one step may start are looked up.
        let mut lookups_left = self.limits.seqs;
        for &index in &work.order {
            let Some(group) = self.groups.get(index) else { continue };
            if group.plan != turn.generation {
                continue;
            }
            for &seq in &group.seqs {
                let Some(sequence) = self.sequences.get_mut(seq.0 as usize) else { continue };
                let mut pending = sequence.pending_with(turn.is_precise);
                if pending > 0 && sequence.is_awaited() {
                    let is_new = sequence.num_evaluated == 0 && !sequence.is_atomic;
                    if is_new && group.scores.is_none() && lookups_left > 0 {
                        let (cache, key) = (self.cache.get_mut(), &group.seed_key);
                        pending -= prefix::find(cache, sequence, key, self.layout.pool.block_size);
                        lookups_left -= 1;
                    }
                    work.queue.push(Waiting {
                        seq,
                        pending,
                        is_running: sequence.num_evaluated > 0,
                        is_atomic: sequence.is_atomic,
                        priority: group.priority,
                    });
                }
            }
        }
        work.picked.clear();
        let scheduler = self.scheduler.get_mut();
        if let Err(error) = scheduler.pick(&work.queue, &self.limits, &mut work.picked) {
            self.pick_by_arrival();
            self.scheduler_failed(error);
        }
    }

    /// Picks again, as if the scheduler had failed.
    pub(super) fn pick_by_arrival(&mut self) {
        self.work.picked.clear();
        by_arrival(&self.work.queue, &self.limits, &mut self.work.picked);
    }

    /// Tells of an error once: a scheduler that fails does so at every step.
    fn scheduler_failed(&mut self, error: Error) {
        if self.scheduler_faults.len() < FAULTS_TOLD_MAX && !self.scheduler_faults.contains(&error)
        {
            let name = self.scheduler.label().name.clone();
            self.tell_fault(<dyn Scheduler>::NAME, &name, 0, &error);
            self.scheduler_faults.push(error);
        }
    }
}

/// Stands in for a scheduler that failed, or whose picks have no room: requests do not wait for a
/// broken policy. What runs goes on, what waits starts in order of arrival, and what is atomic runs
/// whole or not at all.
fn by_arrival(queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) {
    let (mut tokens_left, mut seqs_left) = (limits.tokens, limits.seqs);
    for is_running in [true, false] {
        for (index, entry) in queue.iter().enumerate() {
            let tokens = entry.pending.min(tokens_left);
            let is_whole = tokens == entry.pending;
            let is_fit = tokens > 0 && seqs_left > 0 && (is_whole || !entry.is_atomic);
            if entry.is_running == is_running && is_fit {
                out.push(Picked { index, tokens });
                tokens_left -= tokens;
                seqs_left -= 1;
            }
        }
    }
}

/// Errors of one scheduler that are told: an error that counts would be told for ever.
const FAULTS_TOLD_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use plugin_api::kinds::kv_cache::SeqId;

    use super::*;

    /// Name, pending tokens with (is running, is atomic), limits, picked indices with tokens.
    type Case =
        (&'static str, &'static [(usize, (bool, bool))], (usize, usize), &'static [(usize, usize)]);

    #[test]
    fn the_stand_in_picks_running_first_then_by_arrival() {
        const RUNS: (bool, bool) = (true, false);
        const WAITS: (bool, bool) = (false, false);
        const ATOMIC: (bool, bool) = (false, true);
        #[rustfmt::skip]
        let cases: [Case; 7] = [
            // name                 pending, state             tokens, seqs  index, tokens
            ("nothing waits",       &[],                       (8, 4),       &[]),
            ("no budget",           &[(1, RUNS)],              (0, 4),       &[]),
            ("running goes first",  &[(5, WAITS), (1, RUNS)],  (8, 4),       &[(1, 1), (0, 5)]),
            ("chunks the prompt",   &[(9, WAITS), (1, RUNS)],  (8, 4),       &[(1, 1), (0, 7)]),
            ("atomic, whole",       &[(8, ATOMIC), (2, WAITS)], (8, 4),      &[(0, 8)]),
            ("atomic, not at all",  &[(9, ATOMIC), (2, WAITS)], (8, 4),      &[(1, 2)]),
            ("limit of sequences",  &[(1, WAITS), (1, RUNS), (1, RUNS)], (8, 2), &[(1, 1), (2, 1)]),
        ];
        for (name, queue, (tokens, seqs), expected) in cases {
            let waiting = |&(pending, (is_running, is_atomic)): &(usize, (bool, bool))| Waiting {
                seq: SeqId(0),
                pending,
                is_running,
                is_atomic,
                priority: 0,
            };
            let (queue, mut picked): (Vec<_>, _) =
                (queue.iter().map(waiting).collect(), Vec::new());
            by_arrival(&queue, &Limits { tokens, seqs }, &mut picked);
            let picked: Vec<_> = picked.iter().map(|pick| (pick.index, pick.tokens)).collect();
            assert_eq!(picked, expected, "{name}");
        }
    }
}
