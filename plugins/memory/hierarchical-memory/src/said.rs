//! What is said in passing: statements of what something is, by their subject.
//!
//! `The code of vault 7 is 4711.` and, later, `The code of vault 7 is now 12.` are two versions of one statement:
//! only the later one counts.

use std::collections::BTreeSet;

use plugin_api::kinds::memory::terms;

/// The sentences of a text, without space around them.
pub(crate) fn sentences(text: &str) -> Vec<&str> {
    let (mut found, mut start) = (Vec::new(), 0);
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        let is_followed = letters.peek().is_some_and(|(_, next)| !next.is_whitespace());
        let ends = match letter {
            '。' | '！' | '？' | '\n' => true,
            '.' | '!' | '?' => !is_followed,
            _ => false,
        };
        if ends || letters.peek().is_none() {
            let end = at + letter.len_utf8();
            found.push(text[start..end].trim());
            start = end;
        }
    }
    found.retain(|sentence| sentence.chars().any(char::is_alphanumeric));
    found
}

/// Whether a sentence asks.
pub(crate) fn is_question(sentence: &str) -> bool {
    sentence.ends_with(['?', '？'])
}

/// What a sentence says something of, in lower case, and what it says; nothing for other sentences.
pub(crate) fn statement(sentence: &str) -> Option<(String, &str)> {
    let place = |mark: &&str| Some((sentence.find(*mark)?, mark.len()));
    let (at, len) = COPULAS.iter().filter_map(place).min()?;
    let value = sentence[at + len..].trim().trim_end_matches(['.', '。', '!', '！']);
    // Behind what introduces it: `Correction: the code …`, `By the way, the code …`.
    let before = sentence[..at].rsplit([':', '：', ',', '，', ';', '；']).next()?;
    let subject = normal(before);
    let is_fair = (1..=SUBJECT_MAX).contains(&subject.chars().count()) && !value.is_empty();
    (is_fair && !EMPTY.contains(&&*subject)).then_some((subject, value))
}

/// A subject in one form: without article, space and case.
pub(crate) fn normal(subject: &str) -> String {
    let lower = subject.to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    let mut words = &words[..];
    while let [first, rest @ ..] = words
        && INTRODUCTIONS.contains(first)
    {
        words = rest;
    }
    let mut subject = &*words.join(" ");
    while let Some(shorter) = TIMES.iter().find_map(|word| subject.strip_suffix(word)) {
        subject = shorter.trim_end();
    }
    subject.to_owned()
}

/// Whether two statements of one subject say the same of it with other values: both say a number and nothing else, or
/// more than half of the words of both are shared.
pub(crate) fn is_version(one: &str, other: &str) -> bool {
    let is_number = |sentence: &str| {
        let is_beside = |term: &String| {
            term.chars().all(|letter| letter.is_ascii_digit()) || TIMES.contains(&&**term)
        };
        statement(sentence).is_some_and(|(_, value)| terms(value).iter().all(is_beside))
    };
    if is_number(one) && is_number(other) {
        return true;
    }
    let set = |text: &str| terms(text).into_iter().collect::<BTreeSet<String>>();
    let (one, other) = (set(one), set(other));
    let shared = one.intersection(&other).count();
    2 * shared > one.union(&other).count()
}

/// Whether a text names something: not within a longer word or number.
pub(crate) fn mentions(text: &str, name: &str) -> bool {
    find(text, name).is_some()
}

/// Where a text, in lower case, names something first.
pub(crate) fn find(text: &str, name: &str) -> Option<usize> {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let mut places = text.match_indices(name);
    places.find_map(|(at, found)| {
        let (before, after) =
            (text[..at].chars().next_back(), text[at + found.len()..].chars().next());
        let cuts_before = is_word(before) && is_word(found.chars().next());
        let cuts_after = is_word(after) && is_word(found.chars().next_back());
        (!cuts_before && !cuts_after).then_some(at)
    })
}

/// Characters of the longest subject.
const SUBJECT_MAX: usize = 64;

const COPULAS: [&str; 12] = [
    " is ", " are ", " was ", " were ", " means ", " equals ", " = ", "=", "是", "为", "等于", "指",
];
const INTRODUCTIONS: [&str; 8] = ["the", "a", "an", "remember", "that", "note", "and", "now"];

/// When something is said to be so, and other words before a verb that are no part of a subject.
const TIMES: [&str; 11] =
    ["now", "currently", "today", "现在", "目前", "如今", "总", "也", "都", "还", "就"];

/// Subjects that say nothing without what was said before.
const EMPTY: [&str; 27] = [
    "it", "this", "that", "there", "he", "she", "they", "these", "those", "what", "who", "which",
    "here", "这", "那", "它", "他", "她", "什么", "谁", "这里", "那里", "但", "可", "要", "不",
    "于",
];
