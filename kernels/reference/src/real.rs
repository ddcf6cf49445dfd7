//! The two number traits: what can be stored, and what can be computed with.
//!
//! Not a numerics library: exactly the operations that the ops of this crate use.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use half::{bf16, f16};

/// A float that tensors are stored in; conversion rounds to nearest, ties to even.
pub trait Stored: Copy {
    /// The nearest value of this type.
    fn from_f64(value: f64) -> Self;
    /// The same value, exactly.
    fn to_f64(self) -> f64;
}

/// A float that ops compute in: `f32`, or `f64` for the oracle.
pub trait Real:
    Stored
    + PartialOrd
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// Negative infinity: the identity of `max`.
    const NEG_INFINITY: Self;

    /// `e` to the power of `self`.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Sine of an angle in radians.
    fn sin(self) -> Self;
    /// Cosine of an angle in radians.
    fn cos(self) -> Self;

    /// The greater of two numbers; `other` if `self` is NaN.
    fn greater(self, other: Self) -> Self {
        if self > other { self } else { other }
    }

    /// The lesser of two numbers; `other` if `self` is NaN.
    fn lesser(self, other: Self) -> Self {
        if self < other { self } else { other }
    }

    /// Zero.
    fn zero() -> Self {
        Self::from_f64(0.0)
    }

    /// One.
    fn one() -> Self {
        Self::from_f64(1.0)
    }
}

macro_rules! real {
    ($real:ty) => {
        impl Real for $real {
            const NEG_INFINITY: Self = <$real>::NEG_INFINITY;

            fn exp(self) -> Self {
                <$real>::exp(self)
            }
            fn ln(self) -> Self {
                <$real>::ln(self)
            }
            fn sqrt(self) -> Self {
                <$real>::sqrt(self)
            }
            fn tanh(self) -> Self {
                <$real>::tanh(self)
            }
            fn sin(self) -> Self {
                <$real>::sin(self)
            }
            fn cos(self) -> Self {
                <$real>::cos(self)
            }
        }
    };
}

real!(f32);
real!(f64);

impl Stored for f64 {
    fn from_f64(value: f64) -> Self {
        value
    }
    fn to_f64(self) -> f64 {
        self
    }
}

impl Stored for f32 {
    fn from_f64(value: f64) -> Self {
        value as Self
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Stored for f16 {
    fn from_f64(value: f64) -> Self {
        Self::from_f64(value)
    }
    fn to_f64(self) -> f64 {
        Self::to_f64(self)
    }
}

impl Stored for bf16 {
    fn from_f64(value: f64) -> Self {
        Self::from_f64(value)
    }
    fn to_f64(self) -> f64 {
        Self::to_f64(self)
    }
}
