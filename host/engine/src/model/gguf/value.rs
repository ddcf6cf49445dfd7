//! Values of GGUF metadata, borrowed from the map.

use std::path::Path;

use super::cursor::Cursor;
use crate::model::error::ModelError;

/// The kinds of value that GGUF knows; the number is the id in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// `u8`
    U8 = 0,
    /// `i8`
    I8 = 1,
    /// `u16`
    U16 = 2,
    /// `i16`
    I16 = 3,
    /// `u32`
    U32 = 4,
    /// `i32`
    I32 = 5,
    /// `f32`
    F32 = 6,
    /// One byte, 0 or 1.
    Bool = 7,
    /// Length as `u64`, then bytes.
    Str = 8,
    /// Kind as `u32`, length as `u64`, then elements.
    Array = 9,
    /// `u64`
    U64 = 10,
    /// `i64`
    I64 = 11,
    /// `f64`
    F64 = 12,
}

impl ValueKind {
    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "a u8",
            Self::I8 => "an i8",
            Self::U16 => "a u16",
            Self::I16 => "an i16",
            Self::U32 => "a u32",
            Self::I32 => "an i32",
            Self::F32 => "an f32",
            Self::Bool => "a bool",
            Self::Str => "a string",
            Self::Array => "an array",
            Self::U64 => "a u64",
            Self::I64 => "an i64",
            Self::F64 => "an f64",
        }
    }

    pub(super) fn read(cursor: &mut Cursor<'_>, key: &str) -> Result<Self, ModelError> {
        let id = cursor.u32(key)?;
        KINDS
            .into_iter()
            .find(|kind| *kind as u32 == id)
            .ok_or_else(|| cursor.malformed(key, "a value kind from 0 to 12", id.to_string()))
    }

    /// Element kind and length of the array at the cursor; the length fits the file.
    pub(super) fn read_array_header(
        cursor: &mut Cursor<'_>,
        key: &str,
    ) -> Result<(Self, u64), ModelError> {
        let element = Self::read(cursor, key)?;
        let len = cursor.count(key, element.bytes_min())?;
        Ok((element, len))
    }

    /// Moves over one value that is not an array; checks what a later read relies on.
    pub(super) fn skip(self, cursor: &mut Cursor<'_>, key: &str) -> Result<(), ModelError> {
        match self {
            Self::Str => cursor.utf8(key).map(drop),
            Self::Bool => match cursor.take(1, key)? {
                [0 | 1] => Ok(()),
                other => Err(cursor.malformed(key, "a bool of 0 or 1", format!("{other:?}"))),
            },
            _ => cursor.take(self.bytes_min(), key).map(drop),
        }
    }

    /// Moves over `len` elements; `len` was checked by [`read_array_header`](Self::read_array_header).
    pub(super) fn skip_many(
        self,
        cursor: &mut Cursor<'_>,
        len: u64,
        key: &str,
        depth_max: u32,
    ) -> Result<(), ModelError> {
        match self {
            Self::Str => {
                for _ in 0..len {
                    cursor.string(key)?;
                }
                Ok(())
            }
            Self::Array => {
                if depth_max == 0 {
                    return Err(cursor.malformed(key, "arrays nested at most 4 deep", "more"));
                }
                for _ in 0..len {
                    let (element, len) = Self::read_array_header(cursor, key)?;
                    element.skip_many(cursor, len, key, depth_max - 1)?;
                }
                Ok(())
            }
            // No overflow: `len * bytes_min` was found to be at most what is left of the file.
            _ => cursor.take(len * self.bytes_min(), key).map(drop),
        }
    }

    /// Bytes of a number, or of an empty string or array.
    fn bytes_min(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::Str => 8,
            Self::Array => 12,
        }
    }
}

/// One value of the metadata.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "each variant is its type")]
pub enum GgufValue<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(&'a str),
    Array(GgufArray<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> GgufValue<'a> {
    /// The value of `kind` in `bytes`, which hold just that; `None` if they do not.
    pub(super) fn decode(kind: ValueKind, bytes: &'a [u8]) -> Option<Self> {
        Some(match kind {
            ValueKind::U8 => Self::U8(*bytes.first()?),
            ValueKind::I8 => Self::I8(i8::from_le_bytes(*bytes.first_chunk()?)),
            ValueKind::U16 => Self::U16(u16::from_le_bytes(*bytes.first_chunk()?)),
            ValueKind::I16 => Self::I16(i16::from_le_bytes(*bytes.first_chunk()?)),
            ValueKind::U32 => Self::U32(u32::from_le_bytes(*bytes.first_chunk()?)),
            ValueKind::I32 => Self::I32(i32::from_le_bytes(*bytes.first_chunk()?)),
            ValueKind::F32 => Self::F32(f32::from_le_bytes(*bytes.first_chunk()?)),
            ValueKind::Bool => Self::Bool(*bytes.first()? != 0),
            ValueKind::Str => Self::Str(std::str::from_utf8(bytes.get(8..)?).ok()?),
            ValueKind::Array => return None,
            ValueKind::U64 => Self::U64(u64::from_le_bytes(*bytes.first_chunk()?)),
            ValueKind::I64 => Self::I64(i64::from_le_bytes(*bytes.first_chunk()?)),
            ValueKind::F64 => Self::F64(f64::from_le_bytes(*bytes.first_chunk()?)),
        })
    }

    /// Which kind it is.
    pub fn kind(&self) -> ValueKind {
        match self {
            Self::U8(_) => ValueKind::U8,
            Self::I8(_) => ValueKind::I8,
            Self::U16(_) => ValueKind::U16,
            Self::I16(_) => ValueKind::I16,
            Self::U32(_) => ValueKind::U32,
            Self::I32(_) => ValueKind::I32,
            Self::F32(_) => ValueKind::F32,
            Self::Bool(_) => ValueKind::Bool,
            Self::Str(_) => ValueKind::Str,
            Self::Array(_) => ValueKind::Array,
            Self::U64(_) => ValueKind::U64,
            Self::I64(_) => ValueKind::I64,
            Self::F64(_) => ValueKind::F64,
        }
    }

    /// The value, if it is an integer and not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::U64(value) => Some(value),
            Self::I8(value) => value.try_into().ok(),
            Self::I16(value) => value.try_into().ok(),
            Self::I32(value) => value.try_into().ok(),
            Self::I64(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// The value, if it is a number; integers above 2^53 are rounded.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(value) => Some(value.into()),
            Self::F64(value) => Some(value),
            Self::I8(value) => Some(value.into()),
            Self::I16(value) => Some(value.into()),
            Self::I32(value) => Some(value.into()),
            Self::I64(value) => Some(value as f64),
            _ => self.as_u64().map(|value| value as f64),
        }
    }
}

/// An array of the metadata, still in the map.
#[derive(Debug, Clone, Copy)]
pub struct GgufArray<'a> {
    kind: ValueKind,
    len: u64,
    bytes: &'a [u8],
}

impl<'a> GgufArray<'a> {
    pub(super) fn new(kind: ValueKind, len: u64, bytes: &'a [u8]) -> Self {
        Self { kind, len, bytes }
    }

    /// The kind of every element.
    pub fn kind(&self) -> ValueKind {
        self.kind
    }

    /// Number of elements; no larger than the file has bytes.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements as the file has them.
    pub(super) fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The raw bytes of each string, not checked to be UTF-8; `None` if these are not strings.
    pub fn strings(&self) -> Option<impl Iterator<Item = &'a [u8]> + use<'a>> {
        let mut cursor = (self.kind == ValueKind::Str)
            .then(|| Cursor::new(Path::new("metadata"), self.bytes))?;
        Some((0..self.len).map_while(move |_| cursor.string("element").ok()))
    }

    /// Each number; `None` if these are strings or arrays.
    pub fn numbers(&self) -> Option<impl Iterator<Item = GgufValue<'a>> + use<'a>> {
        if matches!(self.kind, ValueKind::Str | ValueKind::Array) {
            return None;
        }
        let kind = self.kind;
        // Lossless: `bytes_min` is at most 12.
        let chunks = self.bytes.chunks_exact(kind.bytes_min() as usize);
        Some(chunks.filter_map(move |bytes| GgufValue::decode(kind, bytes)))
    }

    /// Each inner array; `None` if these are not arrays.
    pub fn arrays(&self) -> Option<impl Iterator<Item = GgufArray<'a>> + use<'a>> {
        let mut cursor = (self.kind == ValueKind::Array)
            .then(|| Cursor::new(Path::new("metadata"), self.bytes))?;
        let bytes = self.bytes;
        Some((0..self.len).map_while(move |_| {
            let (kind, len) = ValueKind::read_array_header(&mut cursor, "element").ok()?;
            let start = cursor.position();
            kind.skip_many(&mut cursor, len, "element", u32::MAX).ok()?;
            Some(Self::new(kind, len, &bytes[start..cursor.position()]))
        }))
    }
}

const KINDS: [ValueKind; 13] = [
    ValueKind::U8,
    ValueKind::I8,
    ValueKind::U16,
    ValueKind::I16,
    ValueKind::U32,
    ValueKind::I32,
    ValueKind::F32,
    ValueKind::Bool,
    ValueKind::Str,
    ValueKind::Array,
    ValueKind::U64,
    ValueKind::I64,
    ValueKind::F64,
];
