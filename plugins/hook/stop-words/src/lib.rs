//! Stop words: ends an answer at the first of the texts that a request names.
//!
//! Source: the parameter `stop` of the OpenAI API reference, chat completions.

use plugin_api::events::{AfterToken, BeforeGenerate};
use plugin_api::prelude::*;

/// Cuts the answer where a stop text begins, and holds back what may become one.
#[derive(Debug)]
pub struct StopWords {
    /// Stop texts of a request that names none.
    default: Value,
}

impl Capability for StopWords {
    const NAME: &'static str = "stop-words";

    fn from_config(config: &Config) -> Result<Self> {
        check(config)?;
        Ok(Self { default: config.get("stop").cloned().unwrap_or(Value::List(Vec::new())) })
    }
}

impl Hook for StopWords {
    fn subscribe(self: Box<Self>, on: &mut Subscriptions) -> Result<()> {
        on.order(Phase::Early, 0).before_generate(|event, host| refuse_what_is_wrong(event, host));
        on.order(Phase::Normal, 0).after_token(move |event, _| {
            let stop = event.params.get("stop").unwrap_or(&self.default);
            end_at(stop, event)
        });
        Ok(())
    }
}

fn refuse_what_is_wrong(event: &BeforeGenerate<'_>, host: &Host) -> Flow {
    let Err(error) = check(event.params) else { return Flow::Continue };
    host.warn(format_args!("request {}: {error}", event.request));
    Flow::Refuse
}

/// Whether `stop` is a text or up to 16 texts, none of them empty.
fn check(config: &Config) -> Result<()> {
    let expected = || format!("a text or up to {TEXTS_MAX} texts");
    let wrong = |found| Err(config.wrong("stop", &expected(), Some(found)));
    let Some(stop) = config.get("stop") else { return Ok(()) };
    let is_fair = |text: &Value| matches!(text, Value::Text(text) if !text.is_empty());
    match stop {
        Value::List(list) if list.len() > TEXTS_MAX => wrong(stop),
        Value::List(list) => list.iter().find(|text| !is_fair(text)).map_or(Ok(()), wrong),
        text if is_fair(text) => Ok(()),
        other => wrong(other),
    }
}

/// The stop texts of a value that was checked.
fn texts(stop: &Value) -> impl Iterator<Item = &str> {
    let list = if let Value::List(list) = stop { list } else { std::slice::from_ref(stop) };
    list.iter().filter_map(|text| match text {
        Value::Text(text) if !text.is_empty() => Some(text.as_str()),
        _ => None,
    })
}

fn end_at(stop: &Value, event: &mut AfterToken<'_>) -> Flow {
    let Some(longest) = texts(stop).map(str::len).max() else { return Flow::Continue };
    let text = &event.text[..event.keep_bytes];
    // What came earlier was searched when it came.
    let mut start = text.len().saturating_sub(longest + TOKEN_BYTES_MAX);
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    if let Some(found) = texts(stop).filter_map(|stop| text[start..].find(stop)).min() {
        event.keep_bytes = start + found;
        event.hold_bytes = event.hold_bytes.min(event.keep_bytes);
        return Flow::Finish(FinishReason::Stop);
    }
    let begun = texts(stop).map(|stop| begun_bytes(text, stop)).max();
    event.hold_bytes = event.hold_bytes.max(begun.unwrap_or(0));
    Flow::Continue
}

/// Length of the longest end of `text` that `stop` begins with, and that is not all of it.
fn begun_bytes(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    let is_end = |&len: &usize| stop.is_char_boundary(len) && text.ends_with(&stop[..len]);
    (1..=longest).rev().find(is_end).unwrap_or(0)
}

/// As many as the API that the parameter comes from allows, fourfold.
const TEXTS_MAX: usize = 16;

/// More bytes than one token adds to a text.
const TOKEN_BYTES_MAX: usize = 1024;

export_plugin!(StopWords);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::hook::{AfterTokenAnswer, after_token, suite};

    type Case = (&'static str, &'static [&'static str], &'static str, Flow, usize, usize);

    fn params(stop: &[&str]) -> Config {
        let stop: Vec<Value> = stop.iter().map(|&text| Value::from(text)).collect();
        Config::new().with("stop", stop)
    }

    fn answer(text: &str, params: &Config) -> AfterTokenAnswer {
        let mut listening = plugin_api::testing::hook::subscribe::<StopWords>(&Config::new());
        after_token(&mut listening, text, params)
    }

    #[test]
    fn passes_the_contract_suite() {
        suite::<StopWords>(&Config::new());
        suite::<StopWords>(&params(&["a", "日", "words"]));
    }

    #[test]
    fn cuts_at_the_earliest_stop_text_and_holds_back_beginnings() {
        const GO: Flow = Flow::Continue;
        const END: Flow = Flow::Finish(FinishReason::Stop);
        #[rustfmt::skip]
        let cases: [Case; 9] = [
            // name                stop texts        answer       flow keep hold
            ("nothing to stop at", &[],              "abc",       GO,  3,   0),
            ("not there",          &["END"],         "abc",       GO,  3,   0),
            ("found",              &["END"],         "abcEND.",   END, 3,   0),
            ("at the very start",  &["END"],         "END",       END, 0,   0),
            ("the earliest wins",  &["d", "bc"],     "abcd",      END, 1,   0),
            ("a beginning waits",  &["END"],         "abcEN",     GO,  5,   2),
            ("the longest waits",  &["cE", "bcEN"],  "abc",       GO,  3,   2),
            ("repeats itself",     &["aab"],         "xaa",       GO,  3,   2),
            ("whole characters",   &["日本"],         "x日",        GO,  4,   3),
        ];
        for (name, stop, text, flow, keep_bytes, hold_bytes) in cases {
            let expected = AfterTokenAnswer { flow, keep_bytes, hold_bytes };
            assert_eq!(answer(text, &params(stop)), expected, "{name}");
        }
        let one = Config::new().with("stop", "END");
        assert_eq!(answer("abcEND", &one).keep_bytes, 3, "a single text");
        let long = format!("{}END", "é".repeat(4000));
        assert_eq!(answer(&long, &one).keep_bytes, 8000, "a long answer");
    }

    #[test]
    fn refuses_what_is_no_stop_text() {
        let many: Vec<Value> = vec![Value::from("a"); 17];
        #[rustfmt::skip]
        let cases = [
            (Value::from(3),                     "3"),
            (Value::from(""),                    "\"\""),
            (Value::List(vec![Value::from(3)]),  "3"),
            (Value::List(many),                  "a list of 17"),
        ];
        for (stop, found) in cases {
            let error = StopWords::from_config(&Config::new().with("stop", stop)).unwrap_err();
            let expected = format!("stop: expected a text or up to 16 texts, found {found}");
            assert_eq!(error.to_string(), expected);
        }
    }
}
