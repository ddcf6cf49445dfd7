//! The one error type of the boundary.
//!
//! Every message starts with what was being handled and says what was expected and what was
//! found. Nothing is left half applied when one of these is returned.

use std::borrow::Cow;

use thiserror::Error;

/// What plugins and the host tell each other when something did not work.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration key or request parameter has a value that it cannot have.
    #[error("{key}: expected {expected}, found {found}")]
    Config {
        /// Dotted path of the key.
        key: String,
        /// The accepted type and range.
        expected: String,
        /// What stood there.
        found: String,
    },

    /// A tensor has another shape or dtype than the operation takes.
    #[error("{what}: expected {expected}, found {found}")]
    ShapeMismatch {
        /// Operation or argument.
        what: String,
        /// The accepted shape.
        expected: String,
        /// The shape that was given.
        found: String,
    },

    /// Bytes from outside (plan, block, state) that do not follow their format.
    #[error("{what}: malformed: expected {expected}, found {found}")]
    Malformed {
        /// What was being read.
        what: String,
        /// What the format asks for.
        expected: String,
        /// What the bytes hold.
        found: String,
    },

    /// Something that this plugin, build or machine cannot do.
    #[error("{what} is unsupported: {missing}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What is missing and, where known, how to get it.
        missing: String,
    },

    /// A host service was asked for something that the configuration does not grant.
    #[error("{service}: `{wanted}` is denied to plugin `{plugin}`: grant it with {grant}")]
    Denied {
        /// The plugin that asked.
        plugin: String,
        /// The service: files, network, processes, clock, store.
        service: Cow<'static, str>,
        /// The path, host or program that was asked for.
        wanted: String,
        /// The configuration line that would allow it.
        grant: String,
    },

    /// A pool has fewer free units than were asked for; nothing was taken.
    #[error("{what}: no space: needs {needed}, has {free}")]
    NoSpace {
        /// The pool.
        what: Cow<'static, str>,
        /// Units asked for.
        needed: u64,
        /// Units free.
        free: u64,
    },

    /// A traced plugin asked for a weight that the model does not hold.
    #[error("weight `{name}`: not in the model")]
    MissingWeight {
        /// Full name of the weight.
        name: String,
    },

    /// A name that nobody provides.
    #[error("{kind} `{name}`: not found{}{}", if .known.is_empty() { "" } else { ", expected one of " }, .known)]
    NotFound {
        /// What sort of thing was looked up.
        kind: String,
        /// The name that was asked for.
        name: String,
        /// The names that exist, comma separated.
        known: String,
    },

    /// Something outside (file, process, network) failed.
    #[error("{what}: {message}")]
    Outside {
        /// What was being done, with the file, program or address.
        what: String,
        /// What the outside said.
        message: String,
    },
}

/// Shorthand for results of the boundary.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[allow(clippy::needless_pass_by_value, reason = "literals and temporaries read better by value")]
impl Error {
    /// A [`ShapeMismatch`](Self::ShapeMismatch) from anything printable.
    pub fn shape(what: impl ToString, expected: impl ToString, found: impl ToString) -> Self {
        Self::ShapeMismatch {
            what: what.to_string(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// A [`Malformed`](Self::Malformed) from anything printable.
    pub fn malformed(what: impl ToString, expected: impl ToString, found: impl ToString) -> Self {
        Self::Malformed {
            what: what.to_string(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// An [`Unsupported`](Self::Unsupported) from anything printable.
    pub fn unsupported(what: impl ToString, missing: impl ToString) -> Self {
        Self::Unsupported { what: what.to_string(), missing: missing.to_string() }
    }

    /// An [`Outside`](Self::Outside) from anything printable.
    pub fn outside(what: impl ToString, message: impl ToString) -> Self {
        Self::Outside { what: what.to_string(), message: message.to_string() }
    }
}
