//! What goes into a step, case by case, and how long anybody waits.

use super::*;
use plugin_api::testing::scheduler;

#[test]
fn passes_the_contract_suite() {
    scheduler::suite::<Continuous>(&Config::new());
}

/// Name, pending tokens with (is running, is atomic), limits, picked indices with tokens.
type Case =
    (&'static str, &'static [(usize, (bool, bool))], (usize, usize), &'static [(usize, usize)]);

#[test]
fn streams_go_first_then_the_oldest_prompt_then_short_ones() {
    const RUNS: (bool, bool) = (true, false);
    const WAITS: (bool, bool) = (false, false);
    const WAITS_ATOMIC: (bool, bool) = (false, true);
    const RUNS_ATOMIC: (bool, bool) = (true, true);
    #[rustfmt::skip]
    let cases: [Case; 16] = [
        // name                 pending, state                         tokens, seqs  index, tokens
        ("nothing waits",       &[],                                   (8, 4),  &[]),
        ("no tokens",           &[(1, RUNS)],                          (0, 4),  &[]),
        ("no sequences",        &[(1, RUNS)],                          (8, 0),  &[]),
        ("streams first",       &[(5, WAITS), (1, RUNS)],              (8, 4),  &[(1, 1), (0, 5)]),
        ("drafts are streams",  &[(9, WAITS), (3, RUNS_ATOMIC)],       (8, 4),  &[(1, 3), (0, 5)]),
        ("alone, all of it",    &[(99, WAITS)],                        (8, 4),  &[(0, 8)]),
        ("half, then short",    &[(99, WAITS), (9, WAITS), (3, WAITS)], (16, 4), &[(0, 8), (2, 3), (1, 5)]),
        ("the rest is its own", &[(99, WAITS), (3, WAITS)],            (16, 4), &[(0, 13), (1, 3)]),
        ("begun prompts too",   &[(99, RUNS), (99, WAITS)],            (9, 4),  &[(0, 5), (1, 4)]),
        ("equals by arrival",   &[(2, WAITS), (4, WAITS), (4, WAITS)], (8, 4),  &[(0, 2), (1, 4), (2, 2)]),
        ("limit of sequences",  &[(9, WAITS), (1, RUNS), (1, WAITS)],  (8, 2),  &[(1, 1), (0, 7)]),
        ("never splits atomic", &[(9, WAITS_ATOMIC), (2, WAITS)],      (8, 4),  &[(1, 2)]),
        ("atomic, beside",      &[(6, WAITS_ATOMIC), (1, RUNS)],       (8, 4),  &[(1, 1), (0, 6)]),
        ("atomic, before",      &[(8, WAITS_ATOMIC), (1, RUNS)],       (8, 4),  &[(0, 8)]),
        ("atomic, not halved",  &[(6, WAITS_ATOMIC), (9, WAITS)],      (8, 4),  &[(0, 6), (1, 2)]),
        ("a later one waits",   &[(9, WAITS), (5, WAITS_ATOMIC)],      (8, 4),  &[(0, 8)]),
    ];
    for (name, queue, (tokens, seqs), expected) in cases {
        let waiting = |&(pending, (is_running, is_atomic)): &(usize, (bool, bool))| Waiting {
            seq: SeqId(0),
            pending,
            is_running,
            is_atomic,
            priority: 0,
        };
        let queue: Vec<Waiting> = queue.iter().map(waiting).collect();
        let limits = Limits { tokens, seqs };
        let picked = scheduler::pick(&mut Continuous::default(), &queue, &limits);
        let picked: Vec<_> = picked.iter().map(|pick| (pick.index, pick.tokens)).collect();
        assert_eq!(picked, expected, "{name}");
    }
}

#[test]
fn a_short_prompt_overtakes_a_long_one_that_takes_at_most_twice_as_long() {
    let mut queue = vec![(0, 4_000_usize, false)];
    let (mut finished, limits) = (Vec::new(), Limits { tokens: 100, seqs: 8 });
    for step in 0..200 {
        // One short prompt arrives at every step.
        queue.push((step + 1, 60, false));
        let waiting = |&(_, pending, is_running): &(usize, usize, bool)| Waiting {
            seq: SeqId(0),
            pending,
            is_running,
            is_atomic: false,
            priority: 0,
        };
        let entries: Vec<Waiting> = queue.iter().map(waiting).collect();
        for pick in scheduler::pick(&mut Continuous::default(), &entries, &limits) {
            queue[pick.index].1 -= pick.tokens;
            queue[pick.index].2 = true;
        }
        finished.extend(queue.iter().filter(|entry| entry.1 == 0).map(|entry| (entry.0, step)));
        queue.retain(|entry| entry.1 > 0);
    }
    let when = |id: usize| finished.iter().find(|(done, _)| *done == id).map(|(_, step)| *step);
    assert_eq!(when(1), Some(1), "60 tokens, 50 in a step");
    let long = when(0).expect("the long prompt ends");
    assert!(long < 2 * 4_000 / 100, "after step {long}");
}
