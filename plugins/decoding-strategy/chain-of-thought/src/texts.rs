//! What is put into the model's mouth, in words and in its tokens.

use std::sync::Arc;

use plugin_api::host::HostServices;
use plugin_api::prelude::*;

/// The words, as configured.
#[derive(Debug)]
pub(crate) struct Words {
    /// Begins the reasoning.
    trigger: String,
    /// Begins the answer.
    answer_trigger: String,
    /// What stands around the reasoning where it is shown.
    begin: String,
    end: String,
}

impl Words {
    pub(crate) fn of(config: &Config) -> Result<Self> {
        let text = |key, or| Ok(config.text_or(key, or)?.to_owned());
        Ok(Self {
            trigger: text("trigger", "Let's think step by step.")?,
            answer_trigger: text("answer_trigger", "Therefore, the answer is")?,
            begin: text("begin", "<think>")?,
            end: text("end", "</think>")?,
        })
    }
}

/// The words in tokens.
#[derive(Debug)]
pub(crate) struct Texts {
    pub(crate) vocabulary: Arc<Vocabulary>,
    /// Behind text, and behind a space or the beginning of a turn.
    trigger: [Vec<u32>; 2],
    /// On a line of its own; nothing where there is none.
    pub(crate) answer_trigger: Vec<u32>,
    /// The end of a line.
    pub(crate) line: Vec<u32>,
    pub(crate) begin: Vec<u32>,
    pub(crate) end: Vec<u32>,
}

impl Texts {
    pub(crate) fn of(words: &Words, services: &dyn HostServices) -> Result<Self> {
        let Words { trigger, answer_trigger, begin, end } = words;
        let behind = |before: &str, text: &str| match text {
            "" => Ok(Vec::new()),
            text => services.encode(&format!("{before}{text}")),
        };
        let line = services.encode("\n")?;
        if line.is_empty() {
            return Err(Error::malformed("end of a line", "at least one token", "none"));
        }
        Ok(Self {
            vocabulary: services.vocabulary()?,
            trigger: [behind(" ", trigger)?, behind("", trigger)?],
            answer_trigger: behind("\n", answer_trigger)?,
            line,
            begin: services.encode(&format!("{begin}\n"))?,
            end: services.encode(&format!("\n{end}\n\n"))?,
        })
    }

    /// What begins the reasoning behind this prompt.
    pub(crate) fn trigger(&self, prompt: &[u32]) -> &[u32] {
        let is_apart = prompt.last().is_none_or(|last| {
            let ends_word =
                self.vocabulary.bytes(*last).last().is_some_and(u8::is_ascii_whitespace);
            ends_word || self.vocabulary.is_special(*last)
        });
        &self.trigger[usize::from(is_apart)]
    }
}
