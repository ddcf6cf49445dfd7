//! Texts to vectors over HTTP: what is answered, in every form, and what is refused.

use serde_json::{Value, json};

use jackfield_tests::{golden, tiny_encoder};
use plugin_api::Config;

use crate::browser::within;
use crate::client::{Connection, bytes};
use crate::service::{EMBEDDING_MODEL, Gate, MODEL, Models, Service};
use crate::statuses::check_error;

const PATH: &str = "/v1/embeddings";

fn entries() -> Vec<Value> {
    let text = std::fs::read_to_string(golden("tiny_bert_expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn of(input: &Value) -> Value {
    json!({ "model": EMBEDDING_MODEL, "input": input })
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// The vectors of an answer, which has to be one as OpenAI writes it.
fn vectors(answer: &Value) -> Vec<Vec<f64>> {
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!(EMBEDDING_MODEL)));
    let one = |(i, entry): (usize, &Value)| {
        assert_eq!((&entry["object"], &entry["index"]), (&json!("embedding"), &json!(i)));
        numbers(&entry["embedding"])
    };
    answer["data"].as_array().unwrap().iter().enumerate().map(one).collect()
}

#[test]
fn every_form_of_input_has_the_vectors_of_the_reference() {
    let service = Service::encoding();
    let entries = entries();
    let texts: Vec<&Value> = entries.iter().map(|entry| &entry["text"]).collect();
    let ids: Vec<&Value> = entries.iter().map(|entry| &entry["ids"]).collect();
    let num_tokens: usize = entries.iter().map(|e| e["ids"].as_array().unwrap().len()).sum();

    let answer = service.post(PATH, &of(&json!(texts)));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let answer = answer.json();
    assert_eq!(answer["usage"], json!({ "prompt_tokens": num_tokens, "total_tokens": num_tokens }));
    let together = vectors(&answer);
    assert_eq!(together.len(), entries.len());
    for (found, entry) in together.iter().zip(&entries) {
        for (a, b) in found.iter().zip(numbers(&entry["mean"])) {
            assert!((a - b).abs() < 2e-6, "{}: {a}, not {b}", entry["text"]);
        }
    }
    let by_ids = service.post(PATH, &of(&json!(ids))).json();
    assert_eq!((vectors(&by_ids), &by_ids["usage"]), (together.clone(), &answer["usage"]));
    for (i, expected) in together.iter().enumerate() {
        for input in [texts[i], ids[i]] {
            let alone = service.post(PATH, &of(input)).json();
            assert_eq!(vectors(&alone), std::slice::from_ref(expected), "{input}");
        }
    }
}

#[test]
fn base64_holds_the_same_bits_and_neutral_fields_change_nothing() {
    let service = Service::encoding();
    let plain = vectors(&service.post(PATH, &of(&json!("hello"))).json()).remove(0);
    let mut asked = of(&json!("hello"));
    for (key, value) in
        [("encoding_format", json!("float")), ("dimensions", json!(32)), ("user", json!("me"))]
    {
        asked[key] = value;
        let found = vectors(&service.post(PATH, &asked).json());
        assert_eq!(found, std::slice::from_ref(&plain), "{key}");
    }
    asked["encoding_format"] = json!("base64");
    let body = service.post(PATH, &asked).json();
    let letters = body["data"][0]["embedding"].as_str().unwrap();
    let bytes = decoded(letters);
    let (chunks, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    let found: Vec<f32> = chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let plain: Vec<f32> = plain.iter().map(|x| *x as f32).collect();
    assert_eq!(found, plain);
}

/// Base64 with padding, by counting bits.
fn decoded(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            other => panic!("{other} is no letter of Base64"),
        };
        (bits, count) = (bits << 6 | u32::from(value), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

#[test]
fn wrong_fields_are_named() {
    let service = Service::encoding();
    let model = EMBEDDING_MODEL;
    let (long, many) = ("x ".repeat(63), vec!["a"; 2_049]);
    #[rustfmt::skip]
    let cases: Vec<(Value, u16, &str, Option<&str>)> = vec![
        (json!({ "input": "a" }),                             400, "missing_required_parameter", Some("model")),
        (json!({ "model": model }),                           400, "missing_required_parameter", Some("input")),
        (json!({ "model": MODEL, "input": "a" }),             404, "model_not_found", Some("model")),
        (json!({ "model": 3, "input": "a" }),                 400, "invalid_type", Some("model")),
        (json!({ "model": model, "input": "" }),              400, "invalid_value", Some("input")),
        (json!({ "model": model, "input": [] }),              400, "invalid_value", Some("input")),
        (json!({ "model": model, "input": ["a", ""] }),       400, "invalid_value", Some("input[1]")),
        (json!({ "model": model, "input": ["a", []] }),       400, "invalid_value", Some("input[1]")),
        (json!({ "model": model, "input": [["a"]] }),         400, "invalid_value", Some("input[0]")),
        (json!({ "model": model, "input": ["a", 3] }),        400, "invalid_value", Some("input[1]")),
        (json!({ "model": model, "input": {} }),              400, "invalid_value", Some("input")),
        (json!({ "model": model, "input": 3 }),               400, "invalid_value", Some("input")),
        (json!({ "model": model, "input": [2, 120] }),        400, "invalid_value", Some("input")),
        (json!({ "model": model, "input": [2, -1] }),         400, "invalid_value", Some("input")),
        (json!({ "model": model, "input": [[2], [1.5]] }),    400, "invalid_value", Some("input[1]")),
        (json!({ "model": model, "input": long }),            400, "context_length_exceeded", Some("input")),
        (json!({ "model": model, "input": ["a", vec![5; 65]] }), 400, "context_length_exceeded", Some("input[1]")),
        (json!({ "model": model, "input": many }),            400, "invalid_value", Some("input")),
        (json!({ "model": model, "input": "a", "encoding_format": "hex" }), 400, "invalid_type", Some("encoding_format")),
        (json!({ "model": model, "input": "a", "dimensions": 16 }), 400, "invalid_value", Some("dimensions")),
        (json!({ "model": model, "input": "a", "dimensions": "32" }), 400, "invalid_type", Some("dimensions")),
        (json!({ "model": model, "input": "a", "wings": 2 }), 400, "unknown_parameter", Some("wings")),
    ];
    for (body, status, code, param) in cases {
        check_error(&service.post(PATH, &body), status, code, param);
    }
    // As many as may be, and as long.
    let many = service.post(PATH, &of(&json!(many[1..]))).json();
    assert_eq!(vectors(&many).len(), 2_048);
    assert_eq!(
        service.post(PATH, &of(&json!("x ".repeat(62)))).json()["usage"]["total_tokens"],
        64
    );
    // The model that generates has its own name.
    let completion = json!({ "model": model, "prompt": "a" });
    check_error(
        &service.post("/v1/completions", &completion),
        404,
        "model_not_found",
        Some("model"),
    );
}

#[test]
fn vectors_are_made_while_no_step_happens() {
    let service = Service::encoding();
    service.gate.set(false);
    let completion = json!({ "model": MODEL, "prompt": "Hi", "max_tokens": 2 });
    let waiting = service.open("/v1/completions", &completion);
    service.wait_for("num_requests_waiting", 1.0);
    assert_eq!(service.post(PATH, &of(&json!(["a", "b"]))).status, 200);
    service.gate.set(true);
    assert_eq!(waiting.answer().status, 200);
}

#[test]
fn the_model_is_listed_and_its_plan_has_a_digest() {
    let service = Service::encoding();
    let listed = service.get("/v1/models").json();
    let found = listed["data"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&found["id"], &found["max_model_len"]), (&json!(EMBEDDING_MODEL), &json!(64)));
    let tasks = listed["data"].as_array().unwrap().iter().map(|model| model["task"].clone());
    assert_eq!(tasks.collect::<Vec<_>>(), [json!("generate"), json!("embed")]);
    assert_eq!(service.get(&format!("/v1/models/{EMBEDDING_MODEL}")).json(), found);
    let document = service.get("/openapi.json").json();
    let model = &document["components"]["schemas"]["EmbeddingRequest"]["properties"]["model"];
    assert_eq!(model["enum"], json!([EMBEDDING_MODEL]));
    let headers = [("content-type", "application/json"), ("x-jackfield-digest", "1")];
    let asked = bytes("POST", PATH, &headers, &of(&json!("a")).to_string());
    let answer = Connection::send(service.address, &asked).answer();
    assert_eq!(answer.header("x-jackfield-digest").map(str::len), Some(64));
}

#[test]
fn a_full_queue_is_told_and_what_was_answered_is_counted() {
    let folder = tiny_encoder();
    let gate = Gate::default();
    let encoder = Some(folder.path().to_owned());
    let models = Models { encoder, encoder_gate: Some(gate.clone()), ..Models::default() };
    let service = Service::of(models, Config::at("server"), |_| {});
    let refused = service.post(PATH, &of(&json!("a text")));
    check_error(&refused, 429, "queue_full", None);
    assert_eq!(refused.header("retry-after"), Some("1"));
    gate.set(true);
    let mut answer = refused;
    within("there is room again", || {
        answer = service.post(PATH, &of(&json!("a text")));
        answer.status == 200
    });
    let num_tokens = answer.json()["usage"]["prompt_tokens"].as_f64().unwrap();
    assert_eq!(service.metric("embedding_prompt_tokens_total"), num_tokens);
    assert_eq!(service.metric("embedding_request_seconds_count"), 1.0);
    assert!(service.metric("request_over_limit_total") >= 1.0);
}
