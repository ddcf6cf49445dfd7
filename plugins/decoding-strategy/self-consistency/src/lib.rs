//! Self-consistency: draws several answers to a prompt and gives one that most of them come to.
//!
//! Source: Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models",
//! arXiv:2203.11171.

mod pattern;
mod poll;
mod votes;

use std::collections::BTreeMap;
use std::sync::Arc;

use plugin_api::prelude::*;

use pattern::Pattern;
use poll::Poll;

/// Draws the answers of many requests.
#[derive(Debug)]
pub struct SelfConsistency {
    defaults: Settings,
    /// What tokens stand for, or why that is not known.
    vocabulary: Result<Arc<Vocabulary>>,
    polls: BTreeMap<GroupId, Poll>,
}

/// What a request may choose.
#[derive(Debug, Clone)]
struct Settings {
    num_paths: u64,
    max_tokens: u64,
    /// Only matters for whether it is 0: then every path is the same.
    temperature: f64,
    pattern: Arc<Pattern>,
}

impl Settings {
    fn usual() -> Result<Self> {
        let pattern = Arc::new(Pattern::usual()?);
        Ok(Self { num_paths: 5, max_tokens: 256, temperature: 1.0, pattern })
    }

    /// Those in `config`, else these.
    fn or(&self, config: &Config) -> Result<Self> {
        let most = u64::from(u32::MAX);
        let pattern = match config.has("answer_pattern") {
            true => Arc::new(Pattern::of(config, "answer_pattern")?),
            false => Arc::clone(&self.pattern),
        };
        Ok(Self {
            num_paths: config.count_or("num_paths", self.num_paths, 1..=NUM_PATHS_MAX)?,
            max_tokens: config.count_or("max_tokens", self.max_tokens, 1..=most)?,
            temperature: config.number_or("temperature", self.temperature, 0.0..=100.0)?,
            pattern,
        })
    }
}

impl Capability for SelfConsistency {
    const NAME: &'static str = "self-consistency";

    fn from_config(config: &Config) -> Result<Self> {
        if cfg!(target_family = "wasm") {
            return Err(nothing_lent());
        }
        let defaults = Settings::usual()?.or(config)?;
        Ok(Self { defaults, vocabulary: Err(nothing_lent()), polls: BTreeMap::new() })
    }
}

impl DecodingStrategy for SelfConsistency {
    fn attach(&mut self, host: &Host) -> Result<()> {
        self.vocabulary = host.services().vocabulary();
        Ok(())
    }

    fn open(&mut self, group: GroupId, request: &RequestView<'_>) -> Result<()> {
        let (settings, vocabulary) = (self.defaults.or(request.params)?, self.vocabulary.clone()?);
        self.polls.insert(group, Poll::open(request, &settings, vocabulary)?);
        Ok(())
    }

    fn plan(&mut self, group: GroupId, out: &mut Evals) -> Result<()> {
        if let Some(poll) = self.polls.get_mut(&group) {
            poll.plan(out);
        }
        Ok(())
    }

    fn observe(&mut self, group: GroupId, results: &[Outcome], out: &mut Actions) -> Result<()> {
        if let Some(poll) = self.polls.get_mut(&group) {
            poll.observe(results, out);
        }
        Ok(())
    }

    fn close(&mut self, group: GroupId) {
        self.polls.remove(&group);
    }
}

fn nothing_lent() -> Error {
    Error::unsupported("self-consistency", "a host that lends the tokens of the model")
}

const NUM_PATHS_MAX: u64 = 64;

export_plugin!(SelfConsistency);

#[cfg(test)]
mod tests;
