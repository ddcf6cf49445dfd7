//! What a wrong request is answered with: a status, a code and the field, in the one schema of errors.

use plugin_api::{Config, Value as Param};
use serde_json::{Value, json};

use crate::client::{Answer, Connection, bytes};
use crate::service::{MODEL, Service};

/// Checks that an answer is an error as clients expect them.
pub(crate) fn check_error(answer: &Answer, status: u16, code: &str, param: Option<&str>) {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("x-request-id").is_some());
    let body = answer.json();
    let error = body["error"].as_object().unwrap();
    let keys: Vec<&str> = error.keys().map(String::as_str).collect();
    assert_eq!(keys.len(), 4, "{keys:?}");
    assert!(error["message"].as_str().is_some_and(|text| !text.is_empty() && text.len() < 1000));
    assert!(error["type"].is_string());
    assert_eq!(error["code"], json!(code), "{body}");
    assert_eq!(error["param"], json!(param), "{body}");
}

/// Method, path, headers, body, status, code.
type RawCase<'a> =
    (&'static str, &'static str, &'a [(&'static str, &'static str)], &'a str, u16, &'static str);

const CHAT: &str = "/v1/chat/completions";
const COMPLETION: &str = "/v1/completions";

#[test]
fn wrong_fields_are_named() {
    let service = Service::new();
    let many = vec!["x"; 100_000];
    let huge = "word ".repeat(100_000);
    let question = json!([{ "role": "user", "content": "Hi" }]);
    #[rustfmt::skip]
    let cases: Vec<(&str, Value, u16, &str, Option<&str>)> = vec![
        (CHAT, json!({ "messages": question }),                     400, "missing_required_parameter", Some("model")),
        (CHAT, json!({ "model": MODEL }),                           400, "missing_required_parameter", Some("messages")),
        (CHAT, json!({ "model": MODEL, "messages": null }),         400, "missing_required_parameter", Some("messages")),
        (CHAT, json!({ "model": MODEL, "messages": [] }),           400, "invalid_value", Some("messages")),
        (CHAT, json!({ "model": MODEL, "messages": "Hi" }),         400, "invalid_type", Some("messages")),
        (CHAT, json!({ "model": MODEL, "messages": [{ "role": "user" }] }), 400, "missing_required_parameter", Some("messages[0].content")),
        (CHAT, json!({ "model": MODEL, "messages": [{ "role": "robot", "content": "" }] }), 400, "invalid_type", Some("messages[0].role")),
        (CHAT, json!({ "model": MODEL, "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }), 400, "unsupported_parameter", Some("messages[0].content[0].type")),
        (CHAT, json!({ "model": "gpt-5", "messages": question }),   404, "model_not_found", Some("model")),
        (CHAT, json!({ "model": 3, "messages": question }),         400, "invalid_type", Some("model")),
        (CHAT, json!({ "model": MODEL, "messages": question, "tools": {} }), 400, "invalid_value", Some("tools")),
        (CHAT, json!({ "model": MODEL, "messages": question, "wings": 2 }), 400, "unknown_parameter", Some("wings")),
        (CHAT, json!({ "model": MODEL, "messages": question, "top_logprobs": 2 }), 400, "invalid_value", Some("top_logprobs")),
        (CHAT, json!({ "model": MODEL, "messages": question, "logprobs": true, "top_logprobs": 21 }), 400, "invalid_value", Some("top_logprobs")),
        (CHAT, json!({ "model": MODEL, "messages": question, "response_format": { "type": "yaml" } }), 400, "invalid_value", Some("response_format.type")),
        (CHAT, json!({ "model": MODEL, "messages": question, "max_tokens": 3, "max_completion_tokens": 4 }), 400, "invalid_value", Some("max_completion_tokens")),
        (CHAT, json!({ "model": MODEL, "messages": question, "stream_options": {} }), 400, "invalid_value", Some("stream_options")),
        (CHAT, json!({ "model": MODEL, "messages": question, "stream": true, "stream_options": { "include_usage": 1 } }), 400, "invalid_type", Some("stream_options.include_usage")),
        (COMPLETION, json!({ "model": MODEL, "prompt": huge }),     400, "context_length_exceeded", Some("prompt")),
        (COMPLETION, json!({ "model": MODEL, "prompt": vec![7; 256] }), 400, "context_length_exceeded", Some("prompt")),
        (COMPLETION, json!({ "model": MODEL, "prompt": [] }),       400, "invalid_value", Some("prompt")),
        (COMPLETION, json!({ "model": MODEL, "prompt": {} }),       400, "invalid_value", Some("prompt")),
        (COMPLETION, json!({ "model": MODEL, "prompt": [1, -1] }),  400, "invalid_value", Some("prompt")),
        (COMPLETION, json!({ "model": MODEL, "prompt": [100_000] }), 400, "invalid_value", Some("prompt")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "stop": many }), 400, "invalid_value", Some("stop")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "stop": "" }), 400, "invalid_value", Some("stop")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "stop": 3 }), 400, "invalid_value", Some("stop")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "temperature": 2.1 }), 400, "invalid_value", Some("temperature")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "temperature": "hot" }), 400, "invalid_type", Some("temperature")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "top_p": -0.1 }), 400, "invalid_value", Some("top_p")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "n": 0 }), 400, "invalid_value", Some("n")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "n": 17 }), 400, "invalid_value", Some("n")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "max_tokens": 0 }), 400, "invalid_value", Some("max_tokens")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "logit_bias": { "x": 1 } }), 400, "invalid_value", Some("logit_bias")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "logit_bias": { "1": 101 } }), 400, "invalid_value", Some("logit_bias")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "presence_penalty": 2.1 }), 400, "invalid_value", Some("presence_penalty")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "suffix": "z" }), 400, "unsupported_parameter", Some("suffix")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "decoding_strategy": "none" }), 400, "invalid_value", Some("decoding_strategy")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "decoding_strategy": "beam", "decoding_options": { "num_beems": 2 } }), 400, "invalid_value", Some("num_beems")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "decoding_strategy": "beam", "decoding_options": { "num_beams": 33 } }), 400, "invalid_value", Some("num_beams")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "decoding_options": { "num_beams": [] } }), 400, "invalid_value", Some("decoding_options.num_beams")),
        (COMPLETION, json!({ "model": MODEL, "prompt": "a", "n": 3, "decoding_strategy": "beam", "decoding_options": { "num_beams": 2 } }), 400, "invalid_value", Some("choice")),
        ("/tokenize", json!({}),                                    400, "missing_required_parameter", Some("prompt")),
        ("/detokenize", json!({ "tokens": [512] }),                 400, "invalid_value", Some("tokens")),
        ("/v1/embeddings", json!({ "model": MODEL, "input": "a" }), 501, "unsupported", None),
    ];
    for (path, body, status, code, param) in cases {
        check_error(&service.post(path, &body), status, code, param);
    }
}

/// What is asked of a plugin that is not there is not ignored.
#[test]
fn parameters_without_a_reader_are_refused() {
    let service = Service::with(Config::at("server"), |setup| {
        setup.wiring.choose("logits-processor", "temperature");
    });
    for (param, value) in
        [("presence_penalty", json!(1)), ("top_k", json!(3)), ("logit_bias", json!({ "1": 5 }))]
    {
        let body = json!({ "model": MODEL, "prompt": "a", param: value });
        check_error(&service.post(COMPLETION, &body), 400, "unsupported_parameter", Some(param));
    }
    let neutral =
        json!({ "model": MODEL, "prompt": "a", "presence_penalty": 0, "temperature": 0.5 });
    assert_eq!(service.post(COMPLETION, &neutral).status, 200);
}

#[test]
fn what_is_no_request_is_told_so() {
    let service = Service::with(Config::at("server").with("body_kib", 1), |_| {});
    let json = &[("content-type", "application/json")];
    let large = format!("\"{}\"", "x".repeat(2000));
    #[rustfmt::skip]
    let cases: [RawCase<'_>; 9] = [
        ("POST", CHAT,          json,                          "{",     400, "invalid_json"),
        ("POST", CHAT,          json,                          "[]",    400, "invalid_type"),
        ("POST", CHAT,          json,                          "",      400, "invalid_json"),
        ("POST", CHAT,          &[("content-type", "text/plain")], "{}", 415, "unsupported_media_type"),
        ("POST", CHAT,          &[],                           "{}",    415, "unsupported_media_type"),
        ("POST", CHAT,          json,                          &large,  413, "request_too_large"),
        ("GET",  CHAT,          &[],                           "",      405, "method_not_allowed"),
        ("GET",  "/v2/models",  &[],                           "",      404, "unknown_url"),
        ("GET",  "/v1/models/x", &[],                          "",      404, "model_not_found"),
    ];
    for (method, path, headers, body, status, code) in cases {
        let answer = Connection::send(service.address, &bytes(method, path, headers, body));
        let param = path.ends_with("/x").then_some("model");
        check_error(&answer.answer(), status, code, param);
    }
    let deep = "[".repeat(1000);
    let answer = Connection::send(service.address, &bytes("POST", CHAT, json, &deep)).answer();
    check_error(&answer, 400, "invalid_json", None);
}

#[test]
fn only_those_with_a_key_are_answered() {
    let table = Config::at("server").with("api_keys", vec![Param::from("one"), Param::from("two")]);
    let service = Service::with(table, |_| {});
    let get = |path: &str, headers: &[(&str, &str)]| {
        Connection::send(service.address, &bytes("GET", path, headers, "")).answer()
    };
    for headers in [vec![], vec![("authorization", "Bearer three")], vec![("x-api-key", "")]] {
        let answer = get("/v1/models", &headers);
        check_error(&answer, 401, "invalid_api_key", None);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    for headers in [("authorization", "Bearer two"), ("x-api-key", "one")] {
        assert_eq!(get("/v1/models", &[headers]).status, 200);
    }
    for (path, status) in
        [("/health", 200), ("/openapi.json", 200), ("/docs", 200), ("/metrics", 401)]
    {
        assert_eq!(get(path, &[]).status, status, "{path}");
    }
}

#[test]
fn other_peoples_web_pages_are_not_answered() {
    let service = Service::new();
    let of = |host: &str| {
        let request = format!("GET /v1/models HTTP/1.1\r\nhost: {host}\r\n\r\n");
        Connection::send(service.address, request.as_bytes()).answer()
    };
    assert_eq!(of("localhost:8000").status, 200);
    check_error(&of("evil.example"), 403, "invalid_host", None);
}

#[test]
fn what_is_asked_about_the_server_is_answered() {
    let service = Service::new();
    let models = service.get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], MODEL);
    assert_eq!(models["data"][0]["max_model_len"], 256);
    assert_eq!(service.get("/v1/models/tiny").json()["object"], "model");
    assert_eq!(service.get("/ready").json(), json!({ "status": "ok" }));
    assert_eq!(service.get("/version").json()["plugin_api"], "0.0");
    let document = service.get("/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    let given = [("x-request-id", "mine-1")];
    let answer = Connection::send(service.address, &bytes("GET", "/version", &given, "")).answer();
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    let page = service.get("/docs").body;
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing from elsewhere");
    let tokens =
        service.post("/tokenize", &json!({ "prompt": "a b", "add_special_tokens": false }));
    let tokens = tokens.json()["tokens"].clone();
    let text = service.post("/detokenize", &json!({ "tokens": tokens })).json();
    assert_eq!(text["prompt"], "a b");
}
