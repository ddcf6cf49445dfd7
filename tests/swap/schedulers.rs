//! Schedulers that fail, and schedulers whose state survives a reload, in each lane.

use std::any::Any;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jackfield_engine::{Engine, Request, RequestId};
use jackfield_loader::LoadedPlugin;
use jackfield_runtime::SwapTarget;
use jackfield_tests::{Setup, answer, component_of, root, tiny_model};
use plugin_api::native::{Owner, across};
use plugin_api::prelude::*;
use plugin_api::testing::scheduler::{suite, suite_of};

use super::parts::setup;
use super::refused::{listen, take};
use super::round_robin::RoundRobin;
use super::{Token, of, slot, step, swap};

/// What owners of instances were told.
#[derive(Debug, Default)]
struct Faults(Mutex<Vec<String>>);

impl Faults {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Owner for Faults {
    fn label(&self) -> String {
        "plugin round-robin".to_owned()
    }

    fn fault(&self, error: &Error) {
        self.0.lock().unwrap().push(error.to_string());
    }
}

/// How an instance of `round-robin` is made.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lane {
    Builtin,
    Native,
    Wasm,
}

/// The three lanes of `round-robin`.
struct Lanes {
    faults: Arc<Faults>,
    component: LoadedPlugin,
}

impl Lanes {
    fn new(state: &Path) -> Self {
        let faults = Arc::new(Faults::default());
        let told = Arc::clone(&faults);
        let source = root().join("host/loader/tests/guests/round-robin");
        let told = move |error: &str| told.0.lock().unwrap().push(error.to_owned());
        Self { component: component_of(state, &source, told), faults }
    }

    fn make(&self, lane: Lane, config: &Config) -> Box<dyn Scheduler> {
        let builtin = || Box::new(RoundRobin::from_config(config).unwrap());
        match lane {
            Lane::Builtin => builtin(),
            Lane::Native => across::<dyn Scheduler>(builtin(), Arc::clone(&self.faults) as _),
            Lane::Wasm => {
                let made = (self.component.provided[0].make)(config).unwrap();
                *made.downcast::<Box<dyn Scheduler>>().unwrap()
            }
        }
    }

    fn swap(&self, engine: &Engine, lane: Lane, config: &Config) {
        let instance: Box<dyn Any + Send> = Box::new(self.make(lane, config));
        engine.swapper().swap("scheduler", "round-robin", instance, Duration::ZERO).unwrap();
    }
}

fn requests() -> [Request; 3] {
    let prompts = [vec![510, 3, 7, 31], vec![9, 8], vec![5, 6, 7, 8, 9, 10]];
    prompts.map(|prompt| {
        let request = Request::new(prompt).with("max_tokens", 24).with("ignore_eos", true);
        request.with("temperature", 0.8).with("seed", 5)
    })
}

fn submit(engine: &mut Engine) -> [RequestId; 3] {
    requests().map(|request| engine.submit(request).unwrap())
}

/// Every token in the order in which it came, by the request's place.
fn all(engine: &mut Engine) -> Vec<(usize, u32)> {
    let (ids, mut tokens) = (submit(engine), Vec::<Token>::new());
    while engine.num_running() > 0 {
        step(engine, &mut tokens);
    }
    let place = |id| ids.iter().position(|other| *other == id).unwrap();
    tokens.into_iter().map(|(id, token, _)| (place(id), token)).collect()
}

#[test]
fn whatever_fails_every_second_time_is_stood_in_for_by_arrival_and_told_once() {
    let folder = tiny_model("tiny");
    let by_arrival = setup().with("scheduler", "fcfs");
    let expected = all(&mut by_arrival.load(folder.path()).unwrap());
    assert_eq!(expected.len(), 72);
    let setup = setup().with("scheduler", "flaky");
    let heard = listen(&setup);
    let mut engine = setup.load(folder.path()).unwrap();
    assert_eq!(all(&mut engine), expected);
    let told = "fault scheduler/flaky: flaky: this one fails to pick";
    assert_eq!(take(&heard), [told]);
    // The next instance is told of as the first was.
    swap(&engine, &setup, "scheduler", "flaky").unwrap();
    assert_eq!(all(&mut engine), expected);
    engine.swapper().flush();
    let heard = take(&heard);
    assert_eq!(heard.iter().filter(|line| *line == told).count(), 1, "{heard:?}");
}

#[test]
fn errors_panics_and_traps_leave_requests_as_they_are_in_every_lane() {
    let (folder, state) = (tiny_model("tiny"), tempfile::tempdir().unwrap());
    let by_arrival = setup().with("scheduler", "fcfs");
    let expected = all(&mut by_arrival.load(folder.path()).unwrap());
    let lanes = Lanes::new(state.path());
    let (fails, panics) =
        (Config::new().with("fails_every", 1), Config::new().with("panics_at", 1));
    #[rustfmt::skip]
    let cases = [
        (Lane::Builtin, &fails,  &["this turn fails"][..]),
        (Lane::Native,  &fails,  &["this turn fails"]),
        (Lane::Wasm,    &fails,  &["this turn fails"]),
        (Lane::Native,  &panics, &["panicked: not this turn", "has to be replaced"]),
        (Lane::Wasm,    &panics, &["not this turn"]),
    ];
    for (lane, config, says) in cases {
        let setup = setup();
        let mut engine = setup.load(folder.path()).unwrap();
        lanes.swap(&engine, lane, config);
        let heard = listen(&setup);
        engine.boundary();
        engine.swapper().flush();
        take(&heard);
        assert_eq!(all(&mut engine), expected, "{lane:?}: by arrival, as `fcfs` picks");
        let (heard, faults) = (take(&heard), lanes.faults.take());
        assert_eq!(heard.len(), says.len(), "{lane:?}: {heard:?}");
        for (line, says) in heard.iter().zip(says) {
            assert!(line.starts_with("fault scheduler/round-robin: "), "{lane:?}: {line}");
            assert!(line.contains(says), "{lane:?}: {line}");
        }
        let owner_is_told = faults.len() == 1 && faults[0].contains(says[0]);
        assert!(owner_is_told || lane == Lane::Builtin && faults.is_empty(), "{lane:?} {faults:?}");
    }
}

#[test]
fn whose_turn_it_is_survives_a_reload_within_and_across_lanes() {
    let (folder, state) = (tiny_model("tiny"), tempfile::tempdir().unwrap());
    let lanes = Lanes::new(state.path());
    let alone = |request| answer(&mut setup().load(folder.path()).unwrap(), request).1;
    let expected = requests().map(alone);
    let v1 = Config::new().with("seqs_per_step", 1);
    let v2 = v1.clone().with("is_backwards", true);
    let routes = [
        [Lane::Builtin; 4],
        [Lane::Native; 4],
        [Lane::Wasm; 4],
        [Lane::Builtin, Lane::Native, Lane::Wasm, Lane::Builtin],
    ];
    for route in routes {
        let mut engine = setup().load(folder.path()).unwrap();
        lanes.swap(&engine, route[0], &v1);
        let (ids, mut tokens) = (submit(&mut engine), Vec::<Token>::new());
        // v1 for four steps, v2 for five, v1 again for two, v2 until the end.
        for (steps, lane, config) in [(4, route[1], &v2), (5, route[2], &v1), (2, route[3], &v2)] {
            (0..steps).for_each(|_| step(&mut engine, &mut tokens));
            lanes.swap(&engine, lane, config);
        }
        while engine.num_running() > 0 {
            step(&mut engine, &mut tokens);
        }
        let turns: Vec<_> = tokens.iter().take(16).map(|(id, ..)| *id).collect();
        let order = [
            0, 1, 2, 0, /* v2 */ 2, 1, 0, 2, 1, /* v1 */ 2, 0, /* v2 */ 2, 1, 0, 2,
            1,
        ];
        assert_eq!(turns, order.map(|place: usize| ids[place]), "{route:?}");
        for (id, expected) in ids.into_iter().zip(&expected) {
            assert_eq!(of(&tokens, id), *expected, "{route:?}");
        }
        assert_eq!(slot(&engine, "scheduler"), "scheduler: round-robin#5", "{route:?}");
        assert_eq!(lanes.faults.take(), Vec::<String>::new(), "{route:?}");
    }
}

#[test]
fn a_state_that_is_not_restored_leaves_the_old_scheduler_unless_the_name_is_another() {
    let (folder, state) = (tiny_model("tiny"), tempfile::tempdir().unwrap());
    let lanes = Lanes::new(state.path());
    let turns = Config::new().with("seqs_per_step", 1);
    let newer = turns.clone().with("schema", 2);
    for lane in [Lane::Builtin, Lane::Native, Lane::Wasm] {
        let setup: Setup = setup();
        let heard = listen(&setup);
        let mut engine = setup.load(folder.path()).unwrap();
        lanes.swap(&engine, lane, &turns);
        let (ids, mut tokens) = (submit(&mut engine), Vec::<Token>::new());
        step(&mut engine, &mut tokens);
        lanes.swap(&engine, lane, &newer);
        (0..3).for_each(|_| step(&mut engine, &mut tokens));
        engine.swapper().flush();
        let heard = take(&heard);
        let refused = "back scheduler round-robin: slot `scheduler`: handover: restore";
        assert!(heard.last().unwrap().contains(refused), "{lane:?}: {heard:?}");
        assert_eq!(slot(&engine, "scheduler"), "scheduler: round-robin#2", "{lane:?}");
        let turns: Vec<_> = tokens.iter().map(|(id, ..)| *id).collect();
        assert_eq!(turns, [0, 1, 2, 0].map(|place: usize| ids[place]), "{lane:?}");
        // Another policy knows nothing of these bytes, and is the way to another schema.
        swap(&engine, &setup, "scheduler", "fcfs").unwrap();
        engine.boundary();
        lanes.swap(&engine, lane, &newer);
        engine.boundary();
        assert_eq!(slot(&engine, "scheduler"), "scheduler: round-robin#4", "{lane:?}");
    }
}

#[test]
fn a_scheduler_that_has_failed_hands_nothing_over_and_keeps_nobody_out() {
    let (folder, setup) = (tiny_model("tiny"), setup());
    let mut engine = setup.load(folder.path()).unwrap();
    let offer = |engine: &Engine, config: &Config| {
        let instance: Box<dyn Scheduler> = Box::new(RoundRobin::from_config(config).unwrap());
        let (slot, instance) = ("scheduler", Box::new(instance));
        engine.swapper().swap(slot, "round-robin", instance, Duration::ZERO).unwrap();
    };
    offer(&engine, &Config::new().with("seqs_per_step", 1).with("fails_every", 2));
    let (ids, mut tokens) = (submit(&mut engine), Vec::<Token>::new());
    (0..2).for_each(|_| step(&mut engine, &mut tokens));
    // The first has its turn, then all by arrival.
    assert_eq!(
        tokens.iter().map(|(id, ..)| *id).collect::<Vec<_>>(),
        [0, 0, 1, 2].map(|i: usize| ids[i])
    );
    offer(&engine, &Config::new().with("seqs_per_step", 1).with("schema", 2));
    step(&mut engine, &mut tokens);
    assert_eq!(slot(&engine, "scheduler"), "scheduler: round-robin#3");
    assert_eq!(tokens.last().unwrap().0, ids[0], "turns start afresh");
}

#[test]
fn a_scheduler_with_a_state_passes_the_contract_suite_in_every_lane() {
    let state = tempfile::tempdir().unwrap();
    let lanes = Lanes::new(state.path());
    suite::<RoundRobin>(&Config::new());
    for lane in [Lane::Native, Lane::Wasm] {
        suite_of(&|config| Ok(lanes.make(lane, config)), &Config::new());
    }
}

/// Restores whose turn it was, but one further.
struct Forgetful(RoundRobin);

impl Scheduler for Forgetful {
    fn pick(&mut self, queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) -> Result<()> {
        self.0.pick(queue, limits, out)
    }

    fn handover(&mut self) -> Option<&mut dyn Handover> {
        Some(self)
    }
}

impl Handover for Forgetful {
    fn save(&self, out: &mut Vec<u8>) -> Result<()> {
        self.0.save(out)
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.restore(bytes)?;
        if let Some(last) = bytes.get(1).map(|last| last + 1) {
            self.0.restore(&[bytes[0], last, bytes[2], bytes[3], bytes[4]])?;
        }
        Ok(())
    }
}

#[test]
#[should_panic(expected = "the restored scheduler picks otherwise")]
fn the_contract_suite_finds_a_state_that_comes_back_otherwise() {
    let make = |config: &Config| {
        let scheduler: Box<dyn Scheduler> = Box::new(Forgetful(RoundRobin::from_config(config)?));
        Ok(scheduler)
    };
    suite_of(&make, &Config::new());
}
