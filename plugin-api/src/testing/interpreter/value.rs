//! What flows through the interpreter.

use std::borrow::Cow;
use std::fmt;

use kernels_reference::Real;

use crate::error::{Error, Result};
use crate::tensor::{DType, TensorRef};

/// A number type that plans are computed in.
pub trait Arithmetic: Real + fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// The dtype of the same name.
    const DTYPE: DType;

    /// Single-precision numbers in this type, without a copy where they already are.
    fn widen(x: &[f32]) -> Cow<'_, [Self]>;
}

impl Arithmetic for f32 {
    const DTYPE: DType = DType::F32;

    fn widen(x: &[f32]) -> Cow<'_, [Self]> {
        Cow::Borrowed(x)
    }
}

impl Arithmetic for f64 {
    const DTYPE: DType = DType::F64;

    fn widen(x: &[f32]) -> Cow<'_, [Self]> {
        Cow::Owned(x.iter().map(|&x| Self::from(x)).collect())
    }
}

/// A result of the interpreter.
#[derive(Debug, Clone, PartialEq)]
pub enum Numbers<T> {
    /// Floats, whatever their dtype in the plan.
    Reals(Vec<T>),
    /// Indices.
    Indices(Vec<u32>),
}

impl<T> Numbers<T> {
    /// The floats.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if they are indices.
    pub fn into_reals(self) -> Result<Vec<T>> {
        match self {
            Self::Reals(x) => Ok(x),
            Self::Indices(_) => Err(Error::shape("result", "floats", "indices")),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Reals(x) => x.len(),
            Self::Indices(x) => x.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A value while a plan runs.
pub(super) enum Value<'a, T: Arithmetic> {
    Reals(Cow<'a, [T]>),
    Indices(Cow<'a, [u32]>),
    /// Widened where it is used, so that one weight at a time is held twice.
    Weight(&'a [f32]),
    /// The index of a state of the plan.
    State(usize),
}

impl<'a, T: Arithmetic> Value<'a, T> {
    pub(super) fn of(tensor: TensorRef<'a>) -> Self {
        match tensor {
            TensorRef::F64(x) => Self::Reals(x.iter().map(|&x| T::from_f64(x)).collect()),
            TensorRef::F32(x) => Self::Reals(T::widen(x)),
            TensorRef::U32(x) => Self::Indices(Cow::Borrowed(x)),
        }
    }

    pub(super) fn borrowed(&self) -> Value<'_, T> {
        match self {
            Self::Reals(x) => Value::Reals(Cow::Borrowed(x)),
            Self::Indices(x) => Value::Indices(Cow::Borrowed(x)),
            Self::Weight(x) => Value::Weight(x),
            Self::State(i) => Value::State(*i),
        }
    }

    pub(super) fn reals(&self) -> Result<Cow<'_, [T]>> {
        match self {
            Self::Reals(x) => Ok(Cow::Borrowed(x)),
            Self::Weight(x) => Ok(T::widen(x)),
            Self::Indices(_) | Self::State(_) => Err(Error::shape("value", "floats", "another")),
        }
    }

    pub(super) fn indices(&self) -> Result<&[u32]> {
        match self {
            Self::Indices(x) => Ok(x),
            _ => Err(Error::shape("value", "u32", "another")),
        }
    }

    pub(super) fn to_numbers(&self) -> Result<Numbers<T>> {
        match self {
            Self::Indices(x) => Ok(Numbers::Indices(x.to_vec())),
            _ => Ok(Numbers::Reals(self.reals()?.into_owned())),
        }
    }
}

impl<T: Arithmetic> From<Numbers<T>> for Value<'_, T> {
    fn from(numbers: Numbers<T>) -> Self {
        match numbers {
            Numbers::Reals(x) => Self::Reals(Cow::Owned(x)),
            Numbers::Indices(x) => Self::Indices(Cow::Owned(x)),
        }
    }
}
