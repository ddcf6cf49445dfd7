//! Errors, there and back.

use plugin_api::Error;

use super::bindings::offers::jackfield::plugin::types::{
    self as wit, ConfigError, DeniedError, Mismatch, NoSpaceError, NotFoundError, OutsideError,
    UnsupportedError,
};

impl From<Error> for wit::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Config { key, expected, found } => {
                Self::Config(ConfigError { key, expected, found })
            }
            Error::ShapeMismatch { what, expected, found } => {
                Self::ShapeMismatch(Mismatch { what, expected, found })
            }
            Error::Malformed { what, expected, found } => {
                Self::Malformed(Mismatch { what, expected, found })
            }
            Error::Unsupported { what, missing } => {
                Self::Unsupported(UnsupportedError { what, missing })
            }
            Error::Denied { plugin, service, wanted, grant } => {
                Self::Denied(DeniedError { plugin, service: service.into_owned(), wanted, grant })
            }
            Error::NoSpace { what, needed, free } => {
                Self::NoSpace(NoSpaceError { what: what.into_owned(), needed, free })
            }
            Error::MissingWeight { name } => Self::MissingWeight(name),
            Error::NotFound { kind, name, known } => {
                Self::NotFound(NotFoundError { kind, name, known })
            }
            Error::Outside { what, message } => Self::Outside(OutsideError { what, message }),
            // The interface has no other errors; the words are what counts.
            other => {
                Self::Outside(OutsideError { what: "host".to_owned(), message: other.to_string() })
            }
        }
    }
}

/// What a guest says that did not work. Not a `From`: that would leave `?` without a type elsewhere.
pub(super) fn error_of(error: wit::Error) -> Error {
    match error {
        wit::Error::Config(ConfigError { key, expected, found }) => {
            Error::Config { key, expected, found }
        }
        wit::Error::ShapeMismatch(Mismatch { what, expected, found }) => {
            Error::ShapeMismatch { what, expected, found }
        }
        wit::Error::Malformed(Mismatch { what, expected, found }) => {
            Error::Malformed { what, expected, found }
        }
        wit::Error::Unsupported(UnsupportedError { what, missing }) => {
            Error::Unsupported { what, missing }
        }
        wit::Error::Denied(DeniedError { plugin, service, wanted, grant }) => {
            Error::Denied { plugin, service: service.into(), wanted, grant }
        }
        wit::Error::NoSpace(NoSpaceError { what, needed, free }) => {
            Error::NoSpace { what: what.into(), needed, free }
        }
        wit::Error::MissingWeight(name) => Error::MissingWeight { name },
        wit::Error::NotFound(NotFoundError { kind, name, known }) => {
            Error::NotFound { kind, name, known }
        }
        wit::Error::Outside(OutsideError { what, message }) => Error::Outside { what, message },
    }
}
