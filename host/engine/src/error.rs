//! Why the engine did not do what it was asked for.

use std::fmt;

use thiserror::Error;

use crate::model::ModelError;

/// A refusal or failure of the engine. Nothing is left half loaded or half generated.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A model file is not what it should be.
    #[error(transparent)]
    Model(#[from] ModelError),

    /// A plugin refused or failed.
    #[error("{what}: {source}")]
    Plugin {
        /// What was being done: the slot, kind or weight.
        what: String,
        /// What the plugin said.
        source: plugin_api::Error,
    },

    /// A plugin that is configured is not there, or could not be made.
    #[error(transparent)]
    Runtime(#[from] jackfield_runtime::RuntimeError),

    /// No blueprint describes the model.
    #[error("architecture `{architecture}`: no blueprint, expected one of {}", known.join(", "))]
    UnknownArchitecture {
        /// What the model file says.
        architecture: String,
        /// Architectures that have one.
        known: Vec<String>,
    },

    /// A blueprint that cannot be read.
    #[error("blueprint `{name}`: {message}")]
    Blueprint {
        /// Its name.
        name: String,
        /// Line, column and expectation.
        message: String,
    },

    /// The model lacks something that its architecture needs, or contradicts itself.
    #[error("{what}: expected {expected}, found {found}")]
    Inconsistent {
        /// The hyperparameter or weight.
        what: String,
        /// What the architecture needs.
        expected: String,
        /// What the file holds.
        found: String,
    },

    /// A prompt that leaves no room for an answer, in the context of the model or in the whole cache.
    #[error("prompt: expected 1 to {tokens_max} tokens, found {tokens}")]
    PromptTooLong {
        /// Its tokens.
        tokens: usize,
        /// Most that there is room for.
        tokens_max: usize,
    },

    /// A request that cannot be served as it is.
    #[error("{what}: expected {expected}, found {found}")]
    Request {
        /// The parameter.
        what: &'static str,
        /// Its range.
        expected: String,
        /// What was asked for.
        found: String,
    },
}

impl EngineError {
    /// Adds to a plugin's error what was being done.
    pub(crate) fn plugin(what: impl Into<String>) -> impl FnOnce(plugin_api::Error) -> Self {
        let what = what.into();
        move |source| Self::Plugin { what, source }
    }

    #[allow(clippy::needless_pass_by_value, reason = "numbers and borrowed text read better so")]
    pub(crate) fn inconsistent(
        what: impl Into<String>,
        expected: impl Into<String>,
        found: impl fmt::Display,
    ) -> Self {
        Self::Inconsistent {
            what: what.into(),
            expected: expected.into(),
            found: format!("{found}"),
        }
    }
}
