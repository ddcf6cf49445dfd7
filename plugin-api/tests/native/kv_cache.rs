//! Caches over the boundary.

use plugin_api::prelude::*;

use crate::rig::{both, check, import, told};

const LIMITS: PoolLimits =
    PoolLimits { num_seqs_max: 4, tokens_per_seq_max: 8, size_bytes_max: 4096 };

fn states() -> Vec<StateSpec> {
    let parts = vec![Part { name: "key".to_owned(), dims: vec![2, 3] }];
    vec![StateSpec { name: "layers.0".to_owned(), per: Per::Token { window: 0 }, parts }]
}

#[test]
fn behaves_as_the_original() {
    let [direct, foreign] = both::<dyn KvCache>();
    let run = |mut cache: Box<dyn KvCache>| {
        let mut moves = vec![BlockCopy { from: 7, to: 7 }];
        let mut said = vec![format!("{:?}", cache.pool(&states(), &LIMITS))];
        for (seq, tokens) in [(0, 5), (1, 3), (1, 1)] {
            let table = cache.reserve(SeqId(seq), tokens, &mut moves).map(<[u32]>::to_vec);
            said.push(format!("{table:?} {moves:?}"));
            cache.commit(SeqId(seq), tokens, &mut moves);
        }
        said.push(format!("{:?}", cache.fork(SeqId(1), SeqId(2), &mut moves)));
        cache.release(SeqId(0), 1);
        cache.tick(6, &mut moves);
        said.push(format!("{:?} {moves:?}", cache.usage()));
        let keys = [3, 2, 0, 1].map(|last| BlockKey([last; 32]));
        let prefixes = cache.prefix_caching().unwrap();
        said.push(format!("{} {}", prefixes.find(&keys), prefixes.find(&[])));
        said.push(format!(
            "{} {}",
            prefixes.adopt(SeqId(3), &keys[..1]),
            prefixes.adopt(SeqId(2), &[])
        ));
        prefixes.publish(SeqId(2), 6, &keys);
        let mut state = vec![99];
        let handover = cache.handover().unwrap();
        handover.save(&mut state).unwrap();
        handover.restore(&[1, 2, 3, 0]).unwrap();
        said.push(format!("{state:?} {:?}", cache.usage()));
        said
    };
    assert_eq!(run(direct), run(foreign));
    let (mut without, watch) = import::<dyn KvCache>(&told("lies", "no handover"));
    assert!(without.handover().is_none() && watch.faults().is_empty());
    let (mut without, watch) = import::<dyn KvCache>(&told("lies", "no prefixes"));
    assert!(without.prefix_caching().is_none() && watch.faults().is_empty());
}

#[test]
fn more_blocks_than_keys_are_none_at_all() {
    let keys = [BlockKey([1; 32]); 2];
    let (mut cache, watch) = import::<dyn KvCache>(&told("lies", "find"));
    assert_eq!(cache.prefix_caching().unwrap().find(&keys), 0);
    watch.expect("prefix caching: malformed");
    let (mut cache, watch) = import::<dyn KvCache>(&told("lies", "adopt"));
    assert_eq!(cache.prefix_caching().unwrap().adopt(SeqId(0), &keys), 0);
    watch.expect("prefix caching: malformed");
}

#[test]
fn blocks_outside_of_the_pool_are_errors() {
    for lie in ["block", "long", "short", "move"] {
        let (mut cache, watch) = import::<dyn KvCache>(&told("lies", lie));
        cache.pool(&states(), &LIMITS).unwrap();
        let mut moves = Vec::new();
        let error = cache.reserve(SeqId(0), 5, &mut moves).map(<[u32]>::to_vec).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{lie}: {error}");
        assert_eq!((watch.faults(), moves), (vec![error], Vec::new()), "{lie}");
    }
    let (mut cache, watch) = import::<dyn KvCache>(&told("lies", "commit"));
    cache.pool(&states(), &LIMITS).unwrap();
    let mut moves = Vec::new();
    cache.commit(SeqId(0), 1, &mut moves);
    watch.expect("block: malformed");
    assert!(moves.is_empty());
    cache.tick(1, &mut moves);
    assert_eq!(moves.len(), 1, "a fault is the owner's to judge");
}

#[test]
fn pools_that_nobody_can_lay_out_are_errors() {
    for lie in ["pool", "huge pool"] {
        let (mut cache, watch) = import::<dyn KvCache>(&told("lies", lie));
        assert!(matches!(cache.pool(&states(), &LIMITS), Err(Error::Malformed { .. })), "{lie}");
        watch.expect("pool: malformed");
        assert!(cache.reserve(SeqId(0), 1, &mut Vec::new()).is_err(), "{lie}: has no blocks");
    }
    let (mut cache, watch) = import::<dyn KvCache>(&told("lies", "usage"));
    cache.pool(&states(), &LIMITS).unwrap();
    assert_eq!(cache.usage(), PoolUsage { used: 8, total: 8 });
    watch.expect("usage: malformed");
}

#[test]
fn panics_and_errors_are_contained() {
    let seq = SeqId(0);
    check::<dyn KvCache>(&[
        ("pool", &|c| c.pool(&states(), &LIMITS).err()),
        ("reserve", &|c| c.reserve(SeqId(0), 0, &mut Vec::new()).err()),
        ("commit", &|c| {
            c.commit(seq, 0, &mut Vec::new());
            None
        }),
        ("fork", &|c| c.fork(seq, SeqId(1), &mut Vec::new()).err()),
        ("release", &|c| {
            c.release(seq, 0);
            None
        }),
        ("usage", &|c| {
            c.usage();
            None
        }),
        ("tick", &|c| {
            c.tick(0, &mut Vec::new());
            None
        }),
        ("handover", &|c| {
            assert!(c.handover().is_none());
            None
        }),
    ]);
    for (method, call) in [
        ("find", (|p| p.find(&[BlockKey([1; 32])])) as fn(&mut dyn PrefixCaching) -> usize),
        ("adopt", |p| p.adopt(SeqId(0), &[BlockKey([1; 32])])),
        ("publish", |p| {
            p.publish(SeqId(0), 0, &[]);
            0
        }),
    ] {
        let (mut cache, watch) = import::<dyn KvCache>(&told("panics", method));
        assert_eq!(call(cache.prefix_caching().unwrap()), 0);
        watch.expect(method);
        assert!(cache.prefix_caching().is_none(), "it is not called any more");
    }
    for (method, call) in [
        ("save", (|h| h.save(&mut Vec::new())) as fn(&mut dyn Handover) -> Result<()>),
        ("restore", |h| h.restore(&[])),
    ] {
        let (mut cache, watch) = import::<dyn KvCache>(&told("panics", method));
        let error = call(cache.handover().unwrap()).unwrap_err();
        watch.expect(method);
        assert_eq!(error, watch.faults()[0]);
        assert!(cache.handover().is_none(), "it is not called any more");
        let (mut cache, _) = import::<dyn KvCache>(&told("fails", method));
        let error = call(cache.handover().unwrap()).unwrap_err();
        assert_eq!(error, crate::subject::denied(method));
    }
}
