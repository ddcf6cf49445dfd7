//! Errors as WIT knows them, there and back: guest and host have the same types from two generators.

/// Implements the conversions for the types that were generated from the interface `types`.
#[doc(hidden)]
#[macro_export]
macro_rules! wit_errors {
    ($types:path) => {
        use $types as wit;

        impl From<$crate::Error> for wit::Error {
            fn from(error: $crate::Error) -> Self {
                use $crate::Error;
                match error {
                    Error::Config { key, expected, found } => {
                        Self::Config(wit::ConfigError { key, expected, found })
                    }
                    Error::ShapeMismatch { what, expected, found } => {
                        Self::ShapeMismatch(wit::Mismatch { what, expected, found })
                    }
                    Error::Malformed { what, expected, found } => {
                        Self::Malformed(wit::Mismatch { what, expected, found })
                    }
                    Error::Unsupported { what, missing } => {
                        Self::Unsupported(wit::UnsupportedError { what, missing })
                    }
                    Error::Denied { plugin, service, wanted, grant } => {
                        let service = service.into_owned();
                        Self::Denied(wit::DeniedError { plugin, service, wanted, grant })
                    }
                    Error::NoSpace { what, needed, free } => {
                        Self::NoSpace(wit::NoSpaceError { what: what.into_owned(), needed, free })
                    }
                    Error::MissingWeight { name } => Self::MissingWeight(name),
                    Error::NotFound { kind, name, known } => {
                        Self::NotFound(wit::NotFoundError { kind, name, known })
                    }
                    Error::Outside { what, message } => {
                        Self::Outside(wit::OutsideError { what, message })
                    }
                    // The interface has no other errors; the words are what counts.
                    #[allow(unreachable_patterns, reason = "in the crate that knows all of them")]
                    other => Self::Outside(wit::OutsideError {
                        what: "plugin-api".to_owned(),
                        message: other.to_string(),
                    }),
                }
            }
        }

        /// The error that the other side tells. Not a `From`: with two of them a `?` may be left
        /// without a type.
        pub(super) fn error_of(error: wit::Error) -> $crate::Error {
            use $crate::Error;
            match error {
                wit::Error::Config(wit::ConfigError { key, expected, found }) => {
                    Error::Config { key, expected, found }
                }
                wit::Error::ShapeMismatch(wit::Mismatch { what, expected, found }) => {
                    Error::ShapeMismatch { what, expected, found }
                }
                wit::Error::Malformed(wit::Mismatch { what, expected, found }) => {
                    Error::Malformed { what, expected, found }
                }
                wit::Error::Unsupported(wit::UnsupportedError { what, missing }) => {
                    Error::Unsupported { what, missing }
                }
                wit::Error::Denied(wit::DeniedError { plugin, service, wanted, grant }) => {
                    Error::Denied { plugin, service: service.into(), wanted, grant }
                }
                wit::Error::NoSpace(wit::NoSpaceError { what, needed, free }) => {
                    Error::NoSpace { what: what.into(), needed, free }
                }
                wit::Error::MissingWeight(name) => Error::MissingWeight { name },
                wit::Error::NotFound(wit::NotFoundError { kind, name, known }) => {
                    Error::NotFound { kind, name, known }
                }
                wit::Error::Outside(wit::OutsideError { what, message }) => {
                    Error::Outside { what, message }
                }
            }
        }
    };
}
