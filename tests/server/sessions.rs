//! Conversations that are remembered: over requests, restarts of the host, swaps of the memory and lanes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jackfield::BuildLane;
use jackfield_engine::Memories;
use jackfield_loader::{Grants, Loader, LoaderOptions, Services, StoreOptions};
use jackfield_runtime::{Bus, SwapTarget as _, SystemClock};
use jackfield_tests::{Setup, real_model, root};
use plugin_api::kinds::memory::{Message, Turn};
use plugin_api::{Config, Memory};
use serde_json::{Value, json};

use crate::service::{MODEL, Models, Service};

const CHAT: &str = "/v1/chat/completions";

/// A server whose memories keep their rows below `store`.
fn service(store: &Path, memory: &'static str) -> Service {
    let models = Models { store: Some(store.to_owned()), ..Models::default() };
    Service::of(models, Config::at("server"), move |setup| setup.wiring.choose("memory", memory))
}

fn chat(session: Option<&str>, said: &str) -> Value {
    let mut body = json!({ "model": MODEL, "messages": [{ "role": "user", "content": said }], "max_tokens": 4, "temperature": 0, "ignore_eos": true });
    if let Some(session) = session {
        body["session_id"] = session.into();
    }
    body
}

fn recalled(answer: &Value) -> Vec<&str> {
    answer["memory"]["recalled"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect()
}

#[test]
fn a_session_is_remembered_over_requests_and_restarts_and_no_other_is() {
    for memory in ["basic-memory", "hierarchical-memory"] {
        let store = tempfile::tempdir().unwrap();
        let first = service(store.path(), memory);
        let told = first.post(CHAT, &chat(Some("ada"), "My dog is called Rex.")).json();
        assert_eq!(
            told["memory"],
            json!({ "recalled": [], "remembered": true, "notes": [] }),
            "{memory}"
        );
        let question = "What is my dog called?";
        let here = first.post(CHAT, &chat(Some("ada"), question)).json();
        assert!(recalled(&here)[0].starts_with(&format!("{memory}: ")), "{here}");
        let plain = first.post(CHAT, &chat(None, question)).json();
        assert!(plain.get("memory").is_none(), "without a session nothing is recalled: {plain}");
        let more =
            here["usage"]["prompt_tokens"].as_u64() > plain["usage"]["prompt_tokens"].as_u64();
        assert!(more, "what is recalled stands in the prompt");
        first.stop();
        first.join();
        let second = service(store.path(), memory);
        let there = second.post(CHAT, &chat(Some("ada"), question)).json();
        assert_eq!(there["memory"], here["memory"], "{memory}");
        assert_eq!(there["choices"], here["choices"], "{memory}: the same prompt, the same answer");
        let other = second.post(CHAT, &chat(Some("bob"), question)).json();
        assert_eq!(recalled(&other), [""; 0], "{memory}");
        assert_eq!(other["usage"]["prompt_tokens"], plain["usage"]["prompt_tokens"]);
    }
}

#[test]
fn a_session_that_is_deleted_is_forgotten_and_no_other_is() {
    for memory in ["basic-memory", "hierarchical-memory"] {
        let store = tempfile::tempdir().unwrap();
        let service = service(store.path(), memory);
        for (session, said) in
            [("ada", "My dog is called Rex."), ("bob and more", "My cat is called Tom.")]
        {
            service.post(CHAT, &chat(Some(session), said));
        }
        for deleted in [true, false] {
            let answer = service.delete("/v1/sessions/ada");
            let expected = json!({ "id": "ada", "object": "session.deleted", "deleted": deleted });
            assert_eq!((answer.status, answer.json()), (200, expected), "{memory}");
            let asked = service.post(CHAT, &chat(Some("ada"), "What is my dog called?")).json();
            if deleted {
                assert_eq!(recalled(&asked), [""; 0], "{memory}");
                assert_eq!(service.delete("/v1/sessions/ada").status, 200, "the question, too");
            }
        }
        let other =
            service.post(CHAT, &chat(Some("bob and more"), "What is my cat called?")).json();
        assert_eq!(recalled(&other).len(), 1, "{memory}: {other}");
        assert_eq!(service.delete("/v1/sessions/bob%20and%20more").json()["deleted"], true);
        assert_eq!(service.delete("/v1/sessions/a%0Ab").status, 400);
        assert_eq!(service.delete(&format!("/v1/sessions/{}", "x".repeat(129))).status, 400);
        assert_eq!(service.get("/v1/sessions/ada").status, 405);
    }
}

#[test]
fn streams_tell_of_the_memory_in_their_last_event() {
    let store = tempfile::tempdir().unwrap();
    let service = service(store.path(), "hierarchical-memory");
    let mut body = chat(Some("ada"), "【封存·字段】PARAM:x: {\"a\":");
    body["stream"] = true.into();
    body["stream_options"] = json!({ "include_usage": true });
    let events = service.post(CHAT, &body).events();
    let [.., memory, usage] = &events[..] else { panic!("{events:?}") };
    assert_eq!(memory["choices"], json!([]));
    assert_eq!(memory["memory"]["remembered"], true);
    let note = memory["memory"]["notes"][0].as_str().unwrap();
    assert!(note.starts_with("directive at byte 0: expected a JSON object"), "{note}");
    assert!(usage["usage"]["total_tokens"].is_u64() && usage.get("memory").is_none());
    assert!(events[..events.len() - 2].iter().all(|event| event.get("memory").is_none()));
}

#[test]
fn a_store_that_fails_fails_the_request_in_words_or_is_told_with_the_answer() {
    let store = tempfile::tempdir().unwrap();
    std::fs::write(store.path().join("basic-memory.sqlite3"), "cut").unwrap();
    let broken = service(store.path(), "basic-memory");
    let answer = broken.post(CHAT, &chat(Some("ada"), "Hello?"));
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["code"]), (500, &json!("memory_error")), "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("store of plugin `basic-memory`: malformed"), "{message}");
    assert_eq!(broken.post(CHAT, &chat(None, "Hello?")).status, 200, "others are served");
    drop(broken);

    // A session that has no room: recalling works, remembering does not.
    let store = tempfile::tempdir().unwrap();
    let models = Models {
        store: Some(store.path().to_owned()),
        session_bytes: Some(300),
        ..Models::default()
    };
    let full = Service::of(models, Config::at("server"), |_| {});
    let told = full.post(CHAT, &chat(Some("ada"), "My dog is called Rex.")).json();
    assert_eq!(told["memory"]["remembered"], true);
    let said = format!("My cat is called {}.", "x".repeat(150));
    let told = full.post(CHAT, &chat(Some("ada"), &said)).json();
    assert_eq!(
        (&told["memory"]["remembered"], told["choices"].as_array().unwrap().len()),
        (&json!(false), 1)
    );
    assert!(told["memory"]["error"].as_str().unwrap().contains("no space"), "{told}");
    let after = full.post(CHAT, &chat(Some("ada"), "What is my dog called?")).json();
    assert_eq!(recalled(&after).len(), 1, "what was kept before is there");
}

#[test]
fn sessions_that_cannot_be_are_refused() {
    let store = tempfile::tempdir().unwrap();
    let with = service(store.path(), "basic-memory");
    let without = Service::new();
    #[rustfmt::skip]
    let cases = [
        (&with,    json!(""),              "invalid_value"),
        (&with,    json!("a\nb"),          "invalid_value"),
        (&with,    json!("x".repeat(129)), "invalid_value"),
        (&with,    json!(7),               "invalid_type"),
        (&without, json!("ada"),           "unsupported_parameter"),
    ];
    for (service, session, code) in cases {
        let mut body = chat(None, "Hi");
        body["session_id"] = session.clone();
        let answer = service.post(CHAT, &body);
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, &error["code"], &error["param"]),
            (400, &json!(code), &json!("session_id")),
            "{session}"
        );
    }
}

fn turn(said: &str) -> Turn {
    Turn { session: "s".to_owned(), messages: vec![Message::new("user", said)], tokens_max: 0 }
}

fn texts(memories: &Memories, question: &str) -> Vec<String> {
    let recalled = memories.recall(turn(question), &|text: &str| text.len()).unwrap();
    recalled.passages().iter().map(|passage| passage.text.clone()).collect()
}

/// What a memory keeps is read by the next one in its slot, from a file as a component as well; a request keeps the
/// one that it began with.
#[test]
fn a_swapped_memory_reads_what_the_one_before_it_kept_in_either_lane() {
    let (store, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let services = Arc::new(Services::with_store(StoreOptions::new(store.path())));
    let mut setup = Setup::new("cpu").with("memory", "hierarchical-memory");
    let lent = Arc::clone(&services);
    setup.wiring.lend(move |plugin, _| lent.host(plugin, Grants::for_builtin()));
    let folder = jackfield_tests::tiny_model("tiny");
    let engine = setup.load(folder.path()).unwrap();
    let memories =
        Memories::load(&setup.wiring, &setup.registry, &engine.model().tokenizer, 600).unwrap();
    let tell =
        |said: &str| memories.recall(turn(said), &|_: &str| 1).unwrap().remember("Noted.").unwrap();
    tell("The code of vault 7 is 4711.");

    let file = state.path().join("hierarchical-memory.wasm");
    let source = root().join("plugins/memory/hierarchical-memory");
    jackfield::build_plugin(&source, BuildLane::Wasm, Some(&file)).unwrap();
    let loader = Loader::new(LoaderOptions {
        folder: state.path().to_owned(),
        trial: None,
        native_quota: 1,
        wasm: None,
        hashes: Default::default(),
        trusted: Vec::new(),
        unload: Vec::new(),
        host: Arc::new(move |manifest| services.host(&manifest.name, Grants::for_builtin())),
        on_fault: Arc::new(|_, error| panic!("{error}")),
    });
    let loaded = loader.unwrap().load(&file, &Config::new()).unwrap();
    let swapper = memories.swapper(&Bus::new(), Arc::new(SystemClock::new()));
    let held = memories.recall(turn("The code of vault 8 is 1."), &|_: &str| 1).unwrap();
    let slot = "memory/hierarchical-memory";
    let instance = (loaded.provided[0].make)(&Config::new()).unwrap();
    let swapped = swapper.swap(slot, "hierarchical-memory", instance, Duration::ZERO).unwrap();
    assert_eq!(
        (swapped.retired, swapped.active.generation),
        (None, 2),
        "a request holds the first"
    );
    assert_eq!(swapper.slots()[0].draining.len(), 1);
    held.remember("Noted.").unwrap();
    assert_eq!(swapper.slots()[0].draining, []);
    assert_eq!(texts(&memories, "What is the code of vault 7?")[0], "The code of vault 7 is 4711.");
    assert_eq!(texts(&memories, "What is the code of vault 8?")[0], "The code of vault 8 is 1.");
    tell("The code of vault 7 is now 12.");
    assert!(loaded.generation.unwrap().calls() >= 4);

    let builtin = setup.wiring.make::<dyn Memory>(&setup.registry, "hierarchical-memory").unwrap();
    swapper.swap(slot, "hierarchical-memory", Box::new(builtin), Duration::ZERO).unwrap();
    assert_eq!(
        texts(&memories, "What is the code of vault 7?")[0],
        "The code of vault 7 is now 12."
    );
    let other = setup.wiring.make::<dyn Memory>(&setup.registry, "basic-memory").unwrap();
    let error =
        swapper.swap("memory/none", "basic-memory", Box::new(other), Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains(slot), "{error}");
}

/// A real model answers with what it was told before its host was restarted, and does not know it without.
#[test]
#[ignore = "a model that has to be there: SmolLM2-135M-Instruct"]
fn a_real_model_answers_with_what_it_was_told_before_a_restart() {
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(path) = real_model("SmolLM2-135M-Instruct", file) else { return };
    let store = tempfile::tempdir().unwrap();
    let serve = || {
        let (decoder, store) = (Some(path.clone()), Some(store.path().to_owned()));
        let models = Models { decoder, store, ..Models::default() };
        Service::of(models, Config::at("server"), |setup| {
            setup.wiring.choose("memory", "hierarchical-memory");
        })
    };
    let ask = |service: &Service, session: &str, said: &str| {
        let mut body = chat(Some(session), said);
        body["max_tokens"] = 24.into();
        body["ignore_eos"] = false.into();
        service.post(CHAT, &body).json()
    };
    let first = serve();
    let told = ask(&first, "ada", "My dog is called Biscuit.");
    assert_eq!(told["memory"]["remembered"], true, "{told}");
    first.stop();
    first.join();
    let second = serve();
    let said =
        |answer: &Value| answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let knows = said(&ask(&second, "ada", "What is my dog called?"));
    assert!(knows.contains("Biscuit"), "{knows}");
    let stranger = said(&ask(&second, "bob", "What is my dog called?"));
    assert!(!stranger.contains("Biscuit"), "{stranger}");
}
