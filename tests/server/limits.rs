//! Limits and ends: queues, clients that leave or dawdle, a server that is stopped.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use jackfield_engine::model::Tokenizer;
use plugin_api::Config;
use plugin_api::events::{Flow, Subscriptions};
use plugin_api::testing::machine::Machine;
use serde_json::{Value, json};

use crate::browser::within;
use crate::client::{Connection, bytes, json_bytes};
use crate::service::{MODEL, Service, completion};

const PATH: &str = "/v1/completions";

fn streamed(prompt: &str, max_tokens: u32) -> Value {
    let mut request = completion(prompt, max_tokens);
    request["stream"] = json!(true);
    request
}

/// A server on which one request runs and one may wait.
fn small() -> Service {
    Service::with(Config::at("server").with("max_queued", 1), |setup| {
        setup.options.num_seqs_max = 1;
    })
}

#[test]
fn what_does_not_fit_into_the_queue_is_refused_with_a_time() {
    let service = small();
    service.gate.set(false);
    let first = service.open(PATH, &completion("first", 4));
    let second = service.open(PATH, &completion("second", 4));
    service.wait_for("num_requests_waiting", 2.0);
    let third = service.post(PATH, &completion("third", 4));
    assert_eq!((third.status, third.json()["error"]["code"].as_str()), (429, Some("queue_full")));
    let seconds: u64 = third.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    service.gate.set(true);
    for waiting in [first, second] {
        assert_eq!(waiting.answer().status, 200);
    }
    assert_eq!(service.post(PATH, &completion("third", 4)).status, 200, "there is room again");
    assert_eq!(service.metric("request_over_limit_total"), 1.0);
}

#[test]
fn a_request_of_several_is_taken_whole_or_not_at_all() {
    let service = small();
    let mut request = completion("a", 4);
    request["n"] = json!(3);
    assert_eq!(service.post(PATH, &request).status, 429);
    request["n"] = json!(2);
    assert_eq!(service.post(PATH, &request).status, 200);
}

#[test]
fn clients_that_leave_are_forgotten() {
    let service = small();
    let expected = service.post(PATH, &completion("stays", 20)).json();
    service.gate.set(false);
    // One whose stream has begun, one that waits for a whole answer.
    let mut leaving = service.open(PATH, &streamed("leaves", 200));
    assert_eq!(leaving.head().0, 200);
    let waiting = service.open(PATH, &completion("leaves too", 200));
    service.wait_for("num_requests_waiting", 2.0);
    drop((leaving, waiting));
    service.gate.set(true);
    service.wait_for("request_cancelled_total", 2.0);
    service.wait_for("num_requests_running", 0.0);
    let answer = service.post(PATH, &completion("stays", 20)).json();
    assert_eq!(answer["choices"], expected["choices"]);
}

#[test]
fn what_was_asked_before_the_end_is_answered() {
    let service = small();
    let expected = service.post(PATH, &completion("last", 50)).json();
    service.gate.set(false);
    let mut stream = service.open(PATH, &streamed("last", 50));
    // Its head comes when it is taken in, which nothing is while a step waits at the gate.
    assert_eq!(stream.head().0, 200);
    let whole = service.open(PATH, &completion("last", 50));
    service.wait_for("num_requests_waiting", 2.0);
    service.stop();
    let refused = service.post(PATH, &completion("too late", 4));
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["error"]["code"], "shutting_down");
    assert_eq!(service.get("/ready").status, 503);
    assert_eq!(service.get("/health").status, 200);
    service.gate.set(true);
    assert_eq!(whole.answer().json()["choices"], expected["choices"]);
    let mut last = String::new();
    loop {
        let line = stream.line();
        if line == "data: [DONE]" {
            break;
        }
        if let Some(event) = line.strip_prefix("data: ") {
            let event: Value = serde_json::from_str(event).unwrap();
            last.push_str(event["choices"][0]["text"].as_str().unwrap());
        }
    }
    assert_eq!(last, expected["choices"][0]["text"]);
    service.join();
}

#[test]
fn slow_senders_are_hung_up_on() {
    let table = Config::at("server").with("head_seconds", 1).with("body_seconds", 1);
    let service = Service::with(table, |_| {});
    let request = json_bytes(PATH, &completion("slow", 4));
    let half = Connection::send(service.address, &request[..request.len() - 9]);
    let answer = half.answer();
    assert_eq!(answer.status, 408, "{}", answer.body);
    assert_eq!(answer.json()["error"]["code"], "request_timeout");
    let mut headless = Connection::send(service.address, &bytes("GET", "/health", &[], "")[..20]);
    assert_eq!(headless.line(), "", "the connection is closed");
}

#[test]
fn who_does_not_read_loses_the_answer_and_nobody_elses() {
    // Room for all tokens of who reads: on a busy machine it reads late.
    let table = Config::at("server").with("unread_tokens", 100).with("max_choices", 64);
    let service = Service::with(table, |_| {});
    let expected = service.post(PATH, &completion("reads", 100)).json();
    // More than sockets hold.
    let request = json!({
        "model": MODEL, "messages": [{ "role": "user", "content": "Hi" }], "stream": true, "n": 64,
        "ignore_eos": true, "logprobs": true, "top_logprobs": 20,
    });
    let mut dawdler = service.open("/v1/chat/completions", &request);
    assert_eq!(dawdler.head().0, 200);
    within("not everything is sent", || service.metric("request_cancelled_total") > 0.0);
    let answer = service.post(PATH, &completion("reads", 100)).json();
    assert_eq!(answer["choices"], expected["choices"]);
    let mut stream = String::new();
    loop {
        let line = dawdler.line();
        if line == "0" {
            break;
        }
        if line.starts_with("data: ") {
            stream = line;
        }
    }
    let last: Value = serde_json::from_str(stream.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "slow_reader", "{last}");
    service.wait_for("num_requests_running", 0.0);
}

/// The thread that steps never cuts a text into tokens, be it short or long: streams would wait.
#[test]
fn prompts_are_cut_into_tokens_elsewhere() {
    let cut = Arc::new(Mutex::new(BTreeSet::new()));
    let told = Arc::clone(&cut);
    let service = Service::with(Config::at("server"), move |setup| {
        let mut on = Subscriptions::new();
        on.before_step(move |_, _| {
            told.lock().unwrap().insert(Tokenizer::encoded_here());
            Flow::Continue
        });
        setup.bus.subscribe(&Machine::new().host("watch"), on);
    });
    // Longer than what the thread of connections takes on itself, and than the context.
    let long = "a ".repeat(20_000);
    for (prompt, status) in [("short", 200), (&long, 400), ("short", 200)] {
        let answer = service.post(PATH, &completion(prompt, 4));
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    // Strategies may have asked for their own texts when the engine was loaded.
    let cut = cut.lock().unwrap().clone();
    assert_eq!(cut.len(), 1, "steps happened, and no text between them: {cut:?}");
}
