//! What is the answer in a text, and when two answers are the same.

use plugin_api::prelude::*;
use regex_lite::{Regex, RegexBuilder};

/// Finds the answer in a text: the last place that matches.
#[derive(Debug)]
pub(crate) struct Pattern(Regex);

/// The last number.
const NUMBER: &str = r"-?[0-9][0-9,]*(?:\.[0-9]+)?";

impl Pattern {
    pub(crate) fn usual() -> Result<Self> {
        compile(NUMBER).map_err(|why| Error::malformed("pattern", "a regular expression", why))
    }

    /// The one below `key`.
    pub(crate) fn of(config: &Config, key: &str) -> Result<Self> {
        let expected = |why: &str| format!("a regular expression ({why})");
        let pattern = config.text(key)?;
        compile(pattern).map_err(|why| config.wrong(key, &expected(&why), config.get(key)))
    }

    /// The answer of a text, as equal ones are written: what the first group holds, without one what matches.
    pub(crate) fn answer(&self, text: &str) -> Option<String> {
        let text: String = text.chars().map(narrow).collect();
        let last = self.0.captures_iter(&text).last()?;
        let found = last.get(1).or_else(|| last.get(0))?;
        Some(normal(found.as_str())).filter(|answer| !answer.is_empty())
    }
}

fn compile(pattern: &str) -> std::result::Result<Pattern, String> {
    let built = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
    built.map(Pattern).map_err(|why| why.to_string())
}

/// What a compiled pattern may take: it is compiled when its request enters.
const PATTERN_BYTES_MAX: usize = 1 << 18;

/// A character of the width of Chinese ones as the one that it stands for.
fn narrow(character: char) -> char {
    match character {
        '\u{3000}' => ' ',
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(character as u32 - 0xfee0).unwrap_or(character),
        other => other,
    }
}

/// One way to write what has several: a number without zeros and commas that say nothing, text in small letters.
fn normal(answer: &str) -> String {
    let answer = answer.trim().trim_end_matches(['.', ',', ';']);
    let bare: String = answer.chars().filter(|c| !matches!(c, ',' | '$' | '%' | ' ')).collect();
    if let Some(number) = number(&bare) {
        return number;
    }
    let words: Vec<String> = answer.split_whitespace().map(str::to_lowercase).collect();
    words.join(" ")
}

/// A decimal number without leading and trailing zeros.
fn number(text: &str) -> Option<String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !are_digits(whole) || !are_digits(part) {
        return None;
    }
    let (whole, part) = (whole.trim_start_matches('0'), part.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if whole == "0" && part.is_empty() { "" } else { sign };
    let point = if part.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_answer_and_writes_equal_ones_alike() {
        const BOXED: &str = r"\\boxed\{([^}]*)\}";
        #[rustfmt::skip]
        let cases = [
            // pattern                    text                                    answer
            (NUMBER,                      "3 and 4 make 7.",                       Some("7")),
            (NUMBER,                      "so that is $1,234.50 in all",           Some("1234.5")),
            (NUMBER,                      "minus: -007.0",                         Some("-7")),
            (NUMBER,                      "-0.00",                                 Some("0")),
            (NUMBER,                      "答案是４２。",                            Some("42")),
            (NUMBER,                      "none at all",                           None),
            (NUMBER,                      "",                                      None),
            (BOXED,                       r"so 5, thus \boxed{ Paris,  France. }", Some("paris, france")),
            (BOXED,                       r"\boxed{1} no, \boxed{2,000}",          Some("2000")),
            (r"(?i)answer is (\w+)|####", "The answer is NO",                      Some("no")),
            (r"(yes)|no",                 "yes or no",                             Some("no")),
        ];
        for (pattern, text, answer) in cases {
            let found = compile(pattern).unwrap().answer(text);
            assert_eq!(found.as_deref(), answer, "{pattern} in {text}");
        }
    }

    #[test]
    fn a_pattern_that_is_none_is_refused() {
        for wrong in ["(", "(((a{99}){99}){99}){99}"] {
            let config = Config::at("request").with("answer_pattern", wrong);
            let error = Pattern::of(&config, "answer_pattern").unwrap_err().to_string();
            assert!(error.starts_with("request.answer_pattern: expected a regular"), "{error}");
        }
    }
}
