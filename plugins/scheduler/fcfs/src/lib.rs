//! First come, first served: running sequences go on, then waiting ones start in order of arrival.
//!
//! Source: Agrawal et al., "Sarathi-Serve" (chunked prefill), arXiv:2403.02310, section 4.

use plugin_api::prelude::*;

/// Chooses by age only. Long prompts run in chunks that fill what the running sequences leave.
#[derive(Debug)]
pub struct Fcfs;

impl Capability for Fcfs {
    const NAME: &'static str = "fcfs";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Scheduler for Fcfs {
    fn pick(&mut self, queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) -> Result<()> {
        let (mut tokens_left, mut seqs_left) = (limits.tokens, limits.seqs);
        for is_running in [true, false] {
            for (index, entry) in queue.iter().enumerate() {
                let tokens = entry.pending.min(tokens_left);
                let is_split = tokens < entry.pending;
                if entry.is_running != is_running || tokens == 0 || entry.is_atomic && is_split {
                    continue;
                }
                if seqs_left == 0 {
                    return Ok(());
                }
                out.push(Picked { index, tokens });
                tokens_left -= tokens;
                seqs_left -= 1;
            }
        }
        Ok(())
    }
}

export_plugin!(Fcfs);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::scheduler;

    #[test]
    fn passes_the_contract_suite() {
        scheduler::suite::<Fcfs>(&Config::new());
    }

    /// Name, pending tokens with (is running, is atomic), limits, picked indices with tokens.
    type Case =
        (&'static str, &'static [(usize, (bool, bool))], (usize, usize), &'static [(usize, usize)]);

    #[test]
    fn picks_running_first_then_by_arrival() {
        const RUNS: (bool, bool) = (true, false);
        const WAITS: (bool, bool) = (false, false);
        const WAITS_ATOMIC: (bool, bool) = (false, true);
        #[rustfmt::skip]
        let cases: [Case; 7] = [
            // name                 pending, state             tokens, seqs  index, tokens
            ("nothing waits",       &[],                       (8, 4),       &[]),
            ("no budget",           &[(1, RUNS)],              (0, 4),       &[]),
            ("running goes first",  &[(5, WAITS), (1, RUNS)],  (8, 4),       &[(1, 1), (0, 5)]),
            ("chunks the prompt",   &[(9, WAITS), (1, RUNS)],  (8, 4),       &[(1, 1), (0, 7)]),
            ("in order of arrival", &[(3, WAITS), (9, WAITS)], (8, 4),       &[(0, 3), (1, 5)]),
            ("never splits atomic", &[(9, WAITS_ATOMIC), (2, WAITS)], (8, 4), &[(1, 2)]),
            ("limit of sequences",  &[(1, WAITS), (1, RUNS), (1, RUNS)], (8, 2), &[(1, 1), (2, 1)]),
        ];
        for (name, queue, (tokens, seqs), expected) in cases {
            let queue: Vec<Waiting> = queue
                .iter()
                .map(|&(pending, (is_running, is_atomic))| Waiting {
                    seq: SeqId(0),
                    pending,
                    is_running,
                    is_atomic,
                    priority: 0,
                })
                .collect();
            let picked = scheduler::pick(&mut Fcfs, &queue, &Limits { tokens, seqs });
            let picked: Vec<_> = picked.iter().map(|pick| (pick.index, pick.tokens)).collect();
            assert_eq!(picked, expected, "{name}");
        }
    }
}
