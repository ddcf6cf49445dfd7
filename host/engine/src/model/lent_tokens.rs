//! The tokens of a model as plugins beside it are lent them.

use std::sync::{Arc, Weak};

use plugin_api::{Error, Result, Tokens, Vocabulary};

use super::LoadedModel;

/// Holds no weights: plugins may outlive the engine.
pub(crate) struct LentTokens {
    vocabulary: Arc<Vocabulary>,
    model: Weak<LoadedModel>,
}

impl LentTokens {
    pub(crate) fn of(model: &Arc<LoadedModel>) -> Arc<dyn Tokens> {
        let vocabulary = Arc::new(model.tokenizer.vocabulary());
        Arc::new(Self { vocabulary, model: Arc::downgrade(model) })
    }
}

impl Tokens for LentTokens {
    fn vocabulary(&self) -> Arc<Vocabulary> {
        Arc::clone(&self.vocabulary)
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let gone = || Error::outside("model", "its engine has ended");
        Ok(self.model.upgrade().ok_or_else(gone)?.tokenizer.encode_within(text))
    }
}
