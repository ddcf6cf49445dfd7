//! Plain data as bytes: what crosses a library boundary where a call is not hot, and the items of
//! plan bytes.
//!
//! Little endian. A list is a `u32` count and its items; text is a list of bytes; a choice is a
//! byte and its fields. Reading trusts nothing: counts are checked against what is left before
//! anything is allocated.

mod config;
pub mod events;
mod kinds;
mod reader;

pub use config::{marks, take_marks};
pub use reader::Reader;

use std::borrow::Cow;

use crate::error::{Error, Result};

/// Something that has one form as bytes.
pub trait Wire: Sized {
    /// Fewest bytes that a value takes: bounds how many can follow.
    const MIN_BYTES: usize = 1;

    /// Appends the value.
    fn put(&self, out: &mut Vec<u8>);

    /// Reads what [`put`](Self::put) wrote.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] for bytes that no value has.
    fn take(r: &mut Reader<'_>) -> Result<Self>;
}

/// The bytes of a value.
pub fn to_bytes(value: &impl Wire) -> Vec<u8> {
    let mut out = Vec::new();
    value.put(&mut out);
    out
}

/// The value that all of `bytes` are.
///
/// # Errors
///
/// [`Error::Malformed`] if they are none, or more than one.
pub fn from_bytes<T: Wire>(bytes: &[u8]) -> Result<T> {
    let mut r = Reader::new(bytes);
    let value = T::take(&mut r)?;
    r.end()?;
    Ok(value)
}

macro_rules! wire_numbers {
    ($($number:ty),*) => {
        $(impl Wire for $number {
            const MIN_BYTES: usize = size_of::<Self>();

            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(r: &mut Reader<'_>) -> Result<Self> {
                r.array().map(Self::from_le_bytes)
            }
        })*
    };
}
wire_numbers!(u8, u32, i32, u64, i64, f32, f64);

impl Wire for usize {
    const MIN_BYTES: Self = 8;

    fn put(&self, out: &mut Vec<u8>) {
        (*self as u64).put(out);
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        let n = u64::take(r)?;
        Self::try_from(n).map_err(|_| Error::malformed("size", "one of this machine", n))
    }
}

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        match u8::take(r)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::malformed("flag", "0 or 1", other)),
        }
    }
}

impl Wire for String {
    const MIN_BYTES: usize = 4;

    fn put(&self, out: &mut Vec<u8>) {
        put_text(self, out);
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        r.text().map(str::to_owned)
    }
}

impl Wire for Cow<'static, str> {
    const MIN_BYTES: usize = 4;

    fn put(&self, out: &mut Vec<u8>) {
        put_text(self, out);
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        String::take(r).map(Self::Owned)
    }
}

impl<T: Wire> Wire for Vec<T> {
    const MIN_BYTES: usize = 4;

    fn put(&self, out: &mut Vec<u8>) {
        put_list(self, out);
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        (0..r.count(T::MIN_BYTES)?).map(|_| T::take(r)).collect()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        Ok(if bool::take(r)? { Some(T::take(r)?) } else { None })
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    const MIN_BYTES: usize = A::MIN_BYTES + B::MIN_BYTES;

    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        Ok((A::take(r)?, B::take(r)?))
    }
}

/// Appends text.
pub fn put_text(text: &str, out: &mut Vec<u8>) {
    (text.len() as u32).put(out);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a list.
pub fn put_list<T: Wire>(list: &[T], out: &mut Vec<u8>) {
    (list.len() as u32).put(out);
    list.iter().for_each(|item| item.put(out));
}

/// A struct is its fields in the order given.
macro_rules! wire_struct {
    ($type:ty { $($field:tt),* $(,)? }) => {
        impl $crate::wire::Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::wire::Wire::put(&self.$field, out);)*
            }

            fn take(r: &mut $crate::wire::Reader<'_>) -> $crate::error::Result<Self> {
                Ok(Self { $($field: $crate::wire::Wire::take(r)?),* })
            }
        }
    };
}

/// A choice is a byte and the fields of the variant; `0: x` names the field of a tuple variant.
macro_rules! wire_enum {
    ($type:ty, $what:literal, $($tag:literal => $variant:ident { $($field:tt: $name:ident),* }),* $(,)?) => {
        impl $crate::wire::Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant { $($field: $name),* } => {
                        out.push($tag);
                        $($crate::wire::Wire::put($name, out);)*
                    })*
                }
            }

            fn take(r: &mut $crate::wire::Reader<'_>) -> $crate::error::Result<Self> {
                match <u8 as $crate::wire::Wire>::take(r)? {
                    $($tag => Ok(Self::$variant { $($field: $crate::wire::Wire::take(r)?),* }),)*
                    other => Err($crate::error::Error::malformed($what, "a known choice", other)),
                }
            }
        }
    };
}
pub(crate) use {wire_enum, wire_struct};
