//! Chain of thought: the model reasons before it answers, and only the answer is told.
//!
//! Source: Kojima et al., "Large Language Models are Zero-Shot Reasoners", arXiv:2205.11916.

mod texts;
mod thought;

use std::collections::BTreeMap;
use std::sync::Arc;

use plugin_api::prelude::*;

use texts::{Texts, Words};
use thought::Thought;

/// Answers every request with reasoning before it.
#[derive(Debug)]
pub struct ChainOfThought {
    defaults: Settings,
    words: Words,
    /// The words in the tokens of the model, or why they are not known.
    texts: Result<Arc<Texts>>,
    thoughts: BTreeMap<GroupId, Thought>,
}

/// What a request may choose.
#[derive(Debug, Clone, Copy)]
struct Settings {
    /// Of the answer.
    max_tokens: u64,
    max_reasoning_tokens: u64,
    show_reasoning: bool,
    /// Only matters for whether it is 0.
    temperature: f64,
}

const DEFAULTS: Settings = Settings {
    max_tokens: 256,
    max_reasoning_tokens: 256,
    show_reasoning: false,
    temperature: 1.0,
};

impl Settings {
    /// Those in `config`, else these.
    fn or(self, config: &Config) -> Result<Self> {
        let (most, reasoning) = (u64::from(u32::MAX), self.max_reasoning_tokens);
        Ok(Self {
            max_tokens: config.count_or("max_tokens", self.max_tokens, 1..=most)?,
            max_reasoning_tokens: config.count_or("max_reasoning_tokens", reasoning, 0..=most)?,
            show_reasoning: config.flag_or("show_reasoning", self.show_reasoning)?,
            temperature: config.number_or("temperature", self.temperature, 0.0..=100.0)?,
        })
    }
}

impl Capability for ChainOfThought {
    const NAME: &'static str = "chain-of-thought";

    fn from_config(config: &Config) -> Result<Self> {
        if cfg!(target_family = "wasm") {
            return Err(nothing_lent());
        }
        let (defaults, words) = (DEFAULTS.or(config)?, Words::of(config)?);
        Ok(Self { defaults, words, texts: Err(nothing_lent()), thoughts: BTreeMap::new() })
    }
}

impl DecodingStrategy for ChainOfThought {
    fn attach(&mut self, host: &Host) -> Result<()> {
        self.texts = Texts::of(&self.words, host.services()).map(Arc::new);
        Ok(())
    }

    fn open(&mut self, group: GroupId, request: &RequestView<'_>) -> Result<()> {
        let settings = self.defaults.or(request.params)?;
        let thought = Thought::open(request, settings, self.texts.clone()?)?;
        self.thoughts.insert(group, thought);
        Ok(())
    }

    fn plan(&mut self, group: GroupId, out: &mut Evals) -> Result<()> {
        if let Some(thought) = self.thoughts.get(&group) {
            thought.plan(out);
        }
        Ok(())
    }

    fn observe(&mut self, group: GroupId, results: &[Outcome], out: &mut Actions) -> Result<()> {
        if let Some(thought) = self.thoughts.get_mut(&group) {
            thought.observe(results, out);
        }
        Ok(())
    }

    fn close(&mut self, group: GroupId) {
        self.thoughts.remove(&group);
    }
}

fn nothing_lent() -> Error {
    Error::unsupported("chain-of-thought", "a host that lends the tokens of the model")
}

export_plugin!(ChainOfThought);

#[cfg(test)]
mod tests;
