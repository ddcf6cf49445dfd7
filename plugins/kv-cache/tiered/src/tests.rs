//! What stays and what leaves.

use super::*;

fn config(policy: &str) -> Config {
    Config::new().with("folder", "/nowhere").with("policy", policy)
}

fn open(policy: &str, num_chunks: usize, resident_max: usize) -> Tiered {
    let mut cache = Tiered::from_config(&config(policy)).unwrap();
    cache.lay_out(num_chunks, resident_max);
    cache
}

#[test]
fn passes_the_contract_suites() {
    for policy in ["lru", "bimodal"] {
        for block_size in [1, 7, 16] {
            let config = config(policy).with("block_size", block_size);
            plugin_api::testing::kv_cache::suite::<Tiered>(&config);
        }
        for prefetch in [true, false] {
            let config = config(policy).with("prefetch", prefetch);
            plugin_api::testing::kv_cache::tiering::<Tiered>(&config);
        }
    }
}

/// Part of the uses that find their chunk resident, once all have been used before.
fn hit_rate(cache: &mut Tiered, uses: impl Iterator<Item = u32>, warm_up: usize) -> f64 {
    let (mut hits, mut counted) = (0, 0);
    for (n, chunk) in uses.enumerate() {
        let is_hit = cache.order.has(chunk);
        cache.touch(&[chunk], &mut Vec::new()).unwrap();
        if n >= warm_up {
            (hits, counted) = (hits + usize::from(is_hit), counted + 1);
        }
    }
    hits as f64 / f64::from(counted)
}

#[test]
fn a_scan_of_four_times_what_fits_leaves_a_part_where_it_is() {
    let scan = || (0..20_000).map(|n| n % 400);
    let lru = hit_rate(&mut open("lru", 400, 100), scan(), 4_000);
    let bimodal = hit_rate(&mut open("bimodal", 400, 100), scan(), 4_000);
    assert_eq!(lru, 0.0, "each has left when its turn comes");
    assert!((0.18..=0.25).contains(&bimodal), "{bimodal} of at most a quarter");
}

#[test]
fn what_is_used_often_stays_through_a_scan() {
    let mut random = plugin_api::testing::random::Random::new(11);
    // Three of four uses are of one chunk of ten.
    let mut skewed = || -> Vec<u32> {
        let draw = |random: &mut plugin_api::testing::random::Random| match random.below(4) {
            0 => random.below(400) as u32,
            _ => random.below(40) as u32,
        };
        (0..20_000).map(|_| draw(&mut random)).collect()
    };
    let uses = skewed();
    for policy in ["lru", "bimodal"] {
        let rate = hit_rate(&mut open(policy, 400, 100), uses.iter().copied(), 4_000);
        assert!(rate > 0.7, "{policy}: {rate}");
        let mut cache = open(policy, 400, 100);
        hit_rate(&mut cache, uses.iter().copied(), 0);
        hit_rate(&mut cache, 40..400, 0);
        let kept = (0..40).filter(|chunk| cache.order.has(*chunk)).count();
        assert_eq!(kept > 30, policy == "bimodal", "{policy}: {kept} of 40 after a scan");
    }
}

#[test]
fn what_a_step_uses_stays_until_the_next() {
    let mut cache = open("lru", 10, 4);
    let mut evict = Vec::new();
    cache.touch(&[0, 1, 2, 3], &mut evict).unwrap();
    assert_eq!(evict, []);
    cache.touch(&[3, 4], &mut evict).unwrap();
    assert_eq!(evict, [0]);
    let (mut fetch, mut evict) = (Vec::new(), Vec::new());
    cache.prefetch(&[5, 1, 6], &mut fetch, &mut evict);
    assert_eq!((fetch, evict), (vec![5], vec![2]), "3 and 4 are in use, 1 will be");
    let answer = cache.touch(&[0, 1, 2, 3, 4], &mut Vec::new());
    assert!(matches!(answer, Err(Error::NoSpace { needed: 5, free: 4, .. })), "{answer:?}");
    assert!(cache.order.has(5), "a refusal changes nothing");
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let limits = PoolLimits { num_seqs_max: 1, tokens_per_seq_max: 8, size_bytes_max: 1 << 20 };
    let without = Tiered::from_config(&Config::new()).unwrap().pool(&[], &limits);
    let said = without.unwrap_err().to_string();
    assert_eq!(said, "folder: expected a folder for files, found nothing");
    for (key, wrong) in [("chunk_kib", Value::Int(48)), ("policy", "mru".into())] {
        let answer = Tiered::from_config(&config("lru").with(key, wrong)).map(|_| ());
        assert!(matches!(answer, Err(Error::Config { .. })), "{key}: {answer:?}");
    }
}
