//! Fields of events as bytes, by type.

use std::sync::Arc;

use super::{Received, Sending};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::events::HookState;
use crate::kinds::decoding_strategy::FinishReason;
use crate::wire::{Reader, Wire, marks, put_list, put_text, take_marks};

/// A type that fields of events have; `'a` is how long the event lends what it borrows.
pub(crate) trait Field<'a>: Sized {
    /// What stands behind the field on the plugin's side.
    type Held: 'a;

    /// Appends the field. [host]
    fn send(&self, to: &mut Sending<'_>);

    /// Reads what `send` wrote. [plugin]
    fn receive(from: &mut Received<'_>) -> Result<Self::Held>;

    /// The field over what stands behind it. [plugin]
    fn lend(held: &'a mut Self::Held) -> Self;

    /// Appends what a hook left of it; nothing for what hooks only read. [plugin]
    fn put_back(&self, _out: &mut Vec<u8>) {}

    /// Takes over what `put_back` wrote. [host]
    fn take_back(&mut self, _r: &mut Reader<'_>) -> Result<()> {
        Ok(())
    }
}

macro_rules! values {
    ($($type:ty),*) => {
        $(impl<'a> Field<'a> for $type {
            type Held = Self;

            fn send(&self, to: &mut Sending<'_>) {
                Wire::put(self, to.bytes);
            }

            fn receive(from: &mut Received<'_>) -> Result<Self> {
                Wire::take(&mut from.r)
            }

            fn lend(held: &'a mut Self) -> Self {
                *held
            }

            fn put_back(&self, out: &mut Vec<u8>) {
                Wire::put(self, out);
            }

            fn take_back(&mut self, r: &mut Reader<'_>) -> Result<()> {
                *self = Wire::take(r)?;
                Ok(())
            }
        })*
    };
}
values!(u32, u64, usize, f32, f64, bool, FinishReason);

impl<'a> Field<'a> for &'a str {
    type Held = String;

    fn send(&self, to: &mut Sending<'_>) {
        put_text(self, to.bytes);
    }

    fn receive(from: &mut Received<'_>) -> Result<String> {
        Wire::take(&mut from.r)
    }

    fn lend(held: &'a mut String) -> Self {
        held
    }
}

impl<'a> Field<'a> for &'a mut String {
    type Held = String;

    fn send(&self, to: &mut Sending<'_>) {
        put_text(self, to.bytes);
    }

    fn receive(from: &mut Received<'_>) -> Result<String> {
        Wire::take(&mut from.r)
    }

    fn lend(held: &'a mut String) -> Self {
        held
    }

    fn put_back(&self, out: &mut Vec<u8>) {
        put_text(self, out);
    }

    fn take_back(&mut self, r: &mut Reader<'_>) -> Result<()> {
        let text = r.text()?;
        if **self != text {
            self.clear();
            self.push_str(text);
        }
        Ok(())
    }
}

/// Numbers that hooks only read.
impl<'a> Field<'a> for &'a [u32] {
    type Held = Vec<u32>;

    fn send(&self, to: &mut Sending<'_>) {
        put_list(self, to.bytes);
    }

    fn receive(from: &mut Received<'_>) -> Result<Vec<u32>> {
        Wire::take(&mut from.r)
    }

    fn lend(held: &'a mut Vec<u32>) -> Self {
        held
    }
}

/// Numbers that hooks change in place: as many come back.
macro_rules! slices {
    ($($type:ty),*) => {
        $(impl<'a> Field<'a> for &'a mut [$type] {
            type Held = Vec<$type>;

            fn send(&self, to: &mut Sending<'_>) {
                put_list(self, to.bytes);
            }

            fn receive(from: &mut Received<'_>) -> Result<Vec<$type>> {
                Wire::take(&mut from.r)
            }

            fn lend(held: &'a mut Vec<$type>) -> Self {
                held
            }

            fn put_back(&self, out: &mut Vec<u8>) {
                put_list(self, out);
            }

            fn take_back(&mut self, r: &mut Reader<'_>) -> Result<()> {
                let len = r.count(size_of::<$type>())?;
                if len != self.len() {
                    return Err(Error::malformed("event", self.len(), len));
                }
                self.iter_mut().try_for_each(|x| {
                    *x = Wire::take(r)?;
                    Ok(())
                })
            }
        })*
    };
}
slices!(u32, f32);

/// What a hook keeps: it comes back as the hook leaves it.
impl<'a> Field<'a> for &'a mut HookState {
    type Held = HookState;

    fn send(&self, to: &mut Sending<'_>) {
        Wire::put(&**self, to.bytes);
    }

    fn receive(from: &mut Received<'_>) -> Result<HookState> {
        Wire::take(&mut from.r)
    }

    fn lend(held: &'a mut HookState) -> Self {
        held
    }

    fn put_back(&self, out: &mut Vec<u8>) {
        Wire::put(&**self, out);
    }

    fn take_back(&mut self, r: &mut Reader<'_>) -> Result<()> {
        **self = Wire::take(r)?;
        Ok(())
    }
}

impl<'a> Field<'a> for &'a HookState {
    type Held = HookState;

    fn send(&self, to: &mut Sending<'_>) {
        Wire::put(*self, to.bytes);
    }

    fn receive(from: &mut Received<'_>) -> Result<HookState> {
        Wire::take(&mut from.r)
    }

    fn lend(held: &'a mut HookState) -> Self {
        held
    }
}

impl<'a> Field<'a> for &'a Error {
    type Held = Error;

    fn send(&self, to: &mut Sending<'_>) {
        Wire::put(*self, to.bytes);
    }

    fn receive(from: &mut Received<'_>) -> Result<Error> {
        Wire::take(&mut from.r)
    }

    fn lend(held: &'a mut Error) -> Self {
        held
    }
}

/// The parameters of a request: they cross once, afterwards only the request's number does.
impl<'a> Field<'a> for &'a Config {
    type Held = Arc<Config>;

    fn send(&self, to: &mut Sending<'_>) {
        let is_known = to.params.get(to.request).is_some_and(|known| *known == **self);
        to.request.put(to.bytes);
        is_known.put(to.bytes);
        if !is_known {
            Wire::put(*self, to.bytes);
            to.params.keep(to.request, Arc::new((*self).clone()));
        }
    }

    fn receive(from: &mut Received<'_>) -> Result<Arc<Config>> {
        let request = u64::take(&mut from.r)?;
        if !bool::take(&mut from.r)? {
            from.params.keep(request, Arc::new(Wire::take(&mut from.r)?));
        }
        let known = from.params.get(request);
        known.ok_or_else(|| Error::malformed("event", "parameters that have crossed", request))
    }

    fn lend(held: &'a mut Arc<Config>) -> Self {
        held
    }

    /// What has been read of them, so that the host can name keys that nobody reads.
    fn put_back(&self, out: &mut Vec<u8>) {
        marks(self).put(out);
    }

    fn take_back(&mut self, r: &mut Reader<'_>) -> Result<()> {
        let len = r.count(1)?;
        take_marks(self, r.bytes(len)?);
        Ok(())
    }
}
