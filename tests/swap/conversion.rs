//! A cache whose numbers lie otherwise takes over while requests run: nothing waits for it.

use std::time::Duration;

use jackfield_engine::Engine;
use jackfield_runtime::{Reach, SwapError, SwapTarget};
use jackfield_tests::{Setup, answer, tiny_model};
use plugin_api::kinds::kv_cache::Storage;
use plugin_api::{Config, DType};

use super::refused::{listen, take};
use super::{Token, of, parts, request, slot, step, swap, swap_with};

const TOKENS: i64 = 120;

/// Requests of which two begin alike: they share blocks.
fn requests() -> [jackfield_engine::Request; 3] {
    let long: Vec<u32> = (0..70).map(|i| (i * 31) % 510).collect();
    let with_tokens = |tokens: Vec<u32>| {
        let params = request(TOKENS).params;
        let mut request = jackfield_engine::Request::new(tokens);
        request.params = params;
        request
    };
    [request(TOKENS), with_tokens(long.clone()), with_tokens([long, vec![5]].concat())]
}

fn setup(dtype: &str, budget: u64) -> Setup {
    let mut setup = parts::setup().set("paged", "dtype", dtype);
    setup.options.convert_bytes_per_step = budget;
    setup
}

fn wide() -> Config {
    Config::new().with("dtype", "f32")
}

/// The tokens of each request when nothing is swapped.
fn plain(setup: &Setup, folder: &std::path::Path) -> Vec<Vec<u32>> {
    let mut engine = setup.load(folder).unwrap();
    requests().map(|request| answer(&mut engine, request).1).into()
}

fn dtype(engine: &Engine) -> DType {
    match engine.state_layout().pool.storage[0] {
        Storage::Plain(dtype) => dtype,
        ref other => panic!("numbers as they are, found {other:?}"),
    }
}

#[test]
fn a_detour_over_wider_numbers_leaves_no_trace() {
    let folder = tiny_model("tiny");
    let setup = setup("f16", u64::MAX >> 1);
    let expected = plain(&setup, folder.path());
    let mut engine = setup.load(folder.path()).unwrap();
    let ids = requests().map(|request| engine.submit(request).unwrap());
    let mut tokens = Vec::<Token>::new();
    for n in 0.. {
        if engine.num_running() == 0 {
            break;
        }
        if n % 10 == 5 {
            swap_with(&engine, &setup, "kv-cache", "paged", &wide()).unwrap();
            engine.boundary();
            assert_eq!(dtype(&engine), DType::F32);
            swap(&engine, &setup, "kv-cache", "paged").unwrap();
            engine.boundary();
            assert_eq!(dtype(&engine), DType::F16);
        }
        step(&mut engine, &mut tokens);
    }
    for (id, expected) in ids.into_iter().zip(&expected) {
        assert_eq!(of(&tokens, id), *expected);
    }
    assert_eq!(engine.cache_usage().used, 0, "every block comes back");
}

#[test]
fn a_pool_of_another_size_takes_over_block_by_block() {
    let folder = tiny_model("tiny");
    for tokens_per_step in [4, 9, 50] {
        let mut setup = setup("f16", 0);
        let expected = plain(&setup, folder.path());
        let heard = listen(&setup);
        let per_token = setup.load(folder.path()).unwrap().state_layout().bytes_per_token as u64;
        setup.options.convert_bytes_per_step = tokens_per_step * per_token;
        let mut engine = setup.load(folder.path()).unwrap();
        let total = engine.cache_usage().total;
        let half = (engine.state_layout().size_bytes / 2) as i64;
        let odd = Config::new().with("handover", "works").with("size_bytes_max", half);
        let ids = requests().map(|request| engine.submit(request).unwrap());
        let mut tokens = Vec::<Token>::new();
        for n in 0.. {
            if engine.num_running() == 0 {
                break;
            }
            match n {
                8 => drop(swap_with(&engine, &setup, "kv-cache", "odd", &odd).unwrap()),
                90 => drop(swap(&engine, &setup, "kv-cache", "paged").unwrap()),
                _ => {}
            }
            step(&mut engine, &mut tokens);
            engine.swapper().flush();
            let blocks = engine.cache_usage().total;
            match n {
                8 if tokens_per_step < 50 => assert_eq!(blocks, total, "not yet"),
                80 => assert!(blocks < total, "{blocks} of {total}: {:?}", take(&heard)),
                _ => {}
            }
        }
        for (id, expected) in ids.into_iter().zip(&expected) {
            assert_eq!(of(&tokens, id), *expected, "{tokens_per_step} tokens a step");
        }
        // Whatever was left to convert went with the last request.
        engine.boundary();
        assert_eq!(slot(&engine, "kv-cache"), "kv-cache: paged#3");
        assert_eq!((engine.cache_usage().used, engine.cache_usage().total), (0, total));
    }
}

#[test]
fn streams_go_on_within_the_budget() {
    let folder = tiny_model("tiny");
    let mut setup = setup("f32", 0);
    let expected = plain(&setup, folder.path());
    let heard = listen(&setup);
    let per_token = setup.load(folder.path()).unwrap().state_layout().bytes_per_token as u64;
    setup.options.convert_bytes_per_step = 4 * per_token;
    let mut engine = setup.load(folder.path()).unwrap();
    let ids = requests().map(|request| engine.submit(request).unwrap());
    let mut tokens = Vec::<Token>::new();
    for _ in 0..40 {
        step(&mut engine, &mut tokens);
    }
    take(&heard);
    let narrow = Config::new().with("dtype", "f16");
    let swapped = swap_with(&engine, &setup, "kv-cache", "paged", &narrow).unwrap();
    assert_eq!(swapped.reach, Reach::NextBoundary);
    let (mut steps, mut last) = (0, engine.gauge().read());
    while dtype(&engine) == DType::F32 {
        // Whoever replaces plans has to wait for whoever replaces the memory that they read.
        let other = swap(&engine, &setup, "rotary-embedding", "standard");
        assert!(matches!(other, Err(SwapError::Pending { .. })), "{other:?}");
        swap(&engine, &setup, "logits-processor", "top-k").unwrap();
        let before = tokens.len();
        step(&mut engine, &mut tokens);
        assert_eq!(tokens.len() - before, 3, "every stream has its token");
        let load = engine.gauge().read();
        // A step may convert what the step before it wrote, and the budget: 3 + 4 tokens.
        let converted = load.converted_bytes - last.converted_bytes;
        assert!((1..=7 * per_token).contains(&converted), "{converted} bytes in a step");
        (steps, last) = (steps + 1, load);
    }
    assert!(steps > 20, "{steps} steps");
    engine.swapper().flush();
    let told = take(&heard);
    assert_eq!(told.iter().filter(|line| *line == "after kv-cache paged#2").count(), 1, "{told:?}");
    for (id, expected) in ids.iter().zip(&expected) {
        let found = of(&tokens, *id);
        assert_eq!(found, expected[..found.len()], "until it takes over, nothing changes");
    }
    while engine.num_running() > 0 {
        step(&mut engine, &mut tokens);
    }
    for id in ids {
        assert_eq!(of(&tokens, id).len(), TOKENS as usize);
    }
    swap(&engine, &setup, "rotary-embedding", "standard").unwrap();
    engine.boundary();
    assert_eq!(slot(&engine, "rotary-embedding"), "rotary-embedding: standard#2");
    assert_eq!(engine.cache_usage().used, 0, "every block comes back");
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_lost() {
    let folder = tiny_model("tiny");
    let mut setup = setup("f16", u64::MAX >> 1);
    let whole = setup.load(folder.path()).unwrap().state_layout().clone();
    // Room for four sequences of half numbers, and two of whole ones.
    let per_seq = whole.bytes_per_token * whole.pool.block_size * whole.pool.blocks_per_seq_max;
    setup.options.state_bytes_max = 4 * per_seq as u64;
    let heard = listen(&setup);
    let mut engine = setup.load(folder.path()).unwrap();
    let ids: Vec<_> = (0..3)
        .map(|n| {
            let prompt: Vec<u32> = (0..180).map(|i| (i * 31 + n * 7) % 510).collect();
            let mut request = jackfield_engine::Request::new(prompt);
            request.params = super::request(40).params;
            engine.submit(request).unwrap()
        })
        .collect();
    let mut tokens = Vec::<Token>::new();
    for _ in 0..8 {
        step(&mut engine, &mut tokens);
    }
    swap_with(&engine, &setup, "kv-cache", "paged", &wide()).unwrap();
    engine.boundary();
    engine.swapper().flush();
    let told = take(&heard).pop().unwrap();
    assert!(told.starts_with("back kv-cache paged") && told.contains("those of a pool"), "{told}");
    assert_eq!(dtype(&engine), DType::F16);
    while engine.num_running() > 0 {
        step(&mut engine, &mut tokens);
    }
    assert!(ids.iter().all(|id| of(&tokens, *id).len() == 40));
    swap_with(&engine, &setup, "kv-cache", "paged", &wide()).unwrap();
    engine.boundary();
    assert_eq!(dtype(&engine), DType::F32, "while nothing runs there is nothing to convert");
}

#[test]
fn an_engine_that_ends_ends_the_swap() {
    let folder = tiny_model("tiny");
    let setup = setup("f16", 1);
    let mut engine = setup.load(folder.path()).unwrap();
    let _ = requests().map(|request| engine.submit(request).unwrap());
    let swapper = engine.swapper();
    let made = super::instance(&setup, "kv-cache", "paged", &wide());
    step(&mut engine, &mut Vec::new());
    let caller = std::thread::spawn(move || swapper.swap("kv-cache", "paged", made, Duration::MAX));
    while engine.gauge().read().converted_bytes == 0 {
        step(&mut engine, &mut Vec::new());
    }
    drop(engine);
    let ended = caller.join().unwrap();
    assert!(matches!(ended, Err(SwapError::Ended { .. })), "{ended:?}");
}
