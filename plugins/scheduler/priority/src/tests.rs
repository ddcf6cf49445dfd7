//! Who ranks before whom, case by case, and how waiting changes it.

use super::*;
use plugin_api::testing::scheduler;

fn open(steps_per_level: i32) -> Priority {
    Priority::from_config(&Config::new().with("steps_per_level", steps_per_level)).unwrap()
}

#[test]
fn passes_the_contract_suite() {
    for steps_per_level in [1, 7, 64] {
        scheduler::suite::<Priority>(&Config::new().with("steps_per_level", steps_per_level));
    }
}

fn waiting(seq: usize, pending: usize, priority: i32, is_running: bool) -> Waiting {
    Waiting { seq: SeqId(seq as u32), pending, is_running, is_atomic: false, priority }
}

/// Name, (pending, priority, is running), limits, picked indices with tokens.
type Case =
    (&'static str, &'static [(usize, i32, bool)], (usize, usize), &'static [(usize, usize)]);

#[test]
fn ranks_by_priority_then_running_then_arrival() {
    #[rustfmt::skip]
    let cases: [Case; 9] = [
        // name                pending, priority, runs                           tokens, seqs  index, tokens
        ("nothing waits",      &[],                                              (8, 4),  &[]),
        ("no tokens",          &[(1, 0, true)],                                  (0, 4),  &[]),
        ("highest first",      &[(4, 0, false), (4, 2, false), (4, 1, false)],   (10, 4), &[(1, 4), (2, 4), (0, 2)]),
        ("equals by arrival",  &[(4, 1, false), (4, 1, false), (4, 1, false)],   (10, 4), &[(0, 4), (1, 4), (2, 2)]),
        ("running of equals",  &[(4, 0, false), (3, 0, true)],                   (5, 4),  &[(1, 3), (0, 2)]),
        ("takes the place",    &[(1, 0, true), (1, 0, true), (4, 9, false)],     (8, 2),  &[(0, 1), (2, 4)]),
        ("streams beside it",  &[(1, 0, true), (1, 0, true), (99, 9, false)],    (8, 3),  &[(0, 1), (1, 1), (2, 6)]),
        ("a token is kept",    &[(1, 0, true), (1, 0, true), (99, 9, false)],    (2, 3),  &[(0, 1), (2, 1)]),
        ("below zero",         &[(4, -1, true), (4, 0, false)],                  (4, 4),  &[(1, 4)]),
    ];
    for (name, queue, (tokens, seqs), expected) in cases {
        let entry = |(seq, &(pending, priority, runs))| waiting(seq, pending, priority, runs);
        let queue: Vec<Waiting> = queue.iter().enumerate().map(entry).collect();
        let picked = scheduler::pick(&mut open(64), &queue, &Limits { tokens, seqs });
        let picked: Vec<_> = picked.iter().map(|pick| (pick.index, pick.tokens)).collect();
        assert_eq!(picked, expected, "{name}");
    }
}

#[test]
fn whoever_waits_rises_and_falls_back_once_it_ran() {
    let (mut scheduler, limits) = (open(10), Limits { tokens: 4, seqs: 1 });
    let queue = [waiting(0, 900, 0, false), waiting(1, 900, 2, false)];
    let mut picks = Vec::new();
    for _ in 0..64 {
        let picked = scheduler::pick(&mut scheduler, &queue, &limits);
        picks.push(picked[0].index);
    }
    // Two levels of ten steps make it an equal, which arrived before.
    let turns: Vec<usize> = (0..64).filter(|step| picks[*step] == 0).collect();
    assert_eq!(turns, [20, 41, 62]);
}

#[test]
fn an_atomic_evaluation_that_ranks_first_goes_whole() {
    let mut atomic = waiting(0, 8, 1, false);
    atomic.is_atomic = true;
    let queue = [waiting(1, 1, 0, true), atomic];
    for (tokens, expected) in [(8, &[(1, 8)][..]), (9, &[(1, 8), (0, 1)]), (7, &[(0, 1)])] {
        let picked = scheduler::pick(&mut open(64), &queue, &Limits { tokens, seqs: 4 });
        let picked: Vec<_> = picked.iter().map(|pick| (pick.index, pick.tokens)).collect();
        assert_eq!(picked, expected, "{tokens} tokens");
    }
}

#[test]
fn who_has_ended_is_forgotten() {
    let (mut scheduler, limits) = (open(1), Limits { tokens: 1, seqs: 1 });
    for seq in 0..1_000 {
        let queue = [waiting(seq, 9, 1, true), waiting(seq + 1, 9, 0, false)];
        scheduler::pick(&mut scheduler, &queue, &limits);
    }
    assert!(scheduler.waits.len() <= ROUNDS_UNSEEN_MAX as usize, "{}", scheduler.waits.len());
}
