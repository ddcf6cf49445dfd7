//! Directives, versions, the card, contradictions and damage.

use super::*;
use plugin_api::host::{Change, Row};
use plugin_api::testing::machine::Machine;
use plugin_api::testing::memory::{suite, turn};

fn memory() -> HierarchicalMemory {
    HierarchicalMemory::from_config(&Config::new()).unwrap()
}

/// A memory with what it has been told, each in a turn of its own, and what it noted of it.
fn told(said: &[&str]) -> (HierarchicalMemory, Host, Vec<String>) {
    let (mut memory, host) = (memory(), Machine::new().host("hierarchical-memory"));
    let notes =
        said.iter().flat_map(|said| memory.remember(&turn("s", said), "Noted.", &host).unwrap());
    let notes = notes.collect();
    (memory, host, notes)
}

fn asked(memory: &mut HierarchicalMemory, host: &Host, question: &str) -> Vec<(String, String)> {
    let passages = memory.recall(&turn("s", question), host).unwrap();
    passages.into_iter().map(|it| (it.source, it.text)).collect()
}

fn seal(tier: Tier, key: Option<&str>, version: Option<u64>, body: &str, at: usize) -> Directive {
    Directive::Seal { tier, key: key.map(str::to_owned), version, body: body.to_owned(), at }
}

#[test]
fn passes_the_contract_suite() {
    suite::<HierarchicalMemory>(&Config::new());
}

#[test]
fn directives_are_read_as_the_grammar_has_them() {
    use Tier::{Narrative, Structured, Verbatim};
    #[rustfmt::skip]
    let cases: Vec<(&str, Vec<Directive>, &str)> = vec![
        ("【封存·字段】PARAM:config:v1:{\"alpha\":0.5,\"b\":1}",
            vec![seal(Structured, Some("PARAM:config"), Some(1), "{\"alpha\":0.5,\"b\":1}", 0)], ""),
        ("【封存·原文】比率是3:1的混合", vec![seal(Verbatim, None, None, "比率是3:1的混合", 0)], ""),
        ("【封存·原文】DEF:x:v1: 见 https://a.b/c?d=e:f",
            vec![seal(Verbatim, Some("DEF:x"), Some(1), "见 https://a.b/c?d=e:f", 0)], ""),
        ("【封存·原文】a \\【封存·原文】 b【/封存】 c",
            vec![seal(Verbatim, None, None, "a 【封存·原文】 b", 0)], " c"),
        ("x 【封存·原文】 one\r\n【封存·摘要】two ←DEF:x\n[[SEAL:B]]k=1[[/SEAL]]",
            vec![seal(Verbatim, None, None, "one", 2), seal(Narrative, None, None, "two ←DEF:x", 28),
                 seal(Structured, None, None, "k=1", 61)], "x "),
        ("```\n【封存·原文】no\n【锚点】no\n```\n【目标】 go\n",
            vec![Directive::Control { control: Control::Goal, text: "go".to_owned() }], "```\n【封存·原文】no\n【锚点】no\n```\n"),
        ("【封存·原文】one【封存·原文】still one", vec![seal(Verbatim, None, None, "one【封存·原文】still one", 0)], ""),
        ("【封存·原文】  two spaces", vec![seal(Verbatim, None, None, " two spaces", 0)], ""),
        ("【封存·原文】NOPE:x: y", vec![seal(Verbatim, None, None, "NOPE:x: y", 0)], ""),
    ];
    for (text, expected, plain) in cases {
        assert_eq!(scan(text), (expected, plain.to_owned()), "{text}");
    }
}

#[test]
fn fields_are_read_in_three_forms_and_kept_in_one() {
    let one = "{\"lr\":0.1,\"name\":\"x\",\"on\":true}";
    #[rustfmt::skip]
    let cases = [
        "{\"on\": true, \"name\": \"x\", \"lr\": 0.1}",
        "[[\"name\", \"x\"], [\"lr\", 0.1], [\"on\", true]]",
        "lr=0.1\nname: x\n on ： true\n",
    ];
    for text in cases {
        assert_eq!(fields::canonical(&fields::read(text).unwrap()), one, "{text}");
    }
    for text in ["{\"a\":", "[1]", "no field", "", "a=1\na=2", "[[\"a\", 1], [\"a\", 2]]"] {
        assert!(fields::read(text).is_err(), "{text}");
    }
}

#[test]
fn originals_come_back_byte_by_byte_and_are_cited() {
    let original = "YaRN 扩展上下文：s = 4,\tβ = (32, 1).  ";
    let (mut memory, host, notes) =
        told(&[&format!("【封存·原文】DEF:YaRN:v1: {original}【/封存】")]);
    assert_eq!(notes, [""; 0]);
    let found = asked(&mut memory, &host, "集成YaRN到模型");
    let short: String = record::sha256(original).chars().take(8).collect();
    let expected = (format!("DEF:YaRN@v1#{short}"), format!("DEF:YaRN: {original}"));
    assert!(found.contains(&expected), "{found:?}");
    assert_eq!(found[0], ("card: index".to_owned(), "Kept: YaRN".to_owned()));
    // FIPS 180-2, appendix B.1.
    assert!(record::sha256("abc").starts_with("ba7816bf8f01cfea414140de5dae2223"));
}

#[test]
fn versions_follow_each_other_and_old_ones_are_conflicts() {
    let (mut memory, host, notes) = told(&[
        "【封存·原文】PARAM:k: k is 1",
        "【封存·原文】PARAM:k:v1: k is 1",
        "【封存·原文】PARAM:k:v2: k is 2",
        "【封存·原文】PARAM:k:v1: k is 3",
        "【封存·原文】PARAM:k:v9: k is 4",
    ]);
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].ends_with("PARAM:k: expected version 3, found version 1"), "{notes:?}");
    let texts = |memory: &mut HierarchicalMemory, question: &str| {
        let found = asked(memory, &host, question).into_iter().map(|(_, text)| text);
        found.filter(|text| text.starts_with("PARAM")).collect::<Vec<_>>()
    };
    assert_eq!(texts(&mut memory, "What is k?"), ["PARAM:k: k is 2"]);
    assert_eq!(texts(&mut memory, "【回溯】PARAM:k"), ["PARAM:k: k is 1", "PARAM:k: k is 2"]);
    memory.remember(&turn("s", "【回溯】PARAM:k:v1"), "", &host).unwrap();
    assert_eq!(texts(&mut memory, "What is k?"), ["PARAM:k: k is 1"]);
    assert_eq!(
        host.services().store_rows("s", "entry/PARAM:k/").unwrap().len(),
        3,
        "nothing is lost"
    );
    memory.remember(&turn("s", "【解封】PARAM:k"), "", &host).unwrap();
    assert!(texts(&mut memory, "What is k?").is_empty());
    let unknown = memory.remember(&turn("s", "【解封】PARAM:none"), "", &host).unwrap();
    assert_eq!(unknown, ["unseal: expected a sealed key, found `PARAM:none`"]);
}

#[test]
fn statements_are_versions_of_what_was_said_of_their_subject() {
    let (mut memory, host, _) = told(&[
        "The code of vault 7 is 4711. The code of vault 17 is 99.",
        "仓库七的密码是八八。我的狗是白色的。",
        "Correction: the code of vault 7 is now 12.",
        "仓库七的密码是九九。My dog is called Rex. My dog is rather big.",
    ]);
    let mut first = |question: &str| asked(&mut memory, &host, question).remove(0).1;
    assert_eq!(first("What is the code of vault 7?"), "Correction: the code of vault 7 is now 12.");
    assert_eq!(first("What is the code of vault 17?"), "The code of vault 17 is 99.");
    assert_eq!(first("仓库七的密码是什么？"), "仓库七的密码是九九。");
    assert_eq!(first("How is my dog called?"), "My dog is called Rex.");
    assert_eq!(first("Is my dog big?"), "My dog is rather big.");
}

#[test]
fn the_card_is_always_there_within_its_room() {
    let card =
        "【目标】Ship it\n【禁偏】Never say \"easy\"\n【锚点】DEF:a\n【封存·原文】DEF:a: alpha";
    let (mut memory, host, _) = told(&[card]);
    let found: Vec<String> = asked(&mut memory, &host, "zzz").into_iter().map(|it| it.1).collect();
    let short: String = record::sha256("alpha").chars().take(8).collect();
    let anchor = format!("DEF:a(v1,{short}): alpha");
    let card = ["Goal: Ship it", "Never say: Never say \"easy\"", &anchor, "Kept: a"];
    assert_eq!(found, card);
    let small = Turn { tokens_max: 18, ..turn("s", "zzz") };
    assert_eq!(
        memory.recall(&small, &host).unwrap().len(),
        2,
        "goal and index have room in six tokens"
    );
}

#[test]
fn answers_that_contradict_what_is_kept_are_noted() {
    let (mut memory, host, _) = told(&[
        "【禁偏】\"trust me\"\n【封存·原文】DEF:alpha: alpha is the rate 0.5 of decay【/封存】【封存·字段】PARAM:run: lr=0.1",
    ]);
    #[rustfmt::skip]
    let cases = [
        ("alpha is the rate 0.5 of decay.",     None),
        ("alpha is the rate 0.7 of decay.",     Some("drift: DEF:alpha@v1#")),
        ("alpha is a Greek letter",             Some("drift: DEF:alpha@v1#")),
        ("I like alpha 12 times more",          None),
        ("In run, lr = 0.1",                    None),
        ("In run, lr = 0.2",                    Some("conflict: PARAM:run@v1#")),
        ("alpha says \"rate 0.5\"",             None),
        ("alpha says \"rate 0.6\"",             Some("quote: DEF:alpha@v1#")),
        ("Trust me",                            Some("forbidden: ")),
    ];
    for (answer, expected) in cases {
        let notes = memory.remember(&turn("s", "?"), answer, &host).unwrap();
        match expected {
            Some(start) => {
                assert!(notes.len() == 1 && notes[0].starts_with(start), "{answer}: {notes:?}");
            }
            None => assert_eq!(notes, [""; 0], "{answer}"),
        }
    }
}

#[test]
fn what_is_damaged_is_set_aside_reported_and_left_alone() {
    let (mut memory, host, _) = told(&[
        "【封存·原文】DEF:a: alpha one",
        "【封存·原文】DEF:a: alpha two",
        "【封存·原文】DEF:b: beta",
    ]);
    let row = host.services().store_rows("s", "entry/DEF:a/").unwrap().remove(1);
    let value = String::from_utf8(row.value).unwrap().replace("alpha two", "alpha TWO");
    let put = Change::Put(Row { key: row.key.clone(), value: value.into_bytes() });
    host.services().store_change("s", &[put]).unwrap();
    let found = asked(&mut memory, &host, "alpha beta");
    assert!(
        found.iter().all(|(source, _)| !source.starts_with("DEF:a")),
        "not even the older one: {found:?}"
    );
    assert!(found.iter().any(|(source, _)| source.starts_with("DEF:b")));
    let notes = memory.remember(&turn("s", "【封存·原文】DEF:a: alpha three"), "", &host).unwrap();
    assert!(
        notes[0].contains("is damaged and set aside: the content is not what its SHA-256"),
        "{notes:?}"
    );
    assert!(notes[1].ends_with("DEF:a: what is kept there is damaged"), "{notes:?}");
    host.services().store_change("s", &[Change::Remove("entry/DEF:a/000001".to_owned())]).unwrap();
    assert_eq!(
        host.services().store_rows("s", "entry/DEF:a/").unwrap().len(),
        1,
        "what is damaged stays"
    );
}

#[test]
fn what_cannot_be_read_is_rejected_with_its_place_and_sealed_entries_are_never_evicted() {
    let config = Config::new().with("items", 3).with("verbatim_max", 20);
    let mut memory = HierarchicalMemory::from_config(&config).unwrap();
    let host = Machine::new().host("hierarchical-memory");
    let bad = "a 【封存·字段】PARAM:x: {\"a\":\n【封存·原文】DEF:long: more than twenty characters\n【封存·原文】 ";
    let notes = memory.remember(&turn("s", bad), "", &host).unwrap();
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(notes[0].starts_with("directive at byte 2: expected a JSON object"), "{notes:?}");
    assert!(notes[1].ends_with("expected 1 to 20 characters, found 27"), "{notes:?}");
    for i in 0..4 {
        let sealed = format!("【封存·原文】DEF:s{i}: sealed {i}\n【目标】x");
        memory.remember(&turn("s", &sealed), "", &host).unwrap();
        memory.remember(&turn("s", &format!("Thing {i} is {i}.")), "", &host).unwrap();
    }
    let keys: Vec<String> =
        host.services().store_rows("s", "entry/").unwrap().into_iter().map(|row| row.key).collect();
    assert_eq!(keys, ["entry/DEF:s0/000001", "entry/DEF:s1/000001", "entry/DEF:s2/000001"]);
}
