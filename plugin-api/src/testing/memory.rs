//! Contract suite of memories: what holds whatever one keeps and brings back.

use std::collections::BTreeSet;

use super::machine::Machine;
use super::random::Random;
use super::{Make, make};
use crate::config::Config;
use crate::error::Error;
use crate::host::{Host, Row};
use crate::kinds::Capability;
use crate::kinds::memory::{Memory, Message, Passage, Turn};

/// Runs the whole suite on memories made from `config`.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + Memory + 'static>(config: &Config) {
    suite_of(&make::<dyn Memory, T>, config);
}

/// The same for memories that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn Memory>, config: &Config) {
    let fresh = || make(config).expect("the configuration is the suite's own");
    let machine = Machine::new();
    let host = machine.host("test");
    sessions_are_apart(&mut *fresh(), &host);
    for (i, said) in CONVERSATIONS.iter().enumerate() {
        let session = format!("kept {i}");
        keeps_what_it_kept(&fresh, &host, &session, said);
    }
    takes_odd_texts(&mut *fresh(), &host);
    refuses_in_words(&mut *fresh(), &machine);
    survives_garbled_rows(&fresh, &machine);
    for _ in 0..100 {
        drop(fresh());
    }
}

/// A turn of one session in which the user says something.
pub fn turn(session: &str, said: &str) -> Turn {
    let messages = vec![Message::new("user", said)];
    Turn { session: session.to_owned(), messages, tokens_max: 400 }
}

/// What is brought back, checked.
///
/// # Panics
///
/// If it fails, or passages say nothing or are not told apart by their sources.
pub fn recalled(memory: &mut dyn Memory, turn: &Turn, host: &Host) -> Vec<Passage> {
    let passages = memory.recall(turn, host).expect("a fair turn is answered");
    let mut sources = BTreeSet::new();
    for Passage { source, text } in &passages {
        assert!(!source.is_empty() && !text.is_empty(), "a passage says nothing: {passages:?}");
        assert!(sources.insert(source), "two passages have one source: {source}");
    }
    passages
}

fn rows(host: &Host, session: &str) -> Vec<Row> {
    host.services().store_rows(session, "").expect("the machine denies nothing")
}

/// What is said in one session is no part of another.
fn sessions_are_apart(memory: &mut dyn Memory, host: &Host) {
    let asked = "What is the code of the vault?";
    let before = recalled(memory, &turn("other", asked), host);
    let told = "Remember: the code of the vault is 4711. 【封存·原文】DEF:vault: The code is 4711.";
    memory.remember(&turn("one", told), "I will.", host).expect("a fair turn is kept");
    assert_eq!(recalled(memory, &turn("other", asked), host), before, "sessions mix");
    assert_eq!(rows(host, "other"), [], "recalling writes");
}

/// Recalling writes nothing and is repeatable, by other instances too; what is kept twice is there once.
fn keeps_what_it_kept(
    fresh: &dyn Fn() -> Box<dyn Memory>,
    host: &Host,
    session: &str,
    said: &[(&str, &str)],
) {
    let mut memory = fresh();
    let mut messages = Vec::new();
    for (user, assistant) in said {
        messages.push(Message::new("user", *user));
        let whole = Turn { messages: messages.clone(), ..turn(session, "") };
        recalled(&mut *memory, &whole, host);
        memory.remember(&whole, assistant, host).expect("a fair turn is kept");
        messages.push(Message::new("assistant", *assistant));
    }
    let (asked, kept) = (turn(session, said[0].0), rows(host, session));
    let found = recalled(&mut *memory, &asked, host);
    assert_eq!(recalled(&mut *memory, &asked, host), found, "asked again: another answer");
    assert_eq!(
        recalled(&mut *fresh(), &asked, host),
        found,
        "another instance remembers otherwise"
    );
    assert_eq!(rows(host, session), kept, "recalling writes");
    let last = messages.pop().expect("there is an answer").content;
    let whole = Turn { messages, ..turn(session, "") };
    fresh().remember(&whole, &last, host).expect("a turn may be told twice");
    let count = rows(host, session).len();
    assert_eq!(count, kept.len(), "a turn that is told twice is kept once");
}

fn takes_odd_texts(memory: &mut dyn Memory, host: &Host) {
    let mut random = Random::new(19);
    for _ in 0..120 {
        let said = (0..random.below(30)).map(|_| PIECES[random.below(PIECES.len())]);
        let said: String = said.collect();
        let roles = ["system", "user", "assistant", "tool", ""];
        let one = |random: &mut Random| Message::new(roles[random.below(roles.len())], &*said);
        let messages = (0..random.below(4)).map(|_| one(&mut random)).collect();
        let tokens_max = [0, 1, 400, u32::MAX][random.below(4)];
        let odd = Turn { session: "odd".to_owned(), messages, tokens_max };
        recalled(memory, &odd, host);
        memory.remember(&odd, &said, host).expect("any text is taken");
    }
    let long = turn("odd", &"naïve 東京 ".repeat(20_000));
    memory.remember(&long, "", host).expect("long texts are taken");
    recalled(memory, &long, host);
}

/// What the store says is passed on, and is none of the memory's making.
fn refuses_in_words(memory: &mut dyn Memory, machine: &Machine) {
    let (host, asked) = (machine.host("test"), turn("kept 0", "Who am I?"));
    let is_own = !rows(&host, "kept 0").is_empty();
    if !is_own {
        return; // This lane's services are those that the plugin was loaded with.
    }
    let denied = Machine::new();
    denied.deny("store");
    let host = denied.host("test");
    let found = memory.recall(&asked, &host);
    assert!(matches!(found, Err(Error::Denied { .. })), "a store that is denied: {found:?}");
    let found = memory.remember(&asked, "You are Ada.", &host);
    assert!(matches!(found, Err(Error::Denied { .. })), "a store that is denied: {found:?}");
}

/// Rows may be anything: another version wrote them, or a disk lost some. An error or an answer, no panic.
fn survives_garbled_rows(fresh: &dyn Fn() -> Box<dyn Memory>, machine: &Machine) {
    use crate::host::Change::Put;
    let (host, mut random) = (machine.host("test"), Random::new(23));
    for session in ["kept 0", "kept 1", "odd"] {
        for Row { key, value } in rows(&host, session) {
            let mut garbled = value.clone();
            match random.below(4) {
                0 => garbled.clear(),
                1 => garbled.truncate(value.len() / 2),
                2 => garbled.iter_mut().for_each(|byte| *byte ^= 0x55),
                _ => garbled.extend_from_slice(b"\xff\0{"),
            }
            let put = Put(Row { key, value: garbled });
            host.services().store_change(session, &[put]).expect("the machine denies nothing");
        }
        for _ in 0..2 {
            let mut memory = fresh();
            let _ = memory.recall(&turn(session, CONVERSATIONS[0][0].0), &host);
            let _ = memory.remember(&turn(session, "I like tea."), "Good.", &host);
        }
    }
}

/// What is said in a session, and answered.
const CONVERSATIONS: [&[(&str, &str)]; 3] = [
    &[("My name is Ada and I was born in 1815.", "Hello Ada."), ("我喜欢喝茶。", "好的。")],
    &[
        ("【封存·原文】DEF:alpha:v1: alpha is 0.5, always.【/封存】", "Sealed."),
        ("【封存·字段】PARAM:run: {\"lr\": 0.1, \"name\": \"x\"}", "Sealed."),
        ("What is alpha?", "alpha is 0.5, always."),
    ],
    &[("", ""), ("Is it?", "")],
];

const PIECES: [&str; 16] = [
    "remember that ",
    "X is 12. ",
    "【封存·原文】",
    "【封存·字段】",
    "【/封存】",
    "【锚点】",
    "DEF:a:v1: ",
    "{\"a\": [1, ",
    "```\n",
    "\n",
    "\0",
    "é",
    "东京是首都。",
    "\u{202e}",
    "\\【",
    "🦊",
];
