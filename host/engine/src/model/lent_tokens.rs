//! The tokens of a model as plugins beside it are lent them.

use std::sync::{Arc, Weak};

use plugin_api::{Error, Result, Tokens, Vocabulary};

use super::Tokenizer;

/// Holds no tokenizer: plugins may outlive the engine.
pub(crate) struct LentTokens {
    vocabulary: Arc<Vocabulary>,
    tokenizer: Weak<Tokenizer>,
}

impl LentTokens {
    pub(crate) fn of(tokenizer: &Arc<Tokenizer>) -> Arc<dyn Tokens> {
        let vocabulary = Arc::new(tokenizer.vocabulary());
        Arc::new(Self { vocabulary, tokenizer: Arc::downgrade(tokenizer) })
    }
}

impl Tokens for LentTokens {
    fn vocabulary(&self) -> Arc<Vocabulary> {
        Arc::clone(&self.vocabulary)
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let gone = || Error::outside("model", "its engine has ended");
        Ok(self.tokenizer.upgrade().ok_or_else(gone)?.encode_within(text))
    }
}
