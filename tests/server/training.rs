//! The page of a run: what happens in it is told from its beginning, and it can be stopped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use jackfield_engine::model::Architecture;
use jackfield_engine::train::{Parameters, TextLoader, TokenBatch, Verdict};
use jackfield_engine::{TrainOptions, Trainer};
use jackfield_runtime::SystemClock;
use jackfield_server::{RunServer, ServerConfig};
use jackfield_tests::{Setup, golden, root};
use plugin_api::Config;
use plugin_api::events::{Flow, Subscriptions};
use plugin_api::testing::machine::Machine;
use serde_json::{Value, json};

use crate::browser::{Browser, within};
use crate::client::{Answer, Connection, bytes, json_bytes};
use crate::service::Gate;

/// A run of the tiny model with its page; steps are made while the gate is open.
struct Run {
    address: SocketAddr,
    gate: Gate,
    thread: Option<JoinHandle<Verdict>>,
}

impl Run {
    /// Of so many steps; the step after `leap` has gradients a thousand times as long.
    fn start(table: Config, num_steps: u64, leap: u64) -> Self {
        let setup = Setup::new("cpu").with("lr-schedule", "constant");
        let config = Config::new().with("server", table.with("address", "127.0.0.1:0"));
        let config = ServerConfig::read(&config, "".as_ref()).unwrap();
        let gate = Gate::default();
        gate.set(true);
        let (opened, mut on) = (gate.clone(), Subscriptions::new());
        on.train_before_step(move |_, _| {
            opened.wait();
            Flow::Continue
        });
        on.train_micro_batch(move |event, _| {
            if event.step == leap {
                // Targets that were never seen have a loss of their own.
                event.targets.iter_mut().for_each(|target| *target = 0);
                event.weights.iter_mut().enumerate().for_each(|(i, w)| *w = f32::from(i < 1));
            }
            Flow::Continue
        });
        setup.bus.subscribe(&Machine::new().host("gate"), on);
        let (sender, receiver) = std::sync::mpsc::channel();
        let run = move || {
            // Before anything happens, and gone after the last event was sent.
            let server = RunServer::start(config, &setup.bus).unwrap();
            sender.send(server.address()).unwrap();
            train(&setup, num_steps)
        };
        let thread = Some(std::thread::spawn(run));
        Self { address: receiver.recv().unwrap(), gate, thread }
    }

    fn ask(&self, request: &[u8]) -> Answer {
        Connection::send(self.address, request).answer()
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&bytes("GET", path, &[], ""))
    }

    fn join(&mut self) -> Verdict {
        self.gate.set(true);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.thread.is_some() && !std::thread::panicking() {
            self.join();
        }
    }
}

fn train(setup: &Setup, num_steps: u64) -> Verdict {
    let text = std::fs::read(root().join("plugin-api/tests/training/text.txt")).unwrap();
    let mut loader = TextLoader::new(text, 16, 3).unwrap();
    let json = std::fs::read_to_string(golden("tiny.config.json")).unwrap();
    let architecture = Architecture::from_json(&serde_json::from_str(&json).unwrap()).unwrap();
    let parameters =
        Parameters::from_safetensors(&std::fs::read(golden("tiny.safetensors")).unwrap());
    let options = TrainOptions { learning_rate: 1e-3, num_steps, tokens_max: 64, num_seqs_max: 4 };
    let (wiring, registry, bus) = (&setup.wiring, &setup.registry, &setup.bus);
    let clock = Arc::new(SystemClock::new());
    let made =
        Trainer::new(architecture, parameters.unwrap(), wiring, registry, bus, clock, options);
    let mut trainer = made.unwrap();
    trainer.begin();
    let held_out: Vec<TokenBatch> = vec![loader.batch(2)];
    let mut verdict = Verdict::Done;
    while trainer.num_steps_done() < num_steps && verdict != Verdict::Stopped {
        trainer.at_epoch(loader.epoch());
        verdict = trainer.step(&[loader.batch(4)]).unwrap().verdict;
        if trainer.num_steps_done() == num_steps / 2 {
            trainer.evaluate(&held_out).unwrap();
            trainer.saved(num_steps / 2, "kept/step-half");
        }
    }
    trainer.end();
    verdict
}

/// The events of a stream that has come to its end.
fn told(answer: &Answer) -> Vec<Value> {
    let events = answer.body.split("\n\n").filter(|event| event.starts_with("data: "));
    events.map(|event| serde_json::from_str(&event["data: ".len()..]).unwrap()).collect()
}

fn of<'a>(events: &'a [Value], topic: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["topic"] == topic).collect()
}

#[test]
fn a_run_is_told_from_its_beginning_to_its_end_whoever_comes_when() {
    let mut run = Run::start(Config::at("server"), 40, 30);
    let early = Connection::send(run.address, &bytes("GET", "/run/events", &[], ""));
    let late = std::thread::spawn({
        let address = run.address;
        // Some steps may have been made.
        move || Connection::send(address, &bytes("GET", "/run/events", &[], "")).answer()
    });
    assert_eq!(run.join(), Verdict::Done);
    for answer in [early.answer(), late.join().unwrap()] {
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("text/event-stream"))
        );
        let events = told(&answer);
        let steps: Vec<u64> =
            of(&events, "step").iter().map(|event| event["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, (0..40).collect::<Vec<u64>>(), "every step, once, in order");
        assert_eq!(of(&events, "start")[0]["num_steps"], 40);
        let last = of(&events, "step")[39];
        let layers = last["layers"].as_object().unwrap();
        let names: Vec<&str> = layers.keys().map(String::as_str).collect();
        assert_eq!(names, ["embed_tokens", "layers.0", "layers.1", "lm_head", "norm"]);
        let squares: f64 = layers.values().map(|norm| norm.as_f64().unwrap().powi(2)).sum();
        assert!((squares.sqrt() / last["grad_norm"].as_f64().unwrap() - 1.0).abs() < 1e-6);
        assert!(last["loss"].as_f64().unwrap() < of(&events, "step")[0]["loss"].as_f64().unwrap());
        assert_eq!((&last["tokens"], &last["learning_rate"]), (&64.into(), &1e-3.into()));
        let unusual = |step: usize| of(&events, "step")[step]["unusual"].as_object().unwrap().len();
        assert!(unusual(30) > 0 && unusual(29) == 0, "the leap is marked");
        assert!(of(&events, "evaluate")[0]["loss"].as_f64().unwrap() > 1.0);
        assert_eq!(of(&events, "checkpoint")[0]["path"], "kept/step-half");
        assert_eq!(events.last().unwrap(), &json!({ "topic": "end", "step": 40 }));
    }
}

#[test]
fn a_run_is_stopped_by_who_may_and_nobody_else() {
    let keys = vec![plugin_api::Value::from("secret")];
    let mut run = Run::start(Config::at("server").with("api_keys", keys), 4000, u64::MAX);
    for (path, status) in
        [("/", 200), ("/page/training.js", 200), ("/run/events", 401), ("/v1/models", 401)]
    {
        assert_eq!(run.get(path).status, status, "{path}");
    }
    let stop =
        |headers: &[(&str, &str)]| run.ask(&bytes("POST", "/run/stop", headers, "{}")).status;
    assert_eq!(stop(&[("content-type", "application/json")]), 401);
    assert_eq!(stop(&[("x-api-key", "secret"), ("content-type", "text/plain")]), 400);
    assert_eq!(stop(&[("x-api-key", "secret"), ("content-type", "application/json")]), 202);
    assert_eq!(run.join(), Verdict::Stopped);
}

#[test]
fn without_keys_only_what_is_addressed_to_this_machine_is_answered() {
    let run = Run::start(Config::at("server"), 2, u64::MAX);
    let request = "POST /run/stop HTTP/1.1\r\nhost: example.org\r\ncontent-type: application/json\r\n\
                   content-length: 2\r\n\r\n{}";
    let answer = run.ask(request.as_bytes());
    assert!((400..500).contains(&answer.status), "{}", answer.body);
    assert_eq!(run.ask(&json_bytes("/nowhere", &json!({}))).status, 404);
    let everywhere =
        Config::new().with("server", Config::at("server").with("address", "0.0.0.0:0"));
    let config = ServerConfig::read(&everywhere, "".as_ref()).unwrap();
    let error = RunServer::start(config, &Setup::new("cpu").bus).err().unwrap().to_string();
    assert!(error.contains("expected a loopback address"), "{error}");
}

#[test]
fn the_page_shows_the_run_and_stops_it() {
    let Some(browser) = Browser::start() else { return };
    let mut run = Run::start(Config::at("server"), 100_000, 30);
    browser.open(&format!("http://{}/", run.address));
    within("steps are shown", || browser.text("#run-state").contains("of 100000"));
    within("the leap is told", || browser.text("#run-events").contains("deviations above"));
    assert_eq!(
        browser.text("nav").split_whitespace().collect::<Vec<_>>(),
        ["Training", "Settings"]
    );
    for figure in
        ["Loss", "Learning rate", "Length of the gradient", "Tokens a second", "Gradients by layer"]
    {
        assert!(browser.text("#run-figures").contains(figure), "{figure}");
    }
    // Something is drawn in each, in either colours.
    let is_drawn = "return [...document.querySelectorAll('#run-figures canvas')].every((c) => \
                    c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((x) => x))";
    browser.click("[data-tab=settings]");
    for theme in ["light", "dark"] {
        browser.click(&format!("[name=theme][value={theme}]"));
        browser.click("[data-tab=training]");
        within("figures are drawn", || browser.run(is_drawn) == true);
        browser.click("[data-tab=settings]");
    }
    browser.click("[data-tab=training]");
    browser.click("#run-stop");
    within("the run is over", || browser.text("#run-state").contains("Over:"));
    assert_eq!(run.join(), Verdict::Stopped);
    assert_eq!(browser.errors(), Vec::<String>::new());
}
