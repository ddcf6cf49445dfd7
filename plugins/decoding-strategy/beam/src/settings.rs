//! What a request may choose.

use plugin_api::prelude::*;

/// What a request may choose.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) num_beams: usize,
    pub(crate) length_penalty: f64,
    pub(crate) early_stopping: Stopping,
    pub(crate) max_tokens: usize,
    /// Which of the best answers is given.
    pub(crate) choice: usize,
}

/// When a search with enough complete answers ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// At once.
    AtOnce,
    /// When the best beginning, as it is, is no better than the worst answer.
    Guess,
    /// When no beginning can become better than the worst answer.
    Never,
}

pub(crate) const DEFAULTS: Settings = Settings {
    num_beams: 4,
    length_penalty: 1.0,
    early_stopping: Stopping::Guess,
    max_tokens: 256,
    choice: 0,
};

impl Settings {
    /// Those in `config`, else these.
    pub(crate) fn or(self, config: &Config) -> Result<Self> {
        let num_beams = config.count_or("num_beams", self.num_beams as u64, 1..=NUM_BEAMS_MAX)?;
        let most = u64::from(u32::MAX);
        let max_tokens = config.count_or("max_tokens", self.max_tokens as u64, 1..=most)?;
        let early_stopping = match config.get("early_stopping") {
            None => self.early_stopping,
            Some(Value::Bool(true)) => Stopping::AtOnce,
            Some(Value::Bool(false)) => Stopping::Guess,
            Some(Value::Text(text)) if text == "never" => Stopping::Never,
            other => return Err(config.wrong("early_stopping", "true, false or \"never\"", other)),
        };
        Ok(Self {
            num_beams: num_beams as usize,
            length_penalty: config.number_or("length_penalty", self.length_penalty, -8.0..=8.0)?,
            early_stopping,
            max_tokens: max_tokens as usize,
            choice: config.count_or("choice", self.choice as u64, 0..=num_beams - 1)? as usize,
        })
    }
}

const NUM_BEAMS_MAX: u64 = 32;
