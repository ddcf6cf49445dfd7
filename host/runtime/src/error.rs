//! Why something could not be plugged in.

use thiserror::Error;

/// A refusal of the registry. Nothing has changed when one is returned.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// Two plugins provide the same capability.
    #[error("{kind} `{name}`: already provided by plugin `{owner}`, found it again in `{plugin}`")]
    NameTaken {
        /// Kind of the capability.
        kind: String,
        /// Its name.
        name: String,
        /// Who provides it.
        owner: String,
        /// Who wanted to.
        plugin: String,
    },

    /// Making an instance failed.
    #[error("{kind} `{name}`: {source}")]
    Make {
        /// Kind of the capability.
        kind: String,
        /// Its name.
        name: String,
        /// What the plugin said.
        source: plugin_api::Error,
    },

    /// Nobody provides what was asked for.
    #[error("{kind} `{name}`: no plugin provides it; {}", known_or_none(.known))]
    NotProvided {
        /// Kind of the capability.
        kind: String,
        /// The name that was asked for.
        name: String,
        /// Names that exist for this kind.
        known: Vec<String>,
    },
}

fn known_or_none(known: &[String]) -> String {
    if known.is_empty() {
        "no plugin of this kind is loaded".to_owned()
    } else {
        format!("expected one of {}", known.join(", "))
    }
}
