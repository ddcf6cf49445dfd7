//! What of the recalled passages has room, and where it goes in a conversation.

use plugin_api::kinds::memory::{self, Passage, Turn};
use serde_json::Value;

use crate::model::Message;

/// The turn that a conversation is, for the memory of `session`.
pub fn turn(session: &str, messages: &[Message]) -> Turn {
    let messages = messages.iter().map(|message| {
        let content = message.content.as_str().unwrap_or_default();
        memory::Message::new(message.role.as_str(), content)
    });
    Turn { session: session.to_owned(), messages: messages.collect(), tokens_max: 0 }
}

/// Puts passages in front of what the user said last. There the prompt up to the question stays what it was, so that
/// the cache of its beginning is of use, and every chat template takes it. Where the user said nothing, nothing
/// was asked.
pub fn place(passages: &[Passage], messages: &mut [Message]) {
    let last = messages.iter_mut().rev().find(|message| message.role == "user");
    let Some(Message { content: Value::String(question), .. }) = last else { return };
    if passages.is_empty() {
        return;
    }
    let lines: String = passages.iter().map(line).collect();
    *question = format!("{HEADING}{lines}\n{question}");
}

/// The first passage of each list, then the second, as far as they have room: whole passages, and each text once.
pub(super) fn fitting(
    found: Vec<Vec<Passage>>,
    tokens_max: usize,
    tokens: &dyn Fn(&str) -> usize,
) -> Vec<Passage> {
    let mut taken: Vec<Passage> = Vec::new();
    let mut used = tokens(HEADING);
    let mut lists: Vec<_> = found.into_iter().map(Vec::into_iter).collect();
    loop {
        let firsts: Vec<Passage> = lists.iter_mut().filter_map(Iterator::next).collect();
        if firsts.is_empty() {
            return taken;
        }
        for passage in firsts {
            let needed = tokens(&line(&passage));
            let is_there = taken.iter().any(|other| other.text == passage.text);
            if used + needed <= tokens_max && !is_there {
                used += needed;
                taken.push(passage);
            }
        }
    }
}

fn line(passage: &Passage) -> String {
    format!("- {}\n", passage.text)
}

/// What passages stand under.
const HEADING: &str = "From earlier in this conversation:\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn passages(texts: &[&str]) -> Vec<Passage> {
        let passage =
            |text: &&str| Passage { source: (*text).to_owned(), text: (*text).to_owned() };
        texts.iter().map(passage).collect()
    }

    #[test]
    fn takes_whole_passages_of_each_memory_in_turn_while_there_is_room() {
        let found = || vec![passages(&["one", "three", "four four"]), passages(&["two", "one"])];
        let words = |text: &str| text.split_whitespace().filter(|word| *word != "-").count();
        let texts = |max| {
            let taken = fitting(found(), max, &words);
            taken.into_iter().map(|it| it.text).collect::<Vec<_>>()
        };
        assert_eq!(texts(5 + 99), ["one", "two", "three", "four four"]);
        assert_eq!(texts(5 + 3), ["one", "two", "three"]);
        assert_eq!(texts(5 + 1), ["one"]);
        assert!(texts(5).is_empty() && texts(0).is_empty());
    }

    #[test]
    fn stands_in_front_of_the_last_question() {
        let mut messages =
            ["user", "assistant", "user", "tool"].map(|role| Message::new(role, role));
        place(&passages(&["a", "b"]), &mut messages);
        let said: Vec<&str> = messages.iter().map(|it| it.content.as_str().unwrap()).collect();
        let expected = format!("{HEADING}- a\n- b\n\nuser");
        assert_eq!(said, ["user", "assistant", &*expected, "tool"]);
        let mut none = [Message::new("system", "x")];
        place(&passages(&["a"]), &mut none);
        assert_eq!(none[0].content, "x");
        assert_eq!(turn("s", &messages).question(), expected);
    }
}
