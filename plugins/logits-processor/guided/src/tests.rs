//! Grammars over tokens that are bytes: what may follow, what may not, and what is refused.

use plugin_api::testing::logits_processor::{self, bytes_and_end};
use plugin_api::testing::machine::Machine;
use plugin_api::testing::rows::Rows;

use super::*;

const END: u32 = 256;

fn made(config: &Config) -> Guided {
    let mut guided = Guided::from_config(config).unwrap();
    let machine = Machine::new();
    machine.speak(bytes_and_end());
    guided.open(&machine.host("guided")).unwrap();
    guided
}

fn add(guided: &mut Guided, params: &Config) -> Result<()> {
    guided.batch(&BatchChange::Added { row: RowId(0), params, history: &[65, 66] })
}

/// Tokens that may follow in a row.
fn allowed(guided: &mut Guided, row: u32) -> Vec<u32> {
    let mut rows = Rows::new(&[&[0.0; 260]]);
    rows.ids = vec![RowId(row)];
    guided.apply(&mut LogitsRows::new(&mut rows)).unwrap();
    (0..260).filter(|id| rows.logits[0][*id as usize] == 0.0).collect()
}

/// Whether all of a text is allowed, byte by byte, and the end after it.
fn accepts(guided: &mut Guided, params: &Config, text: &str) -> bool {
    add(guided, params).unwrap();
    let fits = text.bytes().all(|byte| {
        let is_allowed = allowed(guided, 0).contains(&u32::from(byte));
        let token = u32::from(byte);
        is_allowed && guided.batch(&BatchChange::Advanced { row: RowId(0), token }).is_ok()
    });
    fits && allowed(guided, 0).contains(&END)
}

fn texts(list: &[&str]) -> Value {
    Value::List(list.iter().map(|text| Value::from(*text)).collect())
}

#[test]
fn passes_the_contract_suite() {
    let params = Config::new().with("guided_regex", "(?s:.*)");
    logits_processor::suite::<Guided>(&params);
}

#[test]
fn leaves_what_the_grammar_allows() {
    const POINT: &str = r#"{"type":"object","properties":{"x":{"type":"integer"},"y":{"enum":["a",null]}},
        "required":["x"],"additionalProperties":false}"#;
    #[rustfmt::skip]
    let cases: [(&str, Value, &[&str], &[&str]); 6] = [
        // parameter             value                         accepts                                refuses
        ("guided_json",          POINT.into(),                 &[r#"{"x": -3}"#, r#"{"x": 0, "y": null}"#], &["{}", r#"{"x": 1.5}"#, r#"{"x": 1, "z": 2}"#, r#"{"x":1}"#]),
        ("guided_json",          "true".into(),                &["7", r#"[true, "é"]"#],              &["", "nul", "[1,]"]),
        ("guided_json_object",   true.into(),                  &["{}", r#"{"a": [1]}"#],              &["[]", "1"]),
        ("guided_regex",         r"\d{3}-[a-c]+".into(),       &["123-abc"],                          &["12-a", "123-", "123-d", "x123-a"]),
        ("guided_choice",        texts(&["yes", "no", "\"é\n"]), &["yes", "no", "\"é\n"],             &["y", "yesno", ""]),
        ("guided_grammar",       "start: \"(\" start \")\" | \"x\"".into(), &["x", "((x))"],          &["(x", "()", "xx"]),
    ];
    let mut guided = made(&Config::new());
    for (key, value, good, bad) in cases {
        let params = Config::at("request").with(key, value.clone());
        for text in good {
            assert!(accepts(&mut guided, &params, text), "{key} {value}: {text}");
        }
        for text in bad {
            assert!(!accepts(&mut guided, &params, text), "{key} {value}: {text}");
        }
    }
    let mut loose = made(&Config::new().with("whitespace", "any"));
    let params = Config::new().with("guided_json", POINT);
    assert!(accepts(&mut loose, &params, "{ \"x\":1 }"));
}

#[test]
fn the_end_is_allowed_where_the_answer_is_complete_and_alone_where_nothing_follows() {
    let mut guided = made(&Config::new());
    let params = Config::new().with("guided_regex", "ab?");
    add(&mut guided, &params).unwrap();
    let mut then = |token| {
        guided.batch(&BatchChange::Advanced { row: RowId(0), token }).unwrap();
        allowed(&mut guided, 0)
    };
    assert_eq!(then(97), [98, END]);
    assert_eq!(then(98), [END]);
    // A request that goes on past the end gets it again and again.
    assert_eq!(then(END), [END]);
    assert_eq!(then(END), [END]);
}

#[test]
fn goes_back_and_goes_apart() {
    let mut guided = made(&Config::new());
    add(&mut guided, &Config::new().with("guided_regex", "ab(c|d)")).unwrap();
    let row = RowId(0);
    for token in [97, 98] {
        guided.batch(&BatchChange::Advanced { row, token }).unwrap();
    }
    guided.batch(&BatchChange::Forked { parent: row, child: RowId(3) }).unwrap();
    guided.batch(&BatchChange::Advanced { row, token: 99 }).unwrap();
    guided.batch(&BatchChange::Advanced { row, token: END }).unwrap();
    assert_eq!(allowed(&mut guided, 0), [END]);
    assert_eq!(allowed(&mut guided, 3), [99, 100]);
    guided.batch(&BatchChange::RolledBack { row, history: &[65, 66, 97] }).unwrap();
    assert_eq!(allowed(&mut guided, 0), [98]);
    // Back to a history that goes on otherwise, and to one within the prompt.
    guided.batch(&BatchChange::RolledBack { row, history: &[65, 66, 97, 98, 100] }).unwrap();
    assert_eq!(allowed(&mut guided, 0), [END]);
    guided.batch(&BatchChange::RolledBack { row, history: &[65] }).unwrap();
    assert_eq!(allowed(&mut guided, 0), [97]);
    assert_eq!(allowed(&mut guided, 3), [99, 100], "the other went its own way");
}

#[test]
fn a_token_that_the_grammar_rules_out_is_an_error_of_its_row() {
    let mut guided = made(&Config::new());
    add(&mut guided, &Config::new().with("guided_regex", "a+")).unwrap();
    let error = guided.batch(&BatchChange::Advanced { row: RowId(0), token: 98 }).unwrap_err();
    assert!(error.to_string().starts_with("guided: the answer: "), "{error}");
}

#[test]
fn what_cannot_be_followed_is_refused_with_why() {
    #[rustfmt::skip]
    let cases: [(&str, Value, &str); 9] = [
        // parameter       value                                   a part of the message
        ("guided_json",    "{".into(),                             "no JSON"),
        ("guided_json",    "3".into(),                             "neither an object nor a boolean"),
        ("guided_json",    "false".into(),                         "allows nothing"),
        ("guided_json",    r#"{"type":"strin"}"#.into(),           "strin"),
        ("guided_json",    r#"{"uniqueItems":true,"type":"array"}"#.into(), "uniqueItems"),
        ("guided_json",    r##"{"$ref":"#/$defs/none"}"##.into(),  "none"),
        ("guided_regex",   "(a".into(),                            "expected one that can be followed, found "),
        ("guided_choice",  texts(&[]),                             "at least one text"),
        ("guided_grammar", "start: nothing".into(),                "nothing"),
    ];
    let mut guided = made(&Config::new());
    for (key, value, expected) in cases {
        let params = Config::at("request").with(key, value.clone());
        let error = add(&mut guided, &params).unwrap_err();
        let Error::Config { key: place, .. } = &error else { panic!("{error}") };
        assert_eq!(*place, format!("request.{key}"));
        assert!(error.to_string().contains(expected), "{value}: {error}");
    }
    let long = Config::new().with("guided_regex", "a".repeat(2000));
    let error = add(&mut made(&Config::new().with("grammar_kib", 1)), &long).unwrap_err();
    assert_eq!(error.to_string(), "guided_regex: expected at most 1024 bytes, found 2000");
    let two = Config::new().with("guided_regex", "a").with("guided_json", "{}");
    let error = add(&mut guided, &two).unwrap_err().to_string();
    assert!(
        error.starts_with("guided_regex: expected one grammar, which `guided_json` is"),
        "{error}"
    );
}

#[test]
fn without_the_tokens_of_the_model_only_requests_without_a_grammar_are_served() {
    let machine = Machine::new();
    machine.deny("vocabulary");
    let mut guided = Guided::from_config(&Config::new()).unwrap();
    let regex = Config::new().with("guided_regex", "a");
    let error = add(&mut guided, &regex).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    guided.open(&machine.host("guided")).unwrap();
    let error = add(&mut guided, &regex).unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    add(&mut guided, &Config::new()).unwrap();
    assert_eq!(allowed(&mut guided, 0).len(), 260);
}

#[test]
fn one_of_several_ends_is_as_good_as_another() {
    let machine = Machine::new();
    let tokens: [&[u8]; 4] = [b"a", b"</s>", b"<|im_end|>", b"b"];
    machine.speak(Vocabulary::new(tokens, vec![1, 2], vec![1, 2]).unwrap());
    let mut guided = Guided::from_config(&Config::new()).unwrap();
    guided.open(&machine.host("guided")).unwrap();
    // Names of structure are no text, whatever the grammar says.
    add(&mut guided, &Config::new().with("guided_regex", "a(</s>)?")).unwrap();
    assert_eq!(allowed(&mut guided, 0), [0]);
    guided.batch(&BatchChange::Advanced { row: RowId(0), token: 0 }).unwrap();
    assert_eq!(allowed(&mut guided, 0), [1, 2]);
}
