//! Streams: whatever the chunks, they add up to the answer that is not streamed.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::service::{MODEL, Service, completion};

/// Where the text of a choice is.
type TextOf = fn(&Value) -> &Value;

/// Text and reason of every choice of a stream.
fn joined(events: &[Value], text: TextOf) -> Vec<(String, Value)> {
    let mut choices: Vec<(String, Value)> = Vec::new();
    for choice in events.iter().flat_map(|event| event["choices"].as_array().unwrap()) {
        let index = choice["index"].as_u64().unwrap() as usize;
        choices.resize(choices.len().max(index + 1), (String::new(), Value::Null));
        let (whole, reason) = &mut choices[index];
        assert!(reason.is_null(), "nothing comes after the end: {choice}");
        whole.push_str(text(choice).as_str().unwrap_or_default());
        *reason = choice["finish_reason"].clone();
    }
    choices
}

fn whole(answer: &Value, text: TextOf) -> Vec<(String, Value)> {
    let choices = answer["choices"].as_array().unwrap().iter();
    let of = |choice: &Value| {
        (text(choice).as_str().unwrap().to_owned(), choice["finish_reason"].clone())
    };
    choices.map(of).collect()
}

/// Checks that a request gets the same answer in one piece and in many.
fn check(service: &Service, path: &str, request: &Value) {
    let (in_pieces, at_once): (TextOf, TextOf) = if path.contains("chat") {
        (|choice| &choice["delta"]["content"], |choice| &choice["message"]["content"])
    } else {
        (|choice| &choice["text"], |choice| &choice["text"])
    };
    let answer = service.post(path, request);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut request = request.clone();
    request["stream"] = json!(true);
    request["stream_options"] = json!({ "include_usage": true });
    let stream = service.post(path, &request);
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    let mut events = stream.events();
    let last = events.pop().unwrap();
    assert_eq!(last["choices"], json!([]));
    for number in ["prompt_tokens", "completion_tokens", "total_tokens"] {
        assert_eq!(last["usage"][number], answer.json()["usage"][number], "{number}");
    }
    assert!(events.iter().all(|event| event["usage"].is_null()), "only the last has numbers");
    assert_eq!(joined(&events, in_pieces), whole(&answer.json(), at_once));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn deltas_add_up_to_the_answer(
        tokens_per_step in 1_usize..40,
        prompts in prop::collection::vec("[ -~äé日]{1,40}", 1..3),
        stop in prop::collection::vec("[a-zA-Z ]{1,3}", 0..3),
        n in 1_u32..4,
        seed in any::<i64>(),
        max_tokens in 1_u32..60,
    ) {
        let service = Service::with(plugin_api::Config::at("server"), move |setup| {
            setup.options.tokens_per_step_max = tokens_per_step;
        });
        let common = json!({
            "model": MODEL, "n": n, "seed": seed, "stop": stop, "max_tokens": max_tokens, "temperature": 1.3,
        });
        let mut request = common.clone();
        request["prompt"] = json!(prompts);
        check(&service, "/v1/completions", &request);
        request["echo"] = json!(true);
        check(&service, "/v1/completions", &request);
        let mut request = common;
        request["messages"] = json!([{ "role": "user", "content": prompts[0] }]);
        check(&service, "/v1/chat/completions", &request);
    }
}

#[test]
fn answers_are_those_of_their_seeds() {
    let service = Service::new();
    let ask = |n: u32| {
        let mut request = completion("The quick", 24);
        request["n"] = json!(n);
        whole(&service.post("/v1/completions", &request).json(), |choice| &choice["text"])
    };
    let (one, three) = (ask(1), ask(3));
    assert_eq!(three[0], one[0], "the first is the same however many there are");
    assert_ne!(three[1], three[2]);
    assert_eq!(three, ask(3));
}

#[test]
fn several_answers_of_a_search_are_its_best() {
    let service = Service::new();
    let mut request = completion("Once", 12);
    request["n"] = json!(3);
    request["ignore_eos"] = json!(true);
    request["logprobs"] = json!(0);
    request["decoding_strategy"] = json!("beam");
    request["decoding_options"] = json!({ "num_beams": 3, "length_penalty": 0 });
    let answer = service.post("/v1/completions", &request).json();
    let sums = answer["choices"].as_array().unwrap().iter().map(|choice| -> f64 {
        let list = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        assert_eq!(list.len(), 12);
        list.iter().map(|number| number.as_f64().unwrap()).sum()
    });
    let sums: Vec<f64> = sums.collect();
    assert!(sums[0] > sums[1] && sums[1] > sums[2], "{sums:?}");
    request["n"] = json!(1);
    let best = service.post("/v1/completions", &request).json();
    assert_eq!(best["choices"][0]["text"], answer["choices"][0]["text"]);
}

#[test]
fn strategies_answer_whole_and_in_pieces() {
    let service = Service::new();
    for (strategy, options) in [
        ("beam", json!({ "num_beams": 2, "early_stopping": "never" })),
        ("self-consistency", json!({ "num_paths": 3, "answer_pattern": "[a-z]" })),
        ("chain-of-thought", json!({ "max_reasoning_tokens": 8, "show_reasoning": true })),
    ] {
        let mut request = json!({
            "model": MODEL, "max_tokens": 20, "seed": 4, "temperature": 0.8,
            "decoding_strategy": strategy, "decoding_options": options,
        });
        request["prompt"] = json!("What is 3 + 4?");
        check(&service, "/v1/completions", &request);
        request.as_object_mut().unwrap().remove("prompt");
        request["messages"] = json!([{ "role": "user", "content": "What is 3 + 4?" }]);
        check(&service, "/v1/chat/completions", &request);
        let message =
            &service.post("/v1/chat/completions", &request).json()["choices"][0]["message"];
        let reasons =
            message["reasoning_content"].as_str().is_some_and(|text| text.contains("step"));
        assert_eq!(reasons, strategy == "chain-of-thought", "{message}");
    }
}

#[test]
fn probabilities_go_with_the_tokens() {
    let service = Service::new();
    let question = json!([{ "role": "user", "content": "Hi" }]);
    let request = json!({
        "model": MODEL, "messages": question, "max_completion_tokens": 9, "ignore_eos": true,
        "logprobs": true, "temperature": 0,
    });
    let answer = service.post("/v1/chat/completions", &request).json();
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 9);
    assert_eq!(answer["usage"]["completion_tokens"], 9);
    let bytes = content.iter().flat_map(|token| token["bytes"].as_array().unwrap());
    let bytes: Vec<u8> = bytes.map(|byte| byte.as_u64().unwrap() as u8).collect();
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
    assert!(content.iter().all(|token| token["logprob"].as_f64().unwrap() <= 0.0));

    let mut request = completion("Once", 9);
    request["logprobs"] = json!(0);
    let answer = service.post("/v1/completions", &request).json();
    let logprobs = &answer["choices"][0]["logprobs"];
    for field in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[field].as_array().unwrap().len(), 9, "{field}");
    }
    assert_eq!(logprobs["text_offset"][0], 0);
}

#[test]
fn a_prompt_comes_with_the_probabilities_of_its_tokens() {
    let service = Service::new();
    let mut request = completion("Once upon a tïme", 3);
    request["logprobs"] = json!(2);
    request["temperature"] = json!(0);
    let plain = service.post("/v1/completions", &request).json();
    request["echo"] = json!(true);
    let whole = service.post("/v1/completions", &request).json();
    let choice = &whole["choices"][0];
    let (logprobs, text) = (&choice["logprobs"], choice["text"].as_str().unwrap());
    let list = |field: &str| logprobs[field].as_array().unwrap().clone();
    let num_prompt = whole["usage"]["prompt_tokens"].as_u64().unwrap() as usize;
    assert_eq!(list("tokens").len(), num_prompt + 3);
    assert_eq!(
        (&list("token_logprobs")[0], &list("top_logprobs")[0]),
        (&Value::Null, &Value::Null)
    );
    for (i, top) in list("top_logprobs").iter().enumerate().skip(1) {
        let best = top.as_object().unwrap().values().map(|x| x.as_f64().unwrap());
        let best = best.fold(f64::NEG_INFINITY, f64::max);
        let found = list("token_logprobs")[i].as_f64().unwrap();
        assert!(found <= best && best <= 0.0, "{i}: {found} {best}");
    }
    // What comes after the prompt is as without it, further to the right.
    for field in ["tokens", "token_logprobs", "top_logprobs"] {
        let plain = plain["choices"][0]["logprobs"][field].as_array().unwrap().clone();
        assert_eq!(list(field)[num_prompt..], plain, "{field}");
    }
    let offsets: Vec<usize> =
        list("text_offset").iter().map(|x| x.as_u64().unwrap() as usize).collect();
    assert!(offsets.is_sorted() && offsets[0] == 0, "{offsets:?}");
    assert_eq!(offsets[num_prompt], "Once upon a tïme".chars().count());
    assert!(text.starts_with("Once upon a tïme"));

    request["max_tokens"] = json!(0);
    let bare = service.post("/v1/completions", &request).json();
    assert_eq!(bare["choices"][0]["text"], "Once upon a tïme");
    assert_eq!(bare["choices"][0]["finish_reason"], "length");
    assert_eq!(bare["usage"]["completion_tokens"], 0);
    for field in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(bare["choices"][0]["logprobs"][field], json!(list(field)[..num_prompt]));
    }
    for max_tokens in [0, 3] {
        request["max_tokens"] = json!(max_tokens);
        let whole = service.post("/v1/completions", &request).json();
        request["stream"] = json!(true);
        let events = service.post("/v1/completions", &request).events();
        request["stream"] = json!(false);
        let parts = |field: &str| -> Vec<Value> {
            let events =
                events.iter().filter_map(|e| e["choices"][0]["logprobs"][field].as_array());
            events.flatten().cloned().collect()
        };
        for field in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(json!(parts(field)), whole["choices"][0]["logprobs"][field], "{field}");
        }
    }
}
