//! What goes wrong inside an op, before it is known which op that was.

use plugin_api::Error;

/// An error of candle, or one that is already the boundary's.
#[derive(Debug)]
pub(crate) enum Fault {
    /// candle refused shapes or dtypes.
    Candle(candle_core::Error),
    /// Said in the words of the boundary.
    Named(Error),
}

impl Fault {
    /// The error of the boundary, with what was being done.
    pub(crate) fn during(self, what: impl ToString) -> Error {
        match self {
            Self::Candle(error) => Error::outside(what, format!("candle: {error}")),
            Self::Named(error) => error,
        }
    }
}

impl From<candle_core::Error> for Fault {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Named(error)
    }
}

/// Of everything that calls candle.
pub(crate) type Outcome<T> = Result<T, Fault>;
