//! Which chunks are resident, against a shadow that follows every decision.

use std::collections::BTreeSet;

use super::{Make, limits, open};
use crate::config::Config;
use crate::error::Error;
use crate::kinds::kv_cache::{KvCache, Tiering};
use crate::testing::random::Random;

/// What the host believes.
struct Resident {
    chunks: BTreeSet<u32>,
    max: usize,
}

impl Resident {
    fn leave(&mut self, evict: &[u32], kept: &BTreeSet<u32>) {
        for chunk in evict {
            assert!(self.chunks.remove(chunk), "chunk {chunk} leaves and was not resident");
            assert!(!kept.contains(chunk), "chunk {chunk} leaves and is in use");
        }
    }

    fn check(&self) {
        assert!(self.chunks.len() <= self.max, "{} of {} resident", self.chunks.len(), self.max);
    }
}

pub(super) fn play(make: Make<'_, dyn KvCache>, config: &Config) {
    for (num_chunks, max) in [(1, 1), (7, 3), (64, 9), (64, 64), (257, 63)] {
        let (mut cache, _) = open(make, config, &limits(3, 64, 256));
        let policy = cache.tiering().expect("a cache with tiers");
        policy.lay_out(num_chunks, max);
        let mut random = Random::new((num_chunks * 1000 + max) as u64);
        let mut resident = Resident { chunks: BTreeSet::new(), max };
        for _ in 0..300 {
            act(policy, &mut random, &mut resident, num_chunks);
        }
        let all: Vec<u32> = (0..num_chunks as u32).collect();
        if max < num_chunks {
            let mut evict = Vec::new();
            let answer = policy.touch(&all, &mut evict);
            assert!(matches!(answer, Err(Error::NoSpace { .. })), "{answer:?}");
            assert!(evict.is_empty(), "a refusal evicts nothing");
        }
    }
}

fn draw(random: &mut Random, num_chunks: usize, most: usize) -> BTreeSet<u32> {
    let num = random.below(most + 1);
    (0..num).map(|_| random.below(num_chunks) as u32).collect()
}

fn act(policy: &mut dyn Tiering, random: &mut Random, resident: &mut Resident, num_chunks: usize) {
    let now = draw(random, num_chunks, resident.max);
    let (mut evict, mut fetch) = (Vec::new(), Vec::new());
    let list: Vec<u32> = now.iter().copied().collect();
    policy.touch(&list, &mut evict).expect("so many may be resident");
    resident.leave(&evict, &now);
    resident.chunks.extend(&now);
    resident.check();
    evict.clear();
    let soon: Vec<u32> = draw(random, num_chunks, num_chunks).into_iter().collect();
    policy.prefetch(&soon, &mut fetch, &mut evict);
    resident.leave(&evict, &now);
    for chunk in &fetch {
        assert!(soon.contains(chunk), "chunk {chunk} is fetched and will not be used");
        assert!(resident.chunks.insert(*chunk), "chunk {chunk} is fetched and is resident");
    }
    resident.check();
    // What was decided last does not come about.
    if random.below(4) == 0 {
        for chunk in fetch {
            policy.correct(chunk, false);
            resident.chunks.remove(&chunk);
        }
        for chunk in evict.iter().take(resident.max - resident.chunks.len()) {
            policy.correct(*chunk, true);
            resident.chunks.insert(*chunk);
        }
    }
    if random.below(20) == 0 {
        policy.lost();
    }
}
