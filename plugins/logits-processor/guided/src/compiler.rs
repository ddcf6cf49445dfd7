//! From grammars to constraints on the tokens of one model.

use std::sync::Arc;

use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use plugin_api::prelude::*;

use crate::constraint::Constraint;
use crate::grammar::Grammar;

/// Compiles grammars for the tokens of a model.
pub(crate) struct Compiler {
    factory: ParserFactory,
    /// Tokens that end an answer. The first stands for all of them in the factory.
    ends: Arc<[u32]>,
}

impl Compiler {
    /// Looks at every token once: a tenth of a second for 150,000.
    pub(crate) fn new(vocabulary: &Vocabulary) -> Result<Self> {
        let ends: Arc<[u32]> = vocabulary.ends().into();
        let Some(&end) = ends.first() else {
            let missing = "the model has no token that ends an answer";
            return Err(Error::unsupported("guided", missing));
        };
        let tokens: Vec<Vec<u8>> =
            (0..vocabulary.len() as u32).map(|id| spelling(vocabulary, id)).collect();
        let trie = TokTrie::from(&TokRxInfo::new(tokens.len() as u32, end), &tokens);
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&tokens)
            .map_err(|error| Error::outside("guided", format!("the vocabulary: {error}")))?;
        // Nobody reads what a library prints.
        factory.quiet();
        Ok(Self { factory, ends })
    }

    /// The constraint of a request whose prompt has so many tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a grammar that cannot be followed, with why.
    pub(crate) fn constraint(&self, grammar: Grammar, prompt: usize) -> Result<Constraint> {
        let (key, path) = grammar.place();
        let matcher = Matcher::new(self.factory.create_parser(grammar.source));
        let constraint = Constraint::new(matcher, Arc::clone(&self.ends), prompt);
        constraint.map_err(|message| Grammar::wrong(key, &path, &message))
    }
}

/// The bytes of a token as the library wants them: of those that are no text, a name that no text
/// can be.
fn spelling(vocabulary: &Vocabulary, id: u32) -> Vec<u8> {
    let bytes = vocabulary.bytes(id);
    let is_special = vocabulary.is_special(id) || vocabulary.ends().binary_search(&id).is_ok();
    match bytes {
        _ if bytes.len() > TOKEN_BYTES_MAX => Vec::new(),
        _ if is_special => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat(),
        _ => bytes.to_vec(),
    }
}

/// The trie of the library is not deeper. Longer tokens are never allowed.
const TOKEN_BYTES_MAX: usize = 1000;
