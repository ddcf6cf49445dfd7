//! Several slots are refilled at one boundary, or none of them.

use std::time::Duration;

use jackfield_engine::Engine;
use jackfield_runtime::{Reach, Replacement, SwapError, SwapTarget};
use jackfield_tests::{Setup, answer, tiny_model};
use plugin_api::kinds::kv_cache::Storage;
use plugin_api::{Config, DType};

use super::refused::{listen, refuses_all, take};
use super::{Token, member, of, parts, request, slot, slots, step, swap};

fn text(key: &str, value: &str) -> Config {
    Config::new().with(key, value)
}

/// An engine of half numbers whose backend takes no others.
fn narrow(budget: u64) -> Setup {
    let setup = parts::setup().with("backend", "broken").set("broken", "state", "f16");
    let mut setup = setup.set("paged", "dtype", "f16");
    setup.options.convert_bytes_per_step = budget;
    setup
}

/// A backend and a cache, neither of which fits to what the other replaces, and a rotary embedding
/// of equal meaning.
fn pair(setup: &Setup, dtype: &str, rotary: &str) -> Vec<Replacement> {
    let same = match rotary {
        "faster" => text("id", "rope standard/1").with("by", 1.0),
        _ => Config::new(),
    };
    vec![
        member(setup, "rotary-embedding", rotary, &same),
        member(setup, "kv-cache", "paged", &text("dtype", dtype)),
        member(setup, "backend", "broken", &text("state", dtype)),
    ]
}

fn offer(engine: &Engine, set: Vec<Replacement>) -> Vec<Reach> {
    let swapped = engine.swapper().swap_all(set, Duration::ZERO).unwrap();
    swapped.into_iter().map(|one| one.reach).collect()
}

/// Generations of what a pair fills, in its order.
fn generations(engine: &Engine) -> Vec<u32> {
    let slots = engine.swapper().slots();
    let of = |kind: &str| slots.iter().find(|slot| slot.kind == kind).unwrap().active.generation;
    ["rotary-embedding", "kv-cache", "backend"].map(of).into()
}

/// How numbers lie.
fn dtype(engine: &Engine) -> DType {
    match engine.state_layout().pool.storage[0] {
        Storage::Plain(dtype) => dtype,
        ref other => panic!("numbers as they are, found {other:?}"),
    }
}

#[test]
fn each_half_alone_is_refused() {
    let setup = narrow(u64::MAX >> 1);
    let cases = [
        ("kv-cache", "paged", text("dtype", "f32"), "slot `kv-cache`: compile: state"),
        ("backend", "broken", text("state", "f32"), "slot `backend`: compile: state"),
    ];
    for (kind, name, config, expected) in cases {
        refuses_all(&narrow(u64::MAX >> 1), vec![member(&setup, kind, name, &config)], expected);
    }
}

#[test]
fn both_halves_change_at_one_boundary_there_and_back_without_a_trace() {
    let folder = tiny_model("tiny");
    let setup = narrow(u64::MAX >> 1);
    let expected = answer(&mut setup.load(folder.path()).unwrap(), request(80)).1;
    let mut engine = setup.load(folder.path()).unwrap();
    let id = engine.submit(request(80)).unwrap();
    let mut tokens = Vec::<Token>::new();
    let mut swaps = 1;
    for n in 0.. {
        if engine.num_running() == 0 {
            break;
        }
        if n % 10 == 5 {
            for (numbers, rotary, found) in
                [("f32", "faster", DType::F32), ("f16", "standard", DType::F16)]
            {
                let reaches = offer(&engine, pair(&setup, numbers, rotary));
                assert_eq!(reaches, [Reach::NextBoundary; 3]);
                assert_eq!(generations(&engine), [swaps; 3], "not before the boundary");
                engine.boundary();
                swaps += 1;
                assert_eq!(generations(&engine), [swaps; 3], "all at once");
                assert_eq!(dtype(&engine), found);
            }
        }
        step(&mut engine, &mut tokens);
    }
    assert!(swaps > 10, "{swaps}");
    assert_eq!(of(&tokens, id), expected);
    assert_eq!(engine.cache_usage().used, 0, "every block comes back");
}

#[test]
fn while_one_member_is_converted_no_other_has_changed() {
    let folder = tiny_model("tiny");
    let mut setup = narrow(0);
    let per_token = setup.load(folder.path()).unwrap().state_layout().bytes_per_token as u64;
    setup.options.convert_bytes_per_step = 2 * per_token;
    let expected = answer(&mut setup.load(folder.path()).unwrap(), request(120)).1;
    let mut engine = setup.load(folder.path()).unwrap();
    let id = engine.submit(request(120)).unwrap();
    let mut tokens = Vec::<Token>::new();
    for _ in 0..40 {
        step(&mut engine, &mut tokens);
    }
    let digest = tokens.last().unwrap().2;
    let set = pair(&setup, "f32", "faster").into_iter();
    let more = member(&setup, "logits-processor", "top-k", &Config::new());
    let set: Vec<_> = set.chain([more]).collect();
    offer(&engine, set);
    let mut steps = 0;
    while dtype(&engine) == DType::F16 {
        assert_eq!(generations(&engine), [1; 3]);
        let other = swap(&engine, &setup, "logits-processor", "top-k");
        assert!(
            matches!(other, Err(SwapError::Pending { .. })),
            "it waits with the set: {other:?}"
        );
        swap(&engine, &setup, "scheduler", "fcfs").unwrap();
        step(&mut engine, &mut tokens);
        steps += 1;
    }
    assert!(steps > 10, "{steps} steps");
    assert_eq!(generations(&engine), [2; 3]);
    let slots = slots(&engine);
    assert!(slots.contains(&"logits-processor: top-k#2, top-k#1 with 1".to_owned()), "{slots:?}");
    let before = of(&tokens, id);
    // The last token came out of the step that the boundary began.
    let unchanged = before.len() - 1;
    assert_eq!(before[..unchanged], expected[..unchanged], "until then nothing has changed");
    assert_ne!(tokens.last().unwrap().2, digest);
    while engine.num_running() > 0 {
        step(&mut engine, &mut tokens);
    }
    assert_eq!(of(&tokens, id).len(), 120);
}

/// Kind, name and table of each member, and what the error says.
type Case<'a> = (&'a [(&'a str, &'a str, Config)], &'a str);

#[test]
fn one_member_that_refuses_keeps_every_other_out() {
    let odd = |handover: &str| text("handover", handover);
    let plain = Config::new;
    #[rustfmt::skip]
    let cases: [Case<'_>; 8] = [
        // Refused while the set is prepared.
        (&[("scheduler", "fcfs", plain()), ("backend", "broken", text("fails", "compile"))],
            "slot `backend`: compile: plan is unsupported: this one fails to compile"),
        (&[("logits-processor", "top-k", plain()), ("rotary-embedding", "faster", Config::new().with("fails", true))],
            "slot `rotary-embedding`: trace"),
        (&[("norm", "rms-norm", plain()), ("rotary-embedding", "faster", Config::new().with("fails", true))],
            "slot `norm + rotary-embedding`: trace: rotation is unsupported"),
        (&[("backend", "cpu", plain()), ("kv-cache", "contiguous", plain())],
            "slot `kv-cache`: pool: expected"),
        (&[("norm", "rms-norm", plain()), ("scheduler", "fcfs", plain()), ("norm", "rms-norm", plain())],
            "slot `norm`: expected one plugin of a set for it"),
        // Refused at the boundary, after others were admitted.
        (&[("scheduler", "fcfs", plain()), ("kv-cache", "odd", odd("fails-to-restore"))],
            "handover: restore"),
        (&[("kv-cache", "odd", odd("restores-nothing")), ("backend", "cpu", plain()), ("logits-processor", "min-p", plain())],
            "slot `kv-cache`: blocks in use after"),
        (&[("rotary-embedding", "faster", plain()), ("decoding-strategy", "sample", plain()), ("kv-cache", "odd", odd("never"))],
            "a new one that does not"),
    ];
    for (members, expected) in cases {
        let setup = parts::setup();
        let made = members.iter().map(|(kind, name, config)| member(&setup, kind, name, config));
        refuses_all(&setup, made.collect(), expected);
    }
}

#[test]
fn a_processor_without_room_keeps_a_set_out_at_its_boundary() {
    let folder = tiny_model("tiny");
    let setup = parts::setup();
    let mut engine = setup.load(folder.path()).unwrap();
    let mut tokens = Vec::new();
    for _ in 0..4 {
        engine.submit(request(24)).unwrap();
        swap(&engine, &setup, "logits-processor", "top-k").unwrap();
        step(&mut engine, &mut tokens);
    }
    engine.swapper().flush();
    let heard = listen(&setup);
    let before = (slots(&engine), engine.digest());
    let set = [("scheduler", "fcfs"), ("logits-processor", "top-k"), ("backend", "cpu")];
    let set = set.map(|(kind, name)| member(&setup, kind, name, &Config::new()));
    offer(&engine, set.into());
    engine.boundary();
    engine.swapper().flush();
    assert_eq!((slots(&engine), engine.digest()), before);
    let told = take(&heard).pop().unwrap();
    assert!(told.starts_with("back backend cpu: slot `logits-processor/top-k`"), "{told}");
    while engine.num_running() > 0 {
        step(&mut engine, &mut tokens);
    }
    let set = [("scheduler", "fcfs"), ("logits-processor", "top-k"), ("backend", "cpu")];
    let set = set.map(|(kind, name)| member(&setup, kind, name, &Config::new()));
    offer(&engine, set.into());
    engine.boundary();
    assert_eq!(slot(&engine, "backend"), "backend: cpu#2", "there is room again");
}

#[test]
fn parts_of_another_meaning_are_one_new_plan_on_the_backend_of_their_set() {
    let folder = tiny_model("tiny");
    let setup = parts::setup();
    let old = answer(&mut setup.load(folder.path()).unwrap(), request(40)).1;
    let alone = parts::setup().with("rotary-embedding", "faster");
    let new = answer(&mut alone.load(folder.path()).unwrap(), request(40)).1;
    assert_ne!(old, new);

    let mut engine = setup.load(folder.path()).unwrap();
    let first = engine.submit(request(40)).unwrap();
    let mut tokens = Vec::new();
    for _ in 0..10 {
        step(&mut engine, &mut tokens);
    }
    let threads = Config::new().with("threads", 2);
    let set = [
        ("rotary-embedding", "faster", Config::new()),
        ("norm", "rms-norm", Config::new()),
        ("backend", "cpu", threads),
        ("scheduler", "fcfs", Config::new()),
    ];
    let set = set.map(|(kind, name, config)| member(&setup, kind, name, &config));
    offer(&engine, set.into());
    engine.boundary();
    let second = engine.submit(request(40)).unwrap();
    let found = slots(&engine);
    for expected in [
        "backend: cpu#2",
        "scheduler: fcfs#2",
        "norm: rms-norm#2, rms-norm#1 with 1",
        "rotary-embedding: faster#2, standard#1 with 1",
    ] {
        assert!(found.contains(&expected.to_owned()), "{expected}: {found:?}");
    }
    while engine.num_running() > 0 {
        step(&mut engine, &mut tokens);
    }
    assert_eq!((of(&tokens, first), of(&tokens, second)), (old, new));
}

#[test]
fn a_set_is_answered_member_by_member_once_its_boundary_took_it_in() {
    let folder = tiny_model("tiny");
    let setup = parts::setup();
    let mut engine = setup.load(folder.path()).unwrap();
    let swapper = engine.swapper();
    let (wake, is_woken) = std::sync::mpsc::channel();
    swapper.on_offer(move || wake.send(()).unwrap());
    let stepping = std::thread::spawn(move || {
        is_woken.recv().unwrap();
        engine.boundary();
        engine
    });
    let set = [("logits-processor", "top-k"), ("backend", "cpu"), ("rotary-embedding", "faster")];
    let set = set.map(|(kind, name)| member(&setup, kind, name, &Config::new()));
    let swapped = swapper.swap_all(set.into(), Duration::from_secs(600)).unwrap();
    let told = swapped.iter().map(|one| {
        let retired = one.retired.as_ref().map(ToString::to_string);
        (one.active.to_string(), retired.unwrap_or_default(), one.reach)
    });
    let expected = [
        ("top-k#2", "top-k#1", Reach::NewRequests),
        ("cpu#2", "cpu#1", Reach::MidStream),
        ("faster#2", "standard#1", Reach::NewRequests),
    ];
    let expected = expected.map(|(active, old, reach)| (active.to_owned(), old.to_owned(), reach));
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert_eq!(swapper.swap_all(Vec::new(), Duration::ZERO), Ok(Vec::new()), "nothing to do");
    drop(stepping.join().unwrap());
}
