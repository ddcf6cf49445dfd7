//! Expected answer: answers that come to what the data name as right.
//!
//! The conventions: `#### 42` at the end are those of GSM8K (Cobbe et al., arXiv:2110.14168), `\boxed{42}` those of MATH
//! (Hendrycks et al., arXiv:2103.03874).

use plugin_api::prelude::*;

/// 1 for an answer that comes to what is expected, 0 for another.
#[derive(Debug)]
pub struct ExpectedAnswer {
    right: f64,
    wrong: f64,
}

impl Capability for ExpectedAnswer {
    const NAME: &'static str = "expected-answer";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self {
            right: config.number_or("right", 1.0, -1e6..=1e6)?,
            wrong: config.number_or("wrong", 0.0, -1e6..=1e6)?,
        })
    }
}

impl Reward for ExpectedAnswer {
    fn rate(&mut self, answers: &[RatedAnswer<'_>]) -> Result<Vec<f64>> {
        let worth = |answer: &RatedAnswer<'_>| {
            let Some(expected) = answer.expected else {
                let found = "none beside a prompt";
                return Err(Error::malformed("data", "the column `expected`", found));
            };
            let is_right = is_same(conclusion(answer.text), conclusion(expected));
            Ok(if is_right { self.right } else { self.wrong })
        };
        answers.iter().map(worth).collect()
    }
}

/// What a text comes to: what follows the last `####`, else what the last `\boxed{}` holds, else all of it.
fn conclusion(text: &str) -> Conclusion<'_> {
    if let Some((_, last)) = text.rsplit_once("####") {
        return Conclusion {
            text: last.lines().next().unwrap_or_default().trim(),
            is_marked: true,
        };
    }
    match text.rsplit_once("\\boxed{").and_then(|(_, rest)| braced(rest)) {
        Some(inner) => Conclusion { text: inner.trim(), is_marked: true },
        None => Conclusion { text: text.trim(), is_marked: false },
    }
}

#[derive(Clone, Copy)]
struct Conclusion<'a> {
    text: &'a str,
    /// Whether the text says that this is it.
    is_marked: bool,
}

/// What stands before the brace that closes one which was open.
fn braced(text: &str) -> Option<&str> {
    let mut open = 1_u32;
    let closes = |(_, c): &(usize, char)| {
        open = match c {
            '{' => open + 1,
            '}' => open - 1,
            _ => open,
        };
        open == 0
    };
    let (end, _) = text.char_indices().find(closes)?;
    Some(&text[..end])
}

/// Numbers are compared as such, texts letter by letter. Of an answer that marks no conclusion the last number counts, where a
/// number is expected.
fn is_same(found: Conclusion<'_>, expected: Conclusion<'_>) -> bool {
    let Some(number) = number(expected.text) else { return found.text == expected.text };
    let text = if found.is_marked { Some(found.text) } else { last_number(found.text) };
    text.and_then(self::number) == Some(number)
}

/// As people write them: with commas between thousands, a sign of a currency before, or a full stop behind.
fn number(text: &str) -> Option<f64> {
    let text = text.trim_start_matches(['$', '€', '£']).trim_end_matches(['.', '%', ' ']);
    let digits: String = text.chars().filter(|c| *c != ',').collect();
    digits.parse().ok().filter(|number: &f64| number.is_finite())
}

fn last_number(text: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | '-');
    text.split(|c| !is_part(c)).rfind(|part| part.contains(|c: char| c.is_ascii_digit()))
}

export_plugin!(ExpectedAnswer);

#[cfg(test)]
mod tests {
    use plugin_api::testing::reward::suite;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<ExpectedAnswer>(&Config::new());
        suite::<ExpectedAnswer>(&Config::new().with("right", 2).with("wrong", -1));
    }

    #[test]
    fn tells_right_from_wrong() {
        #[rustfmt::skip]
        let cases = [
            ("She has 3 + 4 = 7 left.",              "7",          1.0),
            ("7 apples, then 8",                     "7",          0.0),
            ("so it is #### 1,234\nand more 5",      "#### 1234",  1.0),
            ("#### 12",                              "reasons #### 21", 0.0),
            ("\\boxed{\\frac{1}{2}}",                "\\frac{1}{2}", 1.0),
            ("\\boxed{7} no, \\boxed{ 8 }",          "8.0",        1.0),
            ("costs $18.",                           "18",         1.0),
            ("-3",                                   "3",          0.0),
            (" Paris\n",                             "Paris",      1.0),
            ("It is Paris",                          "Paris",      0.0),
            ("",                                     "",           1.0),
            ("",                                     "0",          0.0),
            ("\\boxed{",                             "1",          0.0),
            ("inf",                                  "inf",        1.0),
        ];
        let mut reward = ExpectedAnswer::from_config(&Config::new()).unwrap();
        for (text, expected, worth) in cases {
            let expected = Some(expected);
            let answer =
                RatedAnswer { prompt: "", text, expected, num_tokens: 1, is_finished: true };
            assert_eq!(reward.rate(&[answer]).unwrap(), [worth], "{text:?} {expected:?}");
            let error = reward.rate(&[RatedAnswer { expected: None, ..answer }]).unwrap_err();
            assert!(error.to_string().contains("`expected`"), "{error}");
        }
    }
}
