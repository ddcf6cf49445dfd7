//! Reasoning: what a model thinks, between tags at the beginning of an answer.

use std::collections::BTreeMap;

use plugin_api::kinds::output_parser::{append, begun};
use plugin_api::prelude::*;

/// Tells reasoning from content.
#[derive(Debug)]
pub struct Reasoning {
    begin: String,
    end: String,
    answers: BTreeMap<AnswerId, Answer>,
}

/// One answer.
#[derive(Debug, Default)]
struct Answer {
    place: Place,
    /// What could still become something else.
    held: String,
}

/// Where an answer is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before anything but space.
    #[default]
    Start,
    /// Behind the tag that begins reasoning.
    Opening,
    Reasoning,
    /// Behind the tag that ends it.
    Closing,
    Content,
}

impl Capability for Reasoning {
    const NAME: &'static str = "reasoning";

    fn from_config(config: &Config) -> Result<Self> {
        let tag = |key, or| {
            let tag = config.text_or(key, or)?.to_owned();
            if tag.trim().is_empty() {
                return Err(config.wrong(key, "a tag", config.get(key)));
            }
            Ok(tag)
        };
        let (begin, end) = (tag("begin", "<think>")?, tag("end", "</think>")?);
        Ok(Self { begin, end, answers: BTreeMap::new() })
    }
}

impl OutputParser for Reasoning {
    fn open(&mut self, answer: AnswerId, params: &Config) -> Result<()> {
        let has_begun = params.flag_or("reasoning_begun", false)?;
        let place = if has_begun { Place::Opening } else { Place::Start };
        self.answers.insert(answer, Answer { place, held: String::new() });
        Ok(())
    }

    fn push(&mut self, answer: AnswerId, text: &str, out: &mut Vec<Piece>) -> Result<()> {
        if let Some(answer) = self.answers.get_mut(&answer) {
            answer.held.push_str(text);
            while answer.advance(&self.begin, &self.end, false, out) {}
        }
        Ok(())
    }

    fn finish(&mut self, answer: AnswerId, out: &mut Vec<Piece>) -> Result<()> {
        if let Some(answer) = self.answers.get_mut(&answer) {
            while answer.advance(&self.begin, &self.end, true, out) {}
        }
        Ok(())
    }

    fn close(&mut self, answer: AnswerId) {
        self.answers.remove(&answer);
    }
}

impl Answer {
    /// Reads on; whether there is more to be read.
    fn advance(&mut self, begin: &str, end: &str, is_over: bool, out: &mut Vec<Piece>) -> bool {
        match self.place {
            Place::Start => {
                let text = self.held.trim_start();
                if let Some(rest) = text.strip_prefix(begin) {
                    self.held = rest.to_owned();
                    self.place = Place::Opening;
                } else if !is_over && begin.starts_with(text) {
                    return false;
                } else {
                    self.place = Place::Content;
                }
                true
            }
            Place::Opening => self.skip_space(Place::Reasoning),
            Place::Reasoning => self.reason(end, is_over, out),
            Place::Closing => self.skip_space(Place::Content),
            Place::Content => {
                append(out, Piece::Content(std::mem::take(&mut self.held)));
                false
            }
        }
    }

    /// Whether there is something behind the space.
    fn skip_space(&mut self, then: Place) -> bool {
        self.held.drain(..self.held.len() - self.held.trim_start().len());
        if !self.held.is_empty() {
            self.place = then;
        }
        !self.held.is_empty()
    }

    fn reason(&mut self, end: &str, is_over: bool, out: &mut Vec<Piece>) -> bool {
        let found = self.held.find(end);
        let certain = found.unwrap_or_else(|| {
            let held = if is_over { 0 } else { begun(&self.held, end) };
            self.held.len() - held
        });
        // Space stays until something follows that is no tag.
        let text = self.held[..certain].trim_end().to_owned();
        let len = text.len();
        append(out, Piece::Reasoning(text));
        match found {
            Some(at) => {
                self.held.drain(..at + end.len());
                self.place = Place::Closing;
                true
            }
            None if is_over => {
                self.held.clear();
                false
            }
            None => {
                self.held.drain(..len);
                false
            }
        }
    }
}

export_plugin!(Reasoning);

#[cfg(test)]
mod tests {
    use plugin_api::testing::output_parser::{self, parts};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        output_parser::suite::<Reasoning>(
            &Config::new(),
            &[" <think>\n a </th b\n\n</think>\n\n c"],
        );
    }

    #[test]
    fn tells_reasoning_from_content() {
        let reasoning = |text: &str| Piece::Reasoning(text.to_owned());
        let content = |text: &str| Piece::Content(text.to_owned());
        #[rustfmt::skip]
        let cases = [
            // begun, answer                               what is found
            (false, "<think>\nwhy\n</think>\n\nbecause",   vec![reasoning("why"), content("because")]),
            (false, "\n <think>a b",                       vec![reasoning("a b")]),
            (false, "<think></think>so",                   vec![content("so")]),
            (false, "<think>a</think>",                    vec![reasoning("a")]),
            (false, "<thin",                               vec![content("<thin")]),
            (false, "so <think>a</think>",                 vec![content("so <think>a</think>")]),
            (false, "<think>a</think>b</think><think>c",   vec![reasoning("a"), content("b</think><think>c")]),
            (false, "<think>a < b</thin > c</think> d",    vec![reasoning("a < b</thin > c"), content("d")]),
            (true,  "why</think>because",                  vec![reasoning("why"), content("because")]),
            (true,  "why\n",                               vec![reasoning("why")]),
        ];
        for (has_begun, answer, expected) in cases {
            let params = Config::new().with("reasoning_begun", has_begun);
            let mut parser = Reasoning::from_config(&Config::new()).unwrap();
            let letters: Vec<String> = answer.chars().map(String::from).collect();
            let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
            assert_eq!(parts(&mut parser, &params, &letters), expected, "{answer:?}");
        }
    }

    #[test]
    fn tags_are_configured() {
        let config = Config::new().with("begin", "[THINK]").with("end", "[/THINK]");
        let mut parser = Reasoning::from_config(&config).unwrap();
        let found = parts(&mut parser, &Config::new(), &["[THINK]a[/THINK]b"]);
        assert_eq!(found, [Piece::Reasoning("a".to_owned()), Piece::Content("b".to_owned())]);
        let error = Reasoning::from_config(&Config::new().with("end", " ")).unwrap_err();
        assert_eq!(error.to_string(), "end: expected a tag, found \" \"");
    }
}
