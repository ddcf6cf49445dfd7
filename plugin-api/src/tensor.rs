//! Borrowed views of memory that somebody else owns, and the types of their elements.

use std::fmt;

use crate::error::{Error, Result};

/// The type of one element. Block formats are not dtypes: see
/// [`FormatDesc`](crate::FormatDesc).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// IEEE 16-bit float.
    F16,
    /// The upper half of an `F32`.
    BF16,
    /// Unsigned byte.
    U8,
    /// Unsigned 32-bit integer: token ids, positions, indices.
    U32,
}

impl DType {
    /// Every dtype with its code in plan bytes.
    pub const ALL: [(Self, u8); 6] = [
        (Self::F64, 0),
        (Self::F32, 1),
        (Self::F16, 2),
        (Self::BF16, 3),
        (Self::U8, 4),
        (Self::U32, 5),
    ];

    /// Size of one element, in bytes.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 | Self::U32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::U8 => 1,
        }
    }

    /// Whether elements are floating-point numbers.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::U8 => "u8",
            Self::U32 => "u32",
        })
    }
}

/// A dense row-major tensor to read, borrowed for one call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TensorRef<'a> {
    /// 64-bit floats.
    F64(&'a [f64]),
    /// 32-bit floats.
    F32(&'a [f32]),
    /// Unsigned 32-bit integers.
    U32(&'a [u32]),
}

/// A dense row-major tensor to write, borrowed for one call.
#[derive(Debug, PartialEq)]
pub enum TensorMut<'a> {
    /// 64-bit floats.
    F64(&'a mut [f64]),
    /// 32-bit floats.
    F32(&'a mut [f32]),
    /// Unsigned 32-bit integers.
    U32(&'a mut [u32]),
}

/// A tensor to read, with its extents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shaped<'a> {
    /// Outermost first.
    pub dims: &'a [usize],
    /// As many as the extents say.
    pub values: TensorRef<'a>,
}

/// A tensor to write, with its extents.
#[derive(Debug, PartialEq)]
pub struct ShapedMut<'a> {
    /// Outermost first.
    pub dims: &'a [usize],
    /// As many as the extents say.
    pub values: TensorMut<'a>,
}

impl<'a> TensorRef<'a> {
    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F64(_) => DType::F64,
            Self::F32(_) => DType::F32,
            Self::U32(_) => DType::U32,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F64(x) => x.len(),
            Self::F32(x) => x.len(),
            Self::U32(x) => x.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as integers.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if they are of another type.
    pub fn u32s(&self) -> Result<&'a [u32]> {
        match self {
            Self::U32(x) => Ok(x),
            other => Err(Error::shape("tensor", DType::U32, other.dtype())),
        }
    }

    /// The elements as 32-bit floats.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if they are of another type.
    pub fn f32s(&self) -> Result<&'a [f32]> {
        match self {
            Self::F32(x) => Ok(x),
            other => Err(Error::shape("tensor", DType::F32, other.dtype())),
        }
    }
}

impl TensorMut<'_> {
    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F64(_) => DType::F64,
            Self::F32(_) => DType::F32,
            Self::U32(_) => DType::U32,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F64(x) => x.len(),
            Self::F32(x) => x.len(),
            Self::U32(x) => x.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as 32-bit floats.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if they are of another type.
    pub fn f32s_mut(&mut self) -> Result<&mut [f32]> {
        match self {
            Self::F32(x) => Ok(x),
            Self::F64(_) => Err(Error::shape("tensor", DType::F32, DType::F64)),
            Self::U32(_) => Err(Error::shape("tensor", DType::F32, DType::U32)),
        }
    }

    /// The elements as integers.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if they are of another type.
    pub fn u32s_mut(&mut self) -> Result<&mut [u32]> {
        match self {
            Self::U32(x) => Ok(x),
            other => Err(Error::shape("tensor", DType::U32, other.dtype())),
        }
    }
}
