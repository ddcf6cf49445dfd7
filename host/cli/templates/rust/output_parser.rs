//! My plugin: tells what stands between asterisks as reasoning.
//!
//! Source: none needed; an example of a parser that reads while an answer grows.

use std::collections::BTreeMap;

use plugin_api::kinds::output_parser::append;
use plugin_api::prelude::*;

/// Tells asides from what is said.
#[derive(Debug)]
pub struct MyPlugin {
    /// What an aside begins and ends with.
    mark: char,
    /// Whether an answer is within an aside.
    answers: BTreeMap<AnswerId, bool>,
}

impl Capability for MyPlugin {
    const NAME: &'static str = "my-plugin";

    fn from_config(config: &Config) -> Result<Self> {
        let mark = config.text_or("mark", "*")?;
        match mark.chars().next() {
            Some(mark) => Ok(Self { mark, answers: BTreeMap::new() }),
            None => Err(config.wrong("mark", "a character", config.get("mark"))),
        }
    }
}

impl OutputParser for MyPlugin {
    fn open(&mut self, answer: AnswerId, _: &Config) -> Result<()> {
        self.answers.insert(answer, false);
        Ok(())
    }

    fn push(&mut self, answer: AnswerId, text: &str, out: &mut Vec<Piece>) -> Result<()> {
        let Some(is_aside) = self.answers.get_mut(&answer) else { return Ok(()) };
        for (i, part) in text.split(self.mark).enumerate() {
            *is_aside ^= i > 0;
            let part = part.to_owned();
            append(out, if *is_aside { Piece::Reasoning(part) } else { Piece::Content(part) });
        }
        Ok(())
    }

    fn finish(&mut self, _: AnswerId, _: &mut Vec<Piece>) -> Result<()> {
        Ok(()) // Nothing is ever held back.
    }

    fn close(&mut self, answer: AnswerId) {
        self.answers.remove(&answer);
    }
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::output_parser::{parts, suite};

    #[test]
    fn passes_the_contract_suite() {
        suite::<MyPlugin>(&Config::new(), &["*hm* yes *or no"]);
    }

    #[test]
    fn tells_asides_from_what_is_said() {
        let mut parser = MyPlugin::from_config(&Config::new()).unwrap();
        let found = parts(&mut parser, &Config::new(), &["*h", "m* yes"]);
        let (aside, said) = ("hm".to_owned(), " yes".to_owned());
        assert_eq!(found, [Piece::Reasoning(aside), Piece::Content(said)]);
    }
}
