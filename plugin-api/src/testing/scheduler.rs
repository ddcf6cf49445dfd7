//! Contract suite of schedulers: random queues, and what must hold for every choice; a state that is
//! handed over decides all that follows.

use super::random::Random;
use super::{Make, make};
use crate::config::Config;
use crate::error::Error;
use crate::kinds::Capability;
use crate::kinds::kv_cache::SeqId;
use crate::kinds::scheduler::{Limits, Picked, Scheduler, Waiting};

/// Runs the whole suite on schedulers made from `config`.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + Scheduler + 'static>(config: &Config) {
    suite_of(&make::<dyn Scheduler, T>, config);
}

/// The same for schedulers that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn Scheduler>, config: &Config) {
    let mut random = Random::new(1);
    let mut scheduler = make(config).expect("the configuration is the suite's own");
    for size in [0, 1, 7, 8, 9, 63, 257] {
        for _ in 0..64 {
            let queue: Vec<Waiting> = (0..size).map(|i| waiting(&mut random, i)).collect();
            let limits = Limits { tokens: random.below(300), seqs: random.below(20) };
            check(&queue, &limits, &pick(&mut *scheduler, &queue, &limits));
        }
    }
    finishes_every_entry(&mut *scheduler, &mut random);
    starves_nobody(make, config);
    hands_over(make, config, &mut random);
    for _ in 0..100 {
        drop(make(config));
    }
}

/// What `scheduler` picks.
///
/// # Panics
///
/// If it answers with an error: nothing is wrong with what an engine asks.
pub fn pick(scheduler: &mut dyn Scheduler, queue: &[Waiting], limits: &Limits) -> Vec<Picked> {
    let mut out = Vec::new();
    let answer = scheduler.pick(queue, limits, &mut out);
    answer.expect("a queue that an engine may have is picked from");
    out
}

fn waiting(random: &mut Random, index: usize) -> Waiting {
    Waiting {
        seq: SeqId(index as u32),
        pending: 1 + random.below(200) * random.below(2),
        is_running: random.below(2) == 0,
        is_atomic: random.below(4) == 0,
        priority: random.below(3) as i32,
    }
}

fn check(queue: &[Waiting], limits: &Limits, picked: &[Picked]) {
    let mut is_picked = vec![false; queue.len()];
    for pick in picked {
        let entry = queue.get(pick.index).expect("an entry of the queue");
        assert!(!is_picked[pick.index], "entry {} is picked twice", pick.index);
        is_picked[pick.index] = true;
        assert!((1..=entry.pending).contains(&pick.tokens), "{pick:?} of {entry:?}");
        assert!(!entry.is_atomic || pick.tokens == entry.pending, "splits an atomic {entry:?}");
    }
    let tokens: usize = picked.iter().map(|pick| pick.tokens).sum();
    assert!(tokens <= limits.tokens, "{tokens} tokens, the limit is {}", limits.tokens);
    assert!(
        picked.len() <= limits.seqs,
        "{} sequences, the limit is {}",
        picked.len(),
        limits.seqs
    );
    let fits = |entry: &Waiting| !entry.is_atomic || entry.pending <= limits.tokens;
    let could_run = limits.tokens > 0 && limits.seqs > 0 && queue.iter().any(fits);
    assert_eq!(picked.is_empty(), !could_run, "runs something if and only if anything fits");
}

/// What one scheduler saved another restores, and then both pick alike; what is not such a state is
/// refused and changes nothing.
fn hands_over(make: Make<'_, dyn Scheduler>, config: &Config, random: &mut Random) {
    let mut old = make(config).expect("the configuration is the suite's own");
    if old.handover().is_none() {
        return;
    }
    for round in 0..8 {
        let step = |random: &mut Random| {
            let size = 1 + random.below(12);
            let queue: Vec<Waiting> = (0..size).map(|i| waiting(random, i)).collect();
            (queue, Limits { tokens: 1 + random.below(300), seqs: 1 + random.below(4) })
        };
        for _ in 0..random.below(12) {
            let (queue, limits) = step(random);
            pick(&mut *old, &queue, &limits);
        }
        let mut bytes = vec![];
        let from = old.handover().expect("a scheduler that hands over always does");
        from.save(&mut bytes).expect("saving reads what is there");
        let mut new = make(config).expect("the configuration is the suite's own");
        refuses_other_bytes(&mut *new, &bytes, random);
        let into = new.handover().expect("one instance hands over, so does another");
        into.restore(&bytes).expect("the same scheduler saved it");
        refuses_other_bytes(&mut *new, &bytes, random);
        for _ in 0..12 {
            let (queue, limits) = step(random);
            let (expected, found) =
                (pick(&mut *old, &queue, &limits), pick(&mut *new, &queue, &limits));
            assert_eq!(found, expected, "round {round}: the restored scheduler picks otherwise");
        }
        old = new;
    }
}

fn refuses_other_bytes(scheduler: &mut dyn Scheduler, bytes: &[u8], random: &mut Random) {
    let mut other_schema = bytes.to_vec();
    *other_schema.first_mut().expect("a state starts with its schema") ^= 0xff;
    let longer = [bytes, &[0]].concat();
    let garbage: Vec<u8> = (0..64).map(|_| random.below(256) as u8).collect();
    for wrong in [&other_schema[..], &longer, &garbage, &[]] {
        let into = scheduler.handover().expect("a scheduler that hands over always does");
        let answer = into.restore(wrong);
        assert!(matches!(answer, Err(Error::Malformed { .. })), "restored from {wrong:?}");
    }
}

/// A queue that nobody adds to becomes empty.
fn finishes_every_entry(scheduler: &mut dyn Scheduler, random: &mut Random) {
    let mut queue: Vec<Waiting> = (0..40).map(|i| waiting(random, i)).collect();
    let limits = Limits { tokens: 200, seqs: 5 };
    let most_steps: usize = queue.iter().map(|entry| entry.pending).sum();
    for _ in 0..most_steps {
        let picked = pick(scheduler, &queue, &limits);
        check(&queue, &limits, &picked);
        for pick in picked {
            queue[pick.index].pending -= pick.tokens;
            queue[pick.index].is_running = true;
        }
        queue.retain(|entry| entry.pending > 0);
    }
    assert!(queue.is_empty(), "starved: {queue:?}");
}

/// However many short requests keep coming, of whatever priority, everyone runs to its end.
fn starves_nobody(make: Make<'_, dyn Scheduler>, config: &Config) {
    let mut scheduler = make(config).expect("the configuration is the suite's own");
    let (mut random, limits) = (Random::new(3), Limits { tokens: 32, seqs: 4 });
    let new = |seq: u32, pending, priority| {
        let (is_running, is_atomic) = (false, false);
        (Waiting { seq: SeqId(seq), pending, is_running, is_atomic, priority }, 3)
    };
    // A long prompt that matters to nobody; behind each entry, tokens to decode after the prompt.
    let mut queue: Vec<(Waiting, usize)> = vec![new(0, 300, -1)];
    let mut next_seq = 1;
    for _ in 0..STEPS_MAX {
        while queue.len() < 12 {
            queue.push(new(next_seq, 1 + random.below(24), random.below(2) as i32));
            next_seq += 1;
        }
        let entries: Vec<Waiting> = queue.iter().map(|(entry, _)| *entry).collect();
        let picked = pick(&mut *scheduler, &entries, &limits);
        check(&entries, &limits, &picked);
        for pick in picked {
            let (entry, decodes) = &mut queue[pick.index];
            entry.pending -= pick.tokens;
            entry.is_running = true;
            if entry.pending == 0 && *decodes > 0 {
                (entry.pending, *decodes) = (1, *decodes - 1);
            }
        }
        queue.retain(|(entry, _)| entry.pending > 0);
        if queue.first().is_none_or(|(entry, _)| entry.seq != SeqId(0)) {
            return;
        }
    }
    panic!("starved for {STEPS_MAX} steps: {:?}", queue[0].0);
}

/// Steps in which everyone has run to its end.
const STEPS_MAX: usize = 20_000;
