//! Another meaning: new requests get the new plan, running ones keep theirs.

use jackfield_engine::{Engine, Request};
use jackfield_runtime::{Reach, SwapError};
use jackfield_tests::{Setup, answer, tiny_model};
use plugin_api::Config;

use super::parts::setup;
use super::{of, request, slot, slots, step, swap, swap_with};

fn faster(by: i32) -> Config {
    Config::new().with("by", f64::from(by)).with("id", format!("rope faster {by}/1"))
}

/// What an engine answers whose embedding turns `by` times as fast from the beginning.
fn alone(folder: &std::path::Path, by: i32, request: Request) -> Vec<u32> {
    let setup = setup().with("rotary-embedding", "faster").set("faster", "by", f64::from(by));
    answer(&mut setup.load(folder).unwrap(), request).1
}

fn next(engine: &Engine, setup: &Setup, by: i32) -> Result<Reach, SwapError> {
    swap_with(engine, setup, "rotary-embedding", "faster", &faster(by)).map(|s| s.reach)
}

#[test]
fn running_requests_keep_their_plan_and_new_ones_get_the_new() {
    let folder = tiny_model("tiny");
    let setup = setup();
    let old = answer(&mut setup.load(folder.path()).unwrap(), request(40)).1;
    let new = alone(folder.path(), 3, request(40));
    assert_ne!(old, new);

    let mut engine = setup.load(folder.path()).unwrap();
    let first = engine.submit(request(40)).unwrap();
    let mut tokens = Vec::new();
    for _ in 0..10 {
        step(&mut engine, &mut tokens);
    }
    let digest = tokens.last().unwrap().2;
    next(&engine, &setup, 3).unwrap();
    engine.boundary();
    let second = engine.submit(request(40)).unwrap();
    let expected = "rotary-embedding: faster#2, standard#1 with 1";
    assert_eq!(slot(&engine, "rotary-embedding"), expected);
    while engine.num_running() > 0 {
        let before = tokens.len();
        step(&mut engine, &mut tokens);
        assert_eq!(tokens.len(), before + 1, "one plan a step");
    }
    assert_eq!((of(&tokens, first), of(&tokens, second)), (old, new));
    for (request, _, found) in tokens {
        assert_eq!(found == digest, request == first, "running requests keep their digest too");
    }
    assert_eq!(slot(&engine, "rotary-embedding"), "rotary-embedding: faster#2");
}

#[test]
fn four_plans_take_turns_on_a_new_backend_and_cache_and_a_fifth_waits() {
    let folder = tiny_model("tiny");
    let setup = setup();
    let mut engine = setup.load(folder.path()).unwrap();
    let (mut ids, mut tokens) = (vec![engine.submit(request(60)).unwrap()], Vec::new());
    for by in 2..=4 {
        next(&engine, &setup, by).unwrap();
        step(&mut engine, &mut tokens);
        ids.push(engine.submit(request(60)).unwrap());
    }
    let before = (slots(&engine), engine.digest());
    let error = next(&engine, &setup, 5).unwrap_err();
    assert!(matches!(error, SwapError::TooManyDraining { draining: 4, .. }), "{error}");
    assert_eq!((slots(&engine), engine.digest()), before);
    for (kind, name) in [("backend", "cpu"), ("kv-cache", "paged"), ("rotary-embedding", "faster")]
    {
        // The embedding replaces the active one of equal meaning, so no plan is added.
        let config = if name == "faster" { faster(4) } else { Config::new() };
        swap_with(&engine, &setup, kind, name, &config).unwrap();
        step(&mut engine, &mut tokens);
    }
    while engine.num_running() > 0 {
        let running = engine.num_running();
        let before = tokens.len();
        for _ in 0..running {
            step(&mut engine, &mut tokens);
        }
        let mut served: Vec<_> = tokens[before..].iter().map(|(id, ..)| *id).collect();
        served.sort_unstable();
        served.dedup();
        assert!(served.len() >= engine.num_running(), "every plan has its turn");
    }
    let plain = answer(&mut setup.load(folder.path()).unwrap(), request(60)).1;
    let mut expected = vec![plain];
    expected.extend((2..=4).map(|by| alone(folder.path(), by, request(60))));
    let found: Vec<_> = ids.into_iter().map(|id| of(&tokens, id)).collect();
    assert_eq!(found, expected);
    next(&engine, &setup, 5).unwrap();
    engine.boundary();
    assert_eq!(answer(&mut engine, request(20)).1, alone(folder.path(), 5, request(20)));
}

#[test]
fn requests_wait_for_room_that_another_plan_holds() {
    let folder = tiny_model("tiny");
    let mut setup = setup();
    // Three blocks of 16 tokens at 256 bytes: room for one of the two.
    setup.options.state_bytes_max = 3 * 16 * 256;
    let long = || request(40);
    let mut engine = setup.load(folder.path()).unwrap();
    assert_eq!(engine.cache_usage().total, 3);
    let first = engine.submit(long()).unwrap();
    let mut tokens = Vec::new();
    for _ in 0..36 {
        step(&mut engine, &mut tokens);
    }
    next(&engine, &setup, 2).unwrap();
    engine.boundary();
    let second = engine.submit(long()).unwrap();
    while engine.num_running() > 0 {
        step(&mut engine, &mut tokens);
    }
    assert_eq!(of(&tokens, first).len(), 40);
    assert_eq!(of(&tokens, second), alone(folder.path(), 2, long()));
}

#[test]
fn a_plan_that_nobody_holds_is_replaced_at_once() {
    let folder = tiny_model("tiny");
    let setup = setup();
    let mut engine = setup.load(folder.path()).unwrap();
    for by in 2..=9 {
        next(&engine, &setup, by).unwrap();
        engine.boundary();
    }
    assert_eq!(slot(&engine, "rotary-embedding"), "rotary-embedding: faster#9");
    assert_eq!(answer(&mut engine, request(20)).1, alone(folder.path(), 9, request(20)));
    swap(&engine, &setup, "rotary-embedding", "standard").unwrap();
    engine.boundary();
    let plain = answer(&mut setup.load(folder.path()).unwrap(), request(20)).1;
    assert_eq!(answer(&mut engine, request(20)).1, plain);
}
