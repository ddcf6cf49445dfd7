//! Over tokens that are bytes and a model that counts.

use plugin_api::testing::decoding_strategy::{Answer, answer, attach, suite};

use super::*;

fn made(config: &Config) -> ChainOfThought {
    let mut strategy = ChainOfThought::from_config(config).unwrap();
    attach(&mut strategy);
    strategy
}

fn table() -> Config {
    Config::new().with("trigger", "T0").with("answer_trigger", "Aa")
}

/// Tokens of a text.
fn ids(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn run(params: &Config) -> Answer {
    answer(&mut made(&table()), &ids("Q?"), params)
}

#[test]
fn passes_the_contract_suite() {
    let plain = Config::new().with("max_reasoning_tokens", 0).with("answer_trigger", "");
    suite::<ChainOfThought>(&plain);
}

#[test]
fn reasons_aside_and_tells_the_answer() {
    let params = Config::new().with("max_reasoning_tokens", 3).with("max_tokens", 2);
    let found = run(&params);
    // The model counts from the last token: behind "0" comes "1", behind "a" comes "b".
    assert_eq!(found.evaluated, ids("Q? T0123\nAab"));
    assert_eq!((found.tokens, found.reason), (ids("bc"), Some(FinishReason::Length)));
}

#[test]
fn reasoning_ends_where_the_model_ends_it() {
    let ends = vec![Value::Int(i64::from(b'3')), Value::Int(i64::from(b'd'))];
    let params = Config::new().with("eos_token_ids", ends);
    let found = run(&params);
    assert_eq!(found.evaluated, ids("Q? T012\nAabc"), "the end is not evaluated");
    assert_eq!((found.tokens, found.reason), (ids("bc"), Some(FinishReason::Stop)));
    let found = run(&params.with("show_reasoning", true));
    assert_eq!(found.tokens, ids("<think>\n T012\n</think>\n\nbc"));
}

#[test]
fn no_space_stands_behind_a_space() {
    let params = Config::new().with("max_reasoning_tokens", 1).with("max_tokens", 1);
    for (prompt, evaluated) in [("Q", "Q T01\nAa"), ("Q\n", "Q\nT01\nAa"), ("Q ", "Q T01\nAa")] {
        let found = answer(&mut made(&table()), &ids(prompt), &params);
        assert_eq!(found.evaluated, ids(evaluated));
    }
    let structure = answer(&mut made(&table()), &[256], &params);
    assert_eq!(structure.evaluated[1..], ids("T01\nAa"));
}

#[test]
fn reasoning_leaves_room_for_the_answer() {
    // Of 40 tokens 2 are the prompt and 6 are words; half of the rest is for the answer.
    let params = |context: i64| Config::new().with("context_tokens", context);
    let found = run(&params(40).with("max_tokens", 100));
    assert_eq!(found.evaluated.iter().filter(|t| **t != 10).count(), 2 + 3 + 16 + 2 + 99);
    let found = run(&params(40).with("max_tokens", 4).with("max_reasoning_tokens", 100));
    assert_eq!(found.evaluated.len(), 2 + 6 + 28 + 3);
    let found = run(&params(10).with("max_tokens", 1));
    assert_eq!(found.evaluated.len(), 2 + 6 + 1);
    let params = params(9);
    let request = RequestView { seq: SeqId(0), prompt: &ids("Q?"), params: &params };
    let error = made(&table()).open(GroupId(0), &request).unwrap_err().to_string();
    assert!(error.contains("expected a prompt of at most 1 tokens, found 2"), "{error}");
}

#[test]
fn nothing_is_answered_without_the_tokens_of_the_model() {
    let mut strategy = ChainOfThought::from_config(&Config::new()).unwrap();
    let (seq, prompt, params) = (SeqId(0), &[1][..], &Config::new());
    let error = strategy.open(GroupId(0), &RequestView { seq, prompt, params }).unwrap_err();
    assert!(error.to_string().contains("tokens of the model"), "{error}");
}
