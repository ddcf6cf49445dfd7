//! Prefix caching against the shadow: what a sequence adopts reads as what was published under its
//! keys, whatever was written, forked, cut and handed over meanwhile.

use super::{Shadow, fill, open, saved};
use crate::config::Config;
use crate::kinds::kv_cache::{BlockKey, KvCache, PoolLimits, SeqId};
use crate::testing::Make;
use crate::testing::random::Random;

pub(super) fn play(make: Make<'_, dyn KvCache>, config: &Config, limits: &PoolLimits, seed: u64) {
    let (mut cache, spec) = open(make, config, limits);
    if cache.prefix_caching().is_none() {
        return;
    }
    let (mut random, mut shadow) = (Random::new(seed), Shadow::new(&spec));
    let mut told = Told { block_size: spec.block_size, chains: Vec::new() };
    for round in 0..400 {
        match random.below(4) {
            0 => told.publish(&mut *cache, &shadow, &mut random),
            1 => told.adopt(&mut *cache, &mut shadow, &mut random),
            _ => shadow.act(&mut *cache, &mut random, limits),
        }
        shadow.check(&mut *cache);
        if round % 100 == 99 && cache.handover().is_some() {
            let bytes = saved(&mut *cache);
            let (mut next, _) = open(make, config, limits);
            let into = next.handover().expect("one instance hands over, so does another");
            into.restore(&bytes).expect("the same cache saved it for the same pool");
            assert_eq!(next.usage(), cache.usage(), "the restored cache counts otherwise");
            cache = next;
            shadow.check(&mut *cache);
        }
    }
    for seq in shadow.tokens.keys().copied().collect::<Vec<_>>() {
        shadow.release(&mut *cache, seq, 0);
    }
    assert_eq!(cache.usage().used, 0, "blocks that are kept for their keys count as free");
    let (mut fresh, _) = open(make, config, limits);
    assert_eq!(fill(&mut *cache, limits), fill(&mut *fresh, limits), "kept blocks do not yield");
    keeps_what_went(make, config, limits);
}

/// While nobody needs room, what went is found again: whole, in order, and up to a strange key.
fn keeps_what_went(make: Make<'_, dyn KvCache>, config: &Config, limits: &PoolLimits) {
    let (mut cache, spec) = open(make, config, limits);
    let num_blocks = (limits.tokens_per_seq_max / spec.block_size).min(spec.num_blocks);
    let mut shadow = Shadow::new(&spec);
    shadow.grow(&mut *cache, 7, num_blocks * spec.block_size, num_blocks * spec.block_size);
    let tokens = shadow.tokens[&7].clone();
    let mut keys = keys_of(&tokens, spec.block_size);
    let prefixes = cache.prefix_caching().expect("one instance keeps blocks, so does another");
    assert_eq!(prefixes.find(&keys), 0, "nothing was published");
    let (first, second) = keys.split_at(num_blocks / 2);
    prefixes.publish(SeqId(7), 0, first);
    prefixes.publish(SeqId(7), num_blocks / 2, second);
    prefixes.publish(SeqId(8), 0, &keys);
    assert_eq!(prefixes.adopt(SeqId(7), &keys), 0, "a sequence that holds tokens adopts none");
    shadow.release(&mut *cache, 7, 0);
    assert_eq!(cache.usage().used, 0);
    keys.push(BlockKey([0xAB; 32]));
    let prefixes = cache.prefix_caching().expect("a cache that keeps blocks always does");
    assert_eq!(prefixes.find(&keys), num_blocks, "blocks that went");
    assert_eq!(prefixes.adopt(SeqId(9), &keys), num_blocks, "blocks that went");
    assert_eq!(cache.usage().used, num_blocks);
    if num_blocks > 0 {
        shadow.tokens.insert(9, tokens);
        shadow.check(&mut *cache);
        shadow.release(&mut *cache, 9, 0);
        let prefixes = cache.prefix_caching().expect("a cache that keeps blocks always does");
        assert_eq!(prefixes.find(&keys[1..]), num_blocks - 1, "keys name blocks, not sequences");
        assert_eq!(prefixes.find(&keys[num_blocks..]), 0, "a key that nobody published");
    }
}

/// What the cache was told.
struct Told {
    block_size: usize,
    /// Tokens of whole blocks.
    chains: Vec<Vec<u64>>,
}

impl Told {
    fn publish(&mut self, cache: &mut dyn KvCache, shadow: &Shadow, random: &mut Random) {
        let known: Vec<u32> = shadow.tokens.keys().copied().collect();
        let Some(seq) = known.get(random.below(known.len())) else { return };
        let tokens = &shadow.tokens[seq];
        // More keys than there are full blocks: the rest is left out.
        let mut keys = keys_of(tokens, self.block_size);
        let first = random.below(keys.len() + 1);
        keys.push(BlockKey([random.below(256) as u8; 32]));
        let prefixes = cache.prefix_caching().expect("a cache that keeps blocks always does");
        prefixes.publish(SeqId(*seq), first, &keys[first..]);
        let whole = tokens.len() / self.block_size * self.block_size;
        self.chains.push(tokens[..whole].to_vec());
    }

    fn adopt(&mut self, cache: &mut dyn KvCache, shadow: &mut Shadow, random: &mut Random) {
        let Some(chain) = self.chains.get(random.below(self.chains.len())) else { return };
        let keys = keys_of(chain, self.block_size);
        let keys = &keys[..random.below(keys.len() + 1)];
        let (used, seq) = (cache.usage().used, shadow.new_seq());
        let prefixes = cache.prefix_caching().expect("a cache that keeps blocks always does");
        let found = prefixes.find(keys);
        let adopted = prefixes.adopt(SeqId(seq), keys);
        assert!(adopted == found || adopted == 0, "{adopted} blocks of {found}");
        if adopted == 0 {
            assert_eq!(cache.usage().used, used, "nothing was adopted, and yet blocks were taken");
            return;
        }
        shadow.tokens.insert(seq, chain[..adopted * self.block_size].to_vec());
    }
}

/// A key for each whole block: FNV-1a of its tokens and all before them, four times.
fn keys_of(tokens: &[u64], block_size: usize) -> Vec<BlockKey> {
    let mut lanes = [1_u64, 2, 3, 4].map(|lane| 0xCBF2_9CE4_8422_2325 ^ lane);
    let key = |block: &[u64]| {
        for lane in &mut lanes {
            for byte in block.iter().flat_map(|token| token.to_le_bytes()) {
                *lane = (*lane ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
            }
        }
        let mut key = BlockKey([0; 32]);
        for (to, lane) in key.0.chunks_exact_mut(8).zip(lanes) {
            to.copy_from_slice(&lane.to_le_bytes());
        }
        key
    };
    tokens.chunks_exact(block_size).map(key).collect()
}
