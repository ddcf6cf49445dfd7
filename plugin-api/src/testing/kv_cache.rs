//! Contract suite of KV caches.
//!
//! Plays random requests against a shadow: every sequence's tokens are written where the cache
//! says, block copies are carried out, and afterwards every sequence must still read its own
//! tokens. A block that is owned twice, lost or shared too long shows as a wrong token.

mod prefix;
mod tiering;

use std::collections::{BTreeMap, BTreeSet};

use super::random::Random;
use super::{Make, make};
use crate::config::Config;
use crate::error::Error;
use crate::kinds::Capability;
use crate::kinds::kv_cache::{BlockCopy, KvCache, PoolLimits, PoolSpec, SeqId, block_bytes};
use crate::plan::{Part, Per, StateSpec};

/// Runs the whole suite on caches made from `config`.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + KvCache + 'static>(config: &Config) {
    suite_of(&make::<dyn KvCache, T>, config);
}

/// The same for caches that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn KvCache>, config: &Config) {
    for tokens_per_seq_max in [1, 7, 8, 9, 63, 257] {
        for num_seqs_max in [1, 3, 8] {
            for num_tokens in [tokens_per_seq_max, 3 * tokens_per_seq_max + 64] {
                let limits = limits(num_seqs_max, tokens_per_seq_max, num_tokens);
                let seed = (tokens_per_seq_max * 1_000 + num_seqs_max) as u64;
                play(make, config, &limits, seed);
                hands_over(make, config, &limits, seed);
                prefix::play(make, config, &limits, seed);
            }
        }
    }
    refuses_what_it_cannot_keep(make, config);
    for _ in 0..100 {
        drop(open(make, config, &limits(2, 8, 64)));
    }
}

/// Runs the suite of [`Tiering`](crate::kinds::kv_cache::Tiering) on caches made from `config`.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn tiering<T: Capability + KvCache + 'static>(config: &Config) {
    tiering::play(&make::<dyn KvCache, T>, config);
}

/// Limits with memory for `num_tokens`, rounded up to the largest common block.
fn limits(num_seqs_max: usize, tokens_per_seq_max: usize, num_tokens: usize) -> PoolLimits {
    let size_bytes_max = (num_tokens.max(64) * BYTES_PER_TOKEN_MAX) as u64;
    PoolLimits { num_seqs_max, tokens_per_seq_max, size_bytes_max }
}

fn states() -> Vec<StateSpec> {
    let part = |name: &str| Part { name: name.to_owned(), dims: vec![2, 3] };
    let parts = vec![part("key"), part("value")];
    vec![StateSpec { name: "layers.0.self_attn".to_owned(), per: Per::Token { window: 0 }, parts }]
}

fn open(
    make: Make<'_, dyn KvCache>,
    config: &Config,
    limits: &PoolLimits,
) -> (Box<dyn KvCache>, PoolSpec) {
    let mut cache = make(config).expect("the configuration is the suite's own");
    let spec = cache.pool(&states(), limits).expect("the limits have room for one sequence");
    (cache, spec)
}

fn refuses_what_it_cannot_keep(make: Make<'_, dyn KvCache>, config: &Config) {
    let mut cache = make(config).expect("the configuration is the suite's own");
    let nothing = PoolLimits { num_seqs_max: 4, tokens_per_seq_max: 8, size_bytes_max: 1 };
    let answer = cache.pool(&states(), &nothing);
    assert!(matches!(answer, Err(Error::NoSpace { .. })), "one byte holds no token: {answer:?}");
}

fn play(make: Make<'_, dyn KvCache>, config: &Config, limits: &PoolLimits, seed: u64) {
    let (mut cache, spec) = open(make, config, limits);
    assert!(spec.block_size > 0 && spec.num_blocks > 0, "an empty pool: {spec:?}");
    let reach = spec.block_size * spec.blocks_per_seq_max;
    assert!(reach >= limits.tokens_per_seq_max, "a sequence cannot reach its limit: {spec:?}");
    let block_bytes = block_bytes(&states(), &spec.storage, spec.block_size);
    let block_bytes = block_bytes.expect("storage of the states");
    assert!(spec.num_blocks as u64 * block_bytes <= limits.size_bytes_max, "too large: {spec:?}");

    let mut random = Random::new(seed);
    let mut shadow = Shadow::new(&spec);
    for _ in 0..400 {
        shadow.act(&mut *cache, &mut random, limits);
        shadow.check(&mut *cache);
    }
    for seq in shadow.tokens.keys().copied().collect::<Vec<_>>() {
        shadow.release(&mut *cache, seq, 0);
    }
    assert_eq!(cache.usage().used, 0, "blocks in use after every sequence was released");
    let (mut fresh, spec) = open(make, config, limits);
    assert_eq!(fill(&mut *cache, limits), fill(&mut *fresh, limits), "blocks were lost: {spec:?}");
}

/// What one cache saved another restores, and then both answer everything alike; what is not such
/// a state is refused and changes nothing.
fn hands_over(make: Make<'_, dyn KvCache>, config: &Config, limits: &PoolLimits, seed: u64) {
    let (mut old, spec) = open(make, config, limits);
    if old.handover().is_none() {
        return;
    }
    let (mut random, mut shadow) = (Random::new(seed), Shadow::new(&spec));
    for round in 0..8 {
        for _ in 0..12 {
            shadow.act(&mut *old, &mut random, limits);
        }
        let (mut new, _) = open(make, config, limits);
        let bytes = saved(&mut *old);
        refuses_other_bytes(&mut *new, &bytes, &mut random);
        assert_eq!(new.usage().used, 0, "a refused state took blocks");
        let into = new.handover().expect("one instance hands over, so does another");
        into.restore(&bytes).expect("the same cache saved it for the same pool");
        assert_eq!(new.usage(), old.usage(), "the restored cache counts otherwise");
        refuses_other_bytes(&mut *new, &bytes, &mut random);

        // The old one goes on as the oracle of the new one, from the same state.
        let mut oracle = (shadow.clone(), random.clone());
        for _ in 0..12 {
            oracle.0.act(&mut *old, &mut oracle.1, limits);
            shadow.act(&mut *new, &mut random, limits);
            shadow.check(&mut *new);
            oracle.0.check(&mut *old);
            assert_eq!(shadow.tables, oracle.0.tables, "round {round}: other blocks");
            assert_eq!(shadow.memory, oracle.0.memory, "round {round}: other copies");
        }
        old = new;
    }
}

fn saved(cache: &mut dyn KvCache) -> Vec<u8> {
    let mut bytes = vec![];
    let from = cache.handover().expect("a cache that hands over always does");
    from.save(&mut bytes).expect("saving reads what is there");
    bytes
}

fn refuses_other_bytes(cache: &mut dyn KvCache, bytes: &[u8], random: &mut Random) {
    let before = cache.usage();
    let mut other_schema = bytes.to_vec();
    other_schema[0] ^= 0xff;
    let longer = [bytes, &[0]].concat();
    let garbage: Vec<u8> = (0..64).map(|_| random.below(256) as u8).collect();
    let cut = &bytes[..random.below(bytes.len())];
    for wrong in [&other_schema[..], &longer, &garbage, cut, &[]] {
        let into = cache.handover().expect("a cache that hands over always does");
        let answer = into.restore(wrong);
        assert!(matches!(answer, Err(Error::Malformed { .. })), "restored from {wrong:?}");
    }
    assert_eq!(cache.usage(), before, "a refused state changed the cache");
}

/// How many tokens the cache takes, one sequence after the other.
fn fill(cache: &mut dyn KvCache, limits: &PoolLimits) -> usize {
    let (mut moves, mut num_tokens) = (Vec::new(), 0);
    for seq in 0..limits.num_seqs_max {
        for _ in 0..limits.tokens_per_seq_max {
            let seq = SeqId(u32::MAX - seq as u32);
            if cache.reserve(seq, 1, &mut moves).is_err() {
                break;
            }
            cache.commit(seq, 1, &mut moves);
            num_tokens += 1;
        }
    }
    assert!(num_tokens > 0, "an empty cache takes no token");
    num_tokens
}

/// What memory and sequences should hold.
#[derive(Clone)]
struct Shadow {
    block_size: usize,
    num_blocks: usize,
    /// One number for each token place of the pool.
    memory: Vec<u64>,
    /// Committed tokens of each sequence.
    tokens: BTreeMap<u32, Vec<u64>>,
    tables: BTreeMap<u32, Vec<u32>>,
    moves: Vec<BlockCopy>,
    next_seq: u32,
    next_token: u64,
}

impl Shadow {
    fn new(spec: &PoolSpec) -> Self {
        Self {
            block_size: spec.block_size,
            num_blocks: spec.num_blocks,
            memory: vec![0; spec.block_size * spec.num_blocks],
            tokens: BTreeMap::new(),
            tables: BTreeMap::new(),
            moves: Vec::with_capacity(64),
            next_seq: 0,
            next_token: 0,
        }
    }

    /// One random request.
    fn act(&mut self, cache: &mut dyn KvCache, random: &mut Random, limits: &PoolLimits) {
        let known: Vec<u32> = self.tokens.keys().copied().collect();
        let old = known.get(random.below(known.len())).copied();
        match (random.below(8), old) {
            (0, _) | (_, None) => {
                let tokens = random.below(limits.tokens_per_seq_max + 2);
                let seq = self.new_seq();
                self.grow(cache, seq, tokens, tokens);
            }
            (1, Some(parent)) => self.fork(cache, parent),
            (2, Some(seq)) => self.release(cache, seq, 0),
            (3, Some(seq)) => {
                let upto = random.below(self.tokens[&seq].len() + 1);
                self.release(cache, seq, upto);
            }
            (_, Some(seq)) => {
                let tokens = random.below(limits.tokens_per_seq_max / 2 + 2);
                let keep = random.below(tokens + 1);
                self.grow(cache, seq, tokens, keep);
            }
        }
    }

    fn new_seq(&mut self) -> u32 {
        self.next_seq += 1_001;
        self.next_seq
    }

    fn grow(&mut self, cache: &mut dyn KvCache, seq: u32, tokens: usize, keep: usize) {
        // In two reservations, which have to add up.
        let first = tokens / 2;
        for part in [first, tokens - first] {
            let used = cache.usage().used;
            match cache.reserve(SeqId(seq), part, &mut self.moves) {
                Ok(table) => {
                    let table = table.to_vec();
                    self.tables.insert(seq, table);
                    self.tokens.entry(seq).or_default();
                    self.carry_out_moves();
                }
                Err(Error::NoSpace { .. }) => {
                    assert!(self.moves.is_empty(), "NoSpace, and yet blocks were to be moved");
                    assert_eq!(cache.usage().used, used, "NoSpace took blocks");
                    if self.tokens.contains_key(&seq) {
                        cache.commit(SeqId(seq), 0, &mut self.moves);
                        self.carry_out_moves();
                    }
                    return;
                }
                Err(other) => panic!("reserve: expected NoSpace, found {other}"),
            }
        }
        let committed = self.tokens[&seq].len();
        for i in 0..tokens {
            let place = self.place(seq, committed + i);
            self.next_token += 1;
            self.memory[place] = self.next_token;
            if i < keep {
                self.tokens.entry(seq).or_default().push(self.next_token);
            }
        }
        cache.commit(SeqId(seq), keep, &mut self.moves);
        self.carry_out_moves();
    }

    fn fork(&mut self, cache: &mut dyn KvCache, parent: u32) {
        let used = cache.usage().used;
        let child = self.new_seq();
        match cache.fork(SeqId(parent), SeqId(child), &mut self.moves) {
            Ok(()) => {
                let tokens = self.tokens[&parent].clone();
                self.tokens.insert(child, tokens);
                self.carry_out_moves();
            }
            Err(Error::NoSpace { .. }) => {
                assert!(self.moves.is_empty(), "NoSpace, and yet blocks were to be moved");
                assert_eq!(cache.usage().used, used, "NoSpace took blocks");
            }
            Err(other) => panic!("fork: expected NoSpace, found {other}"),
        }
    }

    fn release(&mut self, cache: &mut dyn KvCache, seq: u32, upto: usize) {
        cache.release(SeqId(seq), upto);
        if upto == 0 {
            self.tokens.remove(&seq);
            self.tables.remove(&seq);
        } else if let Some(tokens) = self.tokens.get_mut(&seq) {
            tokens.truncate(upto);
        }
    }

    /// Every sequence still reads its own tokens, from blocks of the pool.
    fn check(&mut self, cache: &mut dyn KvCache) {
        let usage = cache.usage();
        assert!(usage.used <= usage.total && usage.total == self.num_blocks, "{usage:?}");
        for (&seq, tokens) in &self.tokens {
            let table =
                cache.reserve(SeqId(seq), 0, &mut self.moves).expect("no room is asked for");
            assert!(table.iter().all(|&block| (block as usize) < self.num_blocks), "{table:?}");
            assert_eq!(table.len(), tokens.len().div_ceil(self.block_size), "blocks of {seq}");
            let read = |i: usize| {
                self.memory
                    [table[i / self.block_size] as usize * self.block_size + i % self.block_size]
            };
            let found: Vec<u64> = (0..tokens.len()).map(read).collect();
            assert_eq!(&found, tokens, "sequence {seq} reads somebody else's tokens");
            self.tables.insert(seq, table.to_vec());
        }
        assert!(self.moves.is_empty(), "looking at a table moves nothing");
        let distinct: BTreeSet<u32> =
            self.tokens.keys().flat_map(|seq| self.tables[seq].iter().copied()).collect();
        assert_eq!(usage.used, distinct.len(), "blocks in use are those in tables");
    }

    fn place(&self, seq: u32, token: usize) -> usize {
        let block = self.tables[&seq][token / self.block_size] as usize;
        block * self.block_size + token % self.block_size
    }

    fn carry_out_moves(&mut self) {
        for BlockCopy { from, to } in self.moves.drain(..) {
            let (from, to) = (from as usize * self.block_size, to as usize * self.block_size);
            self.memory.copy_within(from..from + self.block_size, to);
        }
    }
}

/// Two parts of 2 × 3 elements, at most 8 bytes each.
const BYTES_PER_TOKEN_MAX: usize = 12 * 8;
