//! Guided decoding: answers keep to their grammar, whatever the strategy, and nothing that a schema
//! rules out is accepted.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;

use jackfield_engine::{Engine, Output, Request};
use jackfield_tests::{Setup, golden, real_model, tiny_model};
use plugin_api::kinds::decoding_strategy::FinishReason;
use plugin_api::kinds::logits_processor::{BatchChange, LogitsRows, RowId};
use plugin_api::testing::logits_processor::bytes_and_end;
use plugin_api::testing::machine::Machine;
use plugin_api::testing::rows::Rows;
use plugin_api::{Config, LogitsProcessor};
use serde_json::{Map, Value, json};

/// The plugin beside a model whose tokens are bytes; 256 ends an answer.
fn matcher() -> Box<dyn LogitsProcessor> {
    let setup = Setup::new("null");
    let mut guided = setup.registry.make::<dyn LogitsProcessor>("guided", &Config::new()).unwrap();
    let machine = Machine::new();
    machine.speak(bytes_and_end());
    guided.open(&machine.host("guided")).unwrap();
    guided
}

/// Whether an instance is allowed, token by token, to its end.
fn accepts(guided: &mut dyn LogitsProcessor, params: &Config, instance: &str) -> bool {
    let row = RowId(0);
    guided.batch(&BatchChange::Added { row, params, history: &[1] }).unwrap();
    let tokens = instance.bytes().map(u32::from).chain([256]);
    tokens.into_iter().all(|token| {
        let mut rows = Rows::new(&[&[0.0; 257]]);
        guided.apply(&mut LogitsRows::new(&mut rows)).unwrap();
        rows.logits[0][token as usize] == 0.0
            && guided.batch(&BatchChange::Advanced { row, token }).is_ok()
    })
}

/// An instance as the plugin writes it: one space after commas and colons, and members in the order in which
/// the schema has them.
fn written(value: &Value, order: &[String]) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| written(item, order)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let mut members: Vec<(&String, &Value)> = map.iter().collect();
            let place = |key: &String| order.iter().position(|known| known == key);
            members.sort_by_key(|(key, _)| place(key).unwrap_or(usize::MAX));
            let member = |(key, value): (&String, &Value)| {
                format!("{}: {}", Value::from(key.as_str()), written(value, order))
            };
            let members: Vec<String> = members.into_iter().map(member).collect();
            format!("{{{}}}", members.join(", "))
        }
        other => other.to_string(),
    }
}

/// Names of properties in the order in which a schema has them.
fn properties(schema: &Value, order: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Object(own)) = map.get("properties") {
                order.extend(own.keys().cloned());
            }
            map.values().for_each(|value| properties(value, order));
        }
        Value::Array(items) => items.iter().for_each(|item| properties(item, order)),
        _ => {}
    }
}

#[test]
fn never_accepts_what_a_schema_rules_out() {
    let suite: Value =
        serde_json::from_slice(&fs::read(golden("json_schema.json")).unwrap()).unwrap();
    let mut guided = matcher();
    let (mut wrong, mut refused, mut right, mut missed) = (Vec::new(), 0, 0, 0);
    for (file, groups) in suite["files"].as_object().unwrap() {
        for group in groups.as_array().unwrap() {
            let schema = &group["schema"];
            let params = Config::at("request").with("guided_json", schema.to_string());
            let added = BatchChange::Added { row: RowId(0), params: &params, history: &[1] };
            let tests = group["tests"].as_array().unwrap();
            if guided.batch(&added).is_err() {
                refused += tests.len();
                continue;
            }
            let mut order = Vec::new();
            properties(schema, &mut order);
            for test in tests {
                let is_valid = test[2] == true;
                match (accepts(&mut *guided, &params, &written(&test[1], &order)), is_valid) {
                    (true, false) => {
                        wrong.push(format!("{file}: {}: {}", group["description"], test[0]));
                    }
                    (false, true) => missed += 1,
                    _ => right += 1,
                }
            }
        }
    }
    eprintln!("right {right}, valid but not written so {missed}, schemas refused {refused}");
    assert!(wrong.is_empty(), "accepted: {wrong:#?}");
    // Most of it is followed: refusing everything would be right, too.
    assert!(right >= RIGHT_MIN, "{right}");
}

/// Tests of the suite that are judged as it says.
const RIGHT_MIN: usize = 400;

/// What an answer was, and why it ended.
fn answers(engine: &mut Engine, requests: Vec<Request>) -> Vec<(String, FinishReason)> {
    let ids: Vec<_> = requests.into_iter().map(|r| engine.submit(r).unwrap()).collect();
    let mut found = BTreeMap::new();
    let result = engine.run_to_end(&mut |output| {
        if let Output::Finished { request, reason, answer, error, .. } = output {
            assert_eq!(error, None);
            found.insert(request, (answer.to_owned(), reason));
        }
    });
    result.unwrap();
    ids.iter().map(|id| found.remove(id).unwrap()).collect()
}

/// A schema whose every instance is short, and whether a text is one.
fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "pattern": "^[A-Z][a-z]{1,11}$" },
            "age": { "type": "integer", "minimum": 0, "maximum": 120 },
            "tags": { "type": "array", "items": { "enum": ["tall", "old", "loud"] }, "maxItems": 3 },
            "home": { "anyOf": [{ "type": "null" }, { "const": "here" }] },
        },
        "required": ["name", "age", "tags", "home"],
        "additionalProperties": false,
    })
}

fn is_person(text: &str) -> bool {
    let Ok(Value::Object(map)) = serde_json::from_str::<Value>(text) else { return false };
    let member = |key: &str| map.get(key).cloned().unwrap_or_default();
    let name = member("name");
    let mut letters = name.as_str().unwrap_or_default().chars();
    let first = letters.next().is_some_and(|letter| letter.is_ascii_uppercase());
    let rest = letters.as_str();
    let is_name = first
        && (1..=11).contains(&rest.len())
        && rest.chars().all(|letter| letter.is_ascii_lowercase());
    let is_age = member("age").as_u64().is_some_and(|age| age <= 120);
    let tags = member("tags");
    let is_tag = |tag: &Value| ["tall", "old", "loud"].iter().any(|known| tag == known);
    let are_tags = tags.as_array().is_some_and(|tags| tags.len() <= 3 && tags.iter().all(is_tag));
    let home = map.get("home");
    let is_home = home.is_some_and(|home| home.is_null() || home == "here");
    map.len() == 4 && is_name && is_age && are_tags && is_home
}

fn requests(strategy: &str, prompts: impl Iterator<Item = String>) -> Vec<Request> {
    let schema = person().to_string();
    let request = |(seed, prompt): (i64, String)| {
        Request::new(&*prompt)
            .strategy(strategy)
            .with("guided_json", schema.as_str())
            .with("max_tokens", 200)
            .with("max_reasoning_tokens", 12)
            .with("temperature", [0.0, 0.7, 1.5][seed as usize % 3])
            .with("top_k", [0, 4][seed as usize % 2])
            .with("repetition_penalty", [1.0, 1.3][seed as usize / 2 % 2])
            .with("seed", seed)
    };
    (0..).zip(prompts).map(request).collect()
}

#[test]
fn answers_of_every_strategy_keep_to_the_schema() {
    for model in ["tiny", "tiny_qwen3"] {
        let folder = tiny_model(model);
        let setup = Setup::new("cpu")
            .set("paged", "dtype", "f32")
            .set("prompt-lookup", "ngram_min", 1)
            .set("prompt-lookup", "num_draft_tokens", 6);
        let mut engine = setup.load(folder.path()).unwrap();
        let prompts =
            || (0..12).map(|i| format!("{{\"name\": \"A\", \"age\": {i}, \"tags\": [\"old\"]"));
        let expected = answers(&mut engine, requests("sample", prompts()));
        for (text, reason) in &expected {
            assert!(is_person(text), "{text}");
            assert_eq!(*reason, FinishReason::Stop);
        }
        assert_eq!(answers(&mut engine, requests("prompt-lookup", prompts())), expected, "{model}");
        let load = engine.gauge().read();
        assert!(
            load.accepted_tokens > 0,
            "{model}: drafts come true, masked as they are: {load:?}"
        );
        for strategy in ["greedy", "beam", "self-consistency", "chain-of-thought"] {
            for (text, reason) in answers(&mut engine, requests(strategy, prompts())) {
                assert!(is_person(&text) && reason == FinishReason::Stop, "{strategy}: {text}");
            }
        }
        assert_eq!(engine.cache_usage().used, 0);
    }
}

#[test]
fn a_bad_grammar_is_refused_and_leaves_nothing_behind() {
    let folder = tiny_model("tiny");
    let mut engine = Setup::new("cpu").load(folder.path()).unwrap();
    let bad = Request::new("Hi").with("guided_json", r#"{"type": "person"}"#);
    let error = engine.submit(bad).unwrap_err().to_string();
    assert!(error.contains("guided_json: expected one that can be followed"), "{error}");
    assert_eq!(engine.num_running(), 0);
    let good =
        Request::new("Hi").with("guided_choice", plugin_api::Value::List(vec!["yes".into()]));
    assert_eq!(answers(&mut engine, vec![good]), [("yes".to_owned(), FinishReason::Stop)]);
}

#[test]
fn a_real_model_answers_with_what_parses_and_is_valid() {
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(model) = real_model("SmolLM2-135M-Instruct", file) else { return };
    let mut engine = Setup::new("cpu").load(&model).unwrap();
    let things = ["Ada Lovelace", "my neighbour's dog", "an old king", "nobody at all"];
    let prompts = || (0..24).map(|i| format!("Describe {} as JSON.\n", things[i % things.len()]));
    let mut wrong = Map::new();
    for strategy in ["sample", "prompt-lookup", "beam", "self-consistency", "chain-of-thought"] {
        for (text, reason) in answers(&mut engine, requests(strategy, prompts())) {
            if !is_person(&text) || reason != FinishReason::Stop {
                wrong.insert(text, format!("{reason:?}").into());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
