//! What the cache takes, shares, keeps and copies, block by block.

use super::*;
use plugin_api::kinds::kv_cache::Bitmap;
use plugin_api::plan::{Part, Per};

fn open(block_size: i32, num_blocks: u64) -> Paged {
    let config = Config::new().with("block_size", block_size).with("dtype", "f32");
    let mut cache = Paged::from_config(&config).unwrap();
    let part = Part { name: "key".to_owned(), dims: vec![1] };
    let per = Per::Token { window: 0 };
    let states = [StateSpec { name: "s".to_owned(), per, parts: vec![part] }];
    let size_bytes_max = num_blocks * 4 * block_size as u64;
    let limits = PoolLimits { num_seqs_max: 4, tokens_per_seq_max: 64, size_bytes_max };
    assert_eq!(cache.pool(&states, &limits).unwrap().num_blocks as u64, num_blocks);
    cache
}

fn prefixes(cache: &mut Paged) -> &mut dyn PrefixCaching {
    cache.prefix_caching().unwrap()
}

#[test]
fn passes_the_contract_suite() {
    for block_size in [1, 7, 16, 64] {
        for keeps_prefixes in [true, false] {
            let config = Config::new().with("block_size", block_size);
            let config = config.with("prefix_caching", keeps_prefixes);
            plugin_api::testing::kv_cache::suite::<Paged>(&config);
        }
    }
}

#[test]
fn takes_as_many_blocks_as_tokens_fill() {
    #[rustfmt::skip]
    let cases = [
        // tokens kept  blocks of 16
        (0,       0,    0),
        (1,       1,    1),
        (16,      16,   1),
        (17,      17,   2),
        (40,      16,   1),
        (40,      0,    0),
    ];
    for (tokens, keep, num_blocks) in cases {
        let mut cache = open(16, 10);
        cache.reserve(SeqId(9), tokens, &mut Vec::new()).unwrap();
        assert_eq!(cache.usage().used, tokens.div_ceil(16), "{tokens} reserved");
        cache.commit(SeqId(9), keep, &mut Vec::new());
        assert_eq!(cache.usage().used, num_blocks, "{keep} of {tokens} kept");
    }
}

#[test]
fn a_fork_shares_full_blocks_and_copies_the_last() {
    let (mut cache, mut moves) = (open(4, 8), Vec::new());
    assert_eq!(cache.reserve(SeqId(0), 6, &mut moves).unwrap(), [0, 1]);
    cache.commit(SeqId(0), 6, &mut moves);
    cache.fork(SeqId(0), SeqId(1), &mut moves).unwrap();
    assert_eq!(moves, [BlockCopy { from: 1, to: 2 }]);
    assert_eq!(cache.reserve(SeqId(1), 0, &mut moves).unwrap(), [0, 2]);
    assert_eq!(cache.usage().used, 3);
}

#[test]
fn a_shared_block_is_copied_before_it_is_written() {
    let (mut cache, mut moves) = (open(4, 8), Vec::new());
    cache.reserve(SeqId(0), 4, &mut moves).unwrap();
    cache.commit(SeqId(0), 4, &mut moves);
    cache.fork(SeqId(0), SeqId(1), &mut moves).unwrap();
    cache.release(SeqId(1), 2);
    assert_eq!(cache.reserve(SeqId(1), 1, &mut moves).unwrap(), [1]);
    assert_eq!(moves, [BlockCopy { from: 0, to: 1 }]);
}

fn keys(num_blocks: u8) -> Vec<BlockKey> {
    (1..=num_blocks).map(|block| BlockKey([block; 32])).collect()
}

/// A sequence with full blocks of four tokens comes, is published and goes.
fn come_and_go(cache: &mut Paged, seq: u32, keys: &[BlockKey]) -> Vec<u32> {
    let tokens = 4 * keys.len();
    let table = cache.reserve(SeqId(seq), tokens, &mut Vec::new()).unwrap().to_vec();
    cache.commit(SeqId(seq), tokens, &mut Vec::new());
    prefixes(cache).publish(SeqId(seq), 0, keys);
    cache.release(SeqId(seq), 0);
    table
}

#[test]
fn what_went_is_adopted_until_somebody_needs_the_room() {
    let (mut cache, keys) = (open(4, 4), keys(4));
    assert_eq!(come_and_go(&mut cache, 0, &keys[..3]), [0, 1, 2]);
    assert_eq!((cache.usage().used, prefixes(&mut cache).find(&keys)), (0, 3));
    assert_eq!(prefixes(&mut cache).adopt(SeqId(1), &keys[..2]), 2);
    assert_eq!(cache.usage().used, 2);
    // The empty block first, then the idle one; those that are adopted stay.
    assert_eq!(cache.reserve(SeqId(2), 8, &mut Vec::new()).unwrap(), [3, 2]);
    assert_eq!(prefixes(&mut cache).find(&keys), 2);
    assert!(cache.reserve(SeqId(2), 1, &mut Vec::new()).is_err());
    cache.release(SeqId(1), 0);
    assert_eq!(cache.reserve(SeqId(2), 4, &mut Vec::new()).unwrap(), [3, 2, 1]);
    assert_eq!(prefixes(&mut cache).find(&keys), 1, "the end of a prefix yields first");
}

#[test]
fn what_was_used_longest_ago_yields_first() {
    let (mut cache, keys) = (open(4, 3), keys(4));
    for block in 0..3 {
        come_and_go(&mut cache, block as u32, &keys[block..=block]);
    }
    assert_eq!(prefixes(&mut cache).adopt(SeqId(7), &keys[..1]), 1);
    cache.release(SeqId(7), 0);
    come_and_go(&mut cache, 8, &keys[3..]);
    let found: Vec<usize> = keys.iter().map(|key| prefixes(&mut cache).find(&[*key])).collect();
    assert_eq!(found, [1, 0, 1, 1]);
}

#[test]
fn a_block_that_is_written_again_loses_its_key() {
    let (mut cache, keys) = (open(4, 4), keys(2));
    cache.reserve(SeqId(0), 8, &mut Vec::new()).unwrap();
    cache.commit(SeqId(0), 8, &mut Vec::new());
    prefixes(&mut cache).publish(SeqId(0), 0, &keys);
    cache.release(SeqId(0), 6);
    assert_eq!(prefixes(&mut cache).find(&keys), 2, "cut, but not written");
    cache.reserve(SeqId(0), 1, &mut Vec::new()).unwrap();
    assert_eq!(prefixes(&mut cache).find(&keys), 1);
    // Shared, it is copied, and the original stays what it was.
    let mut moves = Vec::new();
    prefixes(&mut cache).adopt(SeqId(1), &keys[..1]);
    cache.release(SeqId(1), 3);
    cache.reserve(SeqId(1), 1, &mut moves).unwrap();
    assert_eq!((moves.len(), prefixes(&mut cache).find(&keys)), (1, 1));
}

#[test]
fn a_long_tail_of_lengths_wastes_less_than_4_percent() {
    let mut random = plugin_api::testing::random::Random::new(7);
    // Log-normal by summing twelve uniform numbers: a median of 300 tokens, a few of thousands.
    let mut length = || {
        let normal: f32 = (0..12).map(|_| random.signed() / 2.0).sum();
        ((300.0 * normal.exp()) as usize).clamp(1, 8192)
    };
    let lengths: Vec<usize> = (0..256).map(|_| length()).collect();
    let mut cache = Paged::from_config(&Config::new()).unwrap();
    let part = Part { name: "key".to_owned(), dims: vec![1] };
    let per = Per::Token { window: 0 };
    let states = [StateSpec { name: "s".to_owned(), per, parts: vec![part] }];
    let (num_seqs_max, tokens_per_seq_max) = (lengths.len(), 8192);
    let limits = PoolLimits { num_seqs_max, tokens_per_seq_max, size_bytes_max: 1 << 30 };
    let spec = cache.pool(&states, &limits).unwrap();
    for (seq, length) in (0..).zip(&lengths) {
        cache.reserve(SeqId(seq), *length, &mut Vec::new()).unwrap();
        cache.commit(SeqId(seq), *length, &mut Vec::new());
    }
    let (tokens, places) = (lengths.iter().sum::<usize>(), cache.usage().used * spec.block_size);
    let waste = 1.0 - tokens as f64 / places as f64;
    assert!((0.005..0.04).contains(&waste), "{:.2} % of {places} places", 100.0 * waste);
}

#[test]
fn a_bitmap_gives_each_number_to_one_thread() {
    for len in [0, 1, 63, 64, 65, 200] {
        let bitmap = Bitmap::new(len);
        let taken: Vec<u32> = std::iter::from_fn(|| bitmap.take()).collect();
        assert!(taken.iter().copied().eq(0..len as u32), "lowest first");
        taken.iter().rev().for_each(|number| bitmap.give(*number));
        taken.iter().for_each(|number| bitmap.give(*number));
        assert_eq!(bitmap.num_free(), len, "what is free already stays so");
        assert!(bitmap.free().eq(0..len as u32));
    }
    let (bitmap, owners) = (Bitmap::new(100), std::sync::Mutex::new([0_u8; 100]));
    std::thread::scope(|scope| {
        for thread in 1..=4 {
            let (bitmap, owners) = (&bitmap, &owners);
            scope.spawn(move || {
                for _ in 0..2_000 {
                    let mine: Vec<u32> = (0..30).filter_map(|_| bitmap.take()).collect();
                    for number in &mine {
                        let before = std::mem::replace(
                            &mut owners.lock().unwrap()[*number as usize],
                            thread,
                        );
                        assert_eq!(before, 0, "{number} belongs to somebody");
                    }
                    for number in mine {
                        owners.lock().unwrap()[number as usize] = 0;
                        bitmap.give(number);
                    }
                }
            });
        }
    });
    assert_eq!(bitmap.num_free(), 100);
}
