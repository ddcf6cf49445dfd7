//! What is recalled, kept and let go.

use super::*;
use plugin_api::testing::machine::Machine;
use plugin_api::testing::memory::{suite, turn};

fn memory(config: &Config) -> BasicMemory {
    BasicMemory::from_config(config).unwrap()
}

fn told(memory: &mut BasicMemory, host: &Host, said: &[&str]) {
    for said in said {
        assert!(memory.remember(&turn("s", said), "I see.", host).unwrap().is_empty());
    }
}

fn asked(memory: &mut BasicMemory, host: &Host, question: &str) -> Vec<String> {
    let passages = memory.recall(&turn("s", question), host).unwrap();
    passages.into_iter().map(|passage| passage.text).collect()
}

#[test]
fn passes_the_contract_suite() {
    suite::<BasicMemory>(&Config::new());
}

#[test]
fn importance_follows_the_table() {
    #[rustfmt::skip]
    let cases = [
        ("Remember: water the plants", 0.9), ("记住明天开会", 0.9),
        ("I'm from Turin",             0.8), ("我叫小明",     0.8),
        ("It weighs 12 grams",         0.7),
        ("Turin is in Italy",          0.6), ("东京是首都",   0.6),
        ("Well done",                  0.4),
    ];
    for (sentence, expected) in cases {
        assert!((said::importance(sentence) - expected).abs() < 1e-9, "{sentence}");
    }
}

#[test]
fn sentences_end_where_people_end_them() {
    let text = "Version 1.5 is out. Really?\n我叫小明。我喜欢茶！ok";
    let found: Vec<&str> = said::sentences(text).collect();
    assert_eq!(found, ["Version 1.5 is out.", "Really?", "我叫小明。", "我喜欢茶！", "ok"]);
    assert_eq!(said::sentences(" ...\n。").count(), 0);
    let long = "é".repeat(1500);
    assert!(said::sentences(&long).all(|part| part.chars().count() <= 600));
}

#[test]
fn recalls_what_the_question_is_about_in_both_languages() {
    let (machine, mut memory) = (Machine::new(), memory(&Config::new()));
    let host = machine.host("basic-memory");
    told(
        &mut memory,
        &host,
        &["My dog is called Rex. Is that fine?", "我住在杭州。", "My car is red."],
    );
    assert_eq!(asked(&mut memory, &host, "What is my dog called?")[0], "My dog is called Rex.");
    assert_eq!(asked(&mut memory, &host, "我住在哪里？"), ["我住在杭州。"]);
    assert!(asked(&mut memory, &host, "weather").is_empty(), "nothing is said of that");
    assert!(asked(&mut memory, &host, "fine").is_empty(), "questions are not kept");
}

#[test]
fn what_was_said_last_counts_more_and_repeats_are_kept_once() {
    let (machine, mut memory) = (Machine::new(), memory(&Config::new().with("half_life", 2)));
    let host = machine.host("basic-memory");
    told(
        &mut memory,
        &host,
        &["My code is 11.", "My code is 22.", "my CODE is 22", "Hello there."],
    );
    assert_eq!(asked(&mut memory, &host, "code"), ["my CODE is 22", "My code is 11."]);
}

#[test]
fn what_is_worth_least_goes_first() {
    let (machine, mut memory) = (Machine::new(), memory(&Config::new().with("items", 2)));
    let host = machine.host("basic-memory");
    told(
        &mut memory,
        &host,
        &["Remember the key is under the mat.", "Paris is big.", "Rome is old."],
    );
    let found = asked(&mut memory, &host, "is");
    assert_eq!(found.len(), 2);
    assert!(found[0].starts_with("Remember") && found[1].starts_with("Rome"), "{found:?}");
}

#[test]
fn damage_and_other_versions_are_errors_that_name_the_row() {
    let (machine, mut memory) = (Machine::new(), memory(&Config::new()));
    let host = machine.host("basic-memory");
    told(&mut memory, &host, &["My code is 11."]);
    let row = host.services().store_rows("s", "item/").unwrap().remove(0);
    let text = String::from_utf8(row.value.clone()).unwrap();
    #[rustfmt::skip]
    let cases = [
        (text.replace("11", "99"),             "the text of its key"),
        (text.replace("\"v\":1", "\"v\":2"),   "expected version 1, found Some(2)"),
        (text[..text.len() / 2].to_owned(),    "expected JSON"),
    ];
    for (value, expected) in cases {
        let put = Change::Put(plugin_api::host::Row { key: row.key.clone(), value: value.into() });
        host.services().store_change("s", &[put]).unwrap();
        let error = memory.recall(&turn("s", "code"), &host).unwrap_err().to_string();
        assert!(error.contains(&row.key) && error.contains(expected), "{error}");
    }
}
