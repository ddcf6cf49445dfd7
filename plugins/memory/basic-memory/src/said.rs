//! What users say: sentences, and how much each matters.

/// The sentences of a text, without space around them.
pub(crate) fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    let next = move || {
        let end = end_of_sentence(rest)?;
        let (sentence, more) = rest.split_at(end);
        rest = more;
        Some(sentence.trim())
    };
    std::iter::from_fn(next).filter(|sentence| sentence.chars().any(char::is_alphanumeric))
}

/// Where the first sentence ends: behind a full stop that space or nothing follows, or at the end of a line. Long ones are
/// cut.
fn end_of_sentence(text: &str) -> Option<usize> {
    let mut letters = text.char_indices().peekable();
    let mut count = 0;
    while let Some((at, letter)) = letters.next() {
        let end = at + letter.len_utf8();
        count += 1;
        let is_followed = letters.peek().is_some_and(|(_, next)| !next.is_whitespace());
        let ends = match letter {
            '。' | '！' | '？' | '\n' => true,
            '.' | '!' | '?' => !is_followed,
            _ => count == CHARACTERS_MAX,
        };
        if ends {
            return Some(end);
        }
    }
    (!text.is_empty()).then_some(text.len())
}

/// Whether a sentence asks.
pub(crate) fn is_question(sentence: &str) -> bool {
    sentence.ends_with(['?', '？'])
}

/// How much a sentence matters, from 0 to 1.
pub(crate) fn importance(sentence: &str) -> f64 {
    let padded = format!(" {} ", sentence.to_lowercase().replace(['\'', '’', ','], " "));
    let has = |marks: &[&str]| marks.iter().any(|mark| padded.contains(mark));
    let has_number = sentence.chars().any(|letter| letter.is_ascii_digit());
    let rules = [
        (0.9, has(ASKS_TO_BE_KEPT)),
        (0.8, has(IS_ABOUT_THE_USER)),
        (0.7, has_number),
        (0.6, has(SAYS_WHAT_SOMETHING_IS)),
    ];
    rules.into_iter().find(|(_, holds)| *holds).map_or(0.4, |(importance, _)| importance)
}

/// A sentence of the longest usual kind; what is longer is a text.
const CHARACTERS_MAX: usize = 600;

const ASKS_TO_BE_KEPT: &[&str] =
    &[" remember ", " remember: ", " note that ", " keep in mind ", "记住", "请记"];
const IS_ABOUT_THE_USER: &[&str] = &[
    " i am ",
    " i m ",
    " my ",
    " i like ",
    " i prefer ",
    " i live ",
    " i work ",
    " call me ",
    "我叫",
    "我是",
    "我的",
    "我喜欢",
    "我住",
];
const SAYS_WHAT_SOMETHING_IS: &[&str] =
    &[" is ", " are ", " was ", " means ", "=", "是", "为", "等于"];
