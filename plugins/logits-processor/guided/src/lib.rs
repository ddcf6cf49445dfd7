//! Guided decoding: leaves the tokens with which an answer can still become what was asked for.
//!
//! Source: Willard and Louf, "Efficient Guided Generation", arXiv:2307.09702; crate `llguidance`.

mod compiler;
mod constraint;
mod grammar;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::sync::Arc;

use plugin_api::prelude::*;

use compiler::Compiler;
use constraint::Constraint;
use grammar::{Grammar, Settings};

/// Masks every token that a request's grammar rules out.
pub struct Guided {
    settings: Settings,
    /// The tokens of the model, or why nobody knows them.
    vocabulary: Result<Arc<Vocabulary>>,
    /// What grammars are compiled with, made for the first of them: it takes up to a hundred megabytes, which nobody should
    /// pay for who asks for no grammar.
    compiler: OnceCell<Result<Compiler>>,
    /// Rows without a grammar have none.
    rows: RowMap<Option<Constraint>>,
}

impl Capability for Guided {
    const NAME: &'static str = "guided";

    fn from_config(config: &Config) -> Result<Self> {
        let settings = Settings::from_config(config)?;
        let vocabulary = Err(Error::unsupported("guided", "the host has lent no vocabulary"));
        Ok(Self { settings, vocabulary, compiler: OnceCell::new(), rows: RowMap::new() })
    }
}

impl LogitsProcessor for Guided {
    fn open(&mut self, host: &Host) -> Result<()> {
        self.vocabulary = host.services().vocabulary();
        self.compiler = OnceCell::new();
        Ok(())
    }

    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()> {
        let Self { settings, vocabulary, compiler, rows } = self;
        let made =
            || vocabulary.as_ref().map_err(Error::clone).and_then(|tokens| Compiler::new(tokens));
        rows.follow(change, |params, history| {
            let Some(grammar) = Grammar::of(params, settings)? else { return Ok(None) };
            let compiler = compiler.get_or_init(made).as_ref().map_err(Error::clone)?;
            Ok(Some(compiler.constraint(grammar, history.len())?))
        })?;
        let (BatchChange::Advanced { row, .. } | BatchChange::RolledBack { row, .. }) = *change
        else {
            return Ok(());
        };
        let Some(Some(constraint)) = rows.get_mut(row) else { return Ok(()) };
        match *change {
            BatchChange::Advanced { token, .. } => constraint.push(token),
            BatchChange::RolledBack { history, .. } => constraint.restart(history),
            _ => Ok(()),
        }
    }

    fn need(&self) -> Need {
        Need::Nothing
    }

    fn apply(&mut self, logits: &mut LogitsRows<'_>) -> Result<()> {
        logits.for_each(|row| {
            if let Some(Some(constraint)) = self.rows.get(row.id()) {
                row.mask(constraint.allowed());
            }
            Ok(())
        })
    }
}

export_plugin!(Guided);
