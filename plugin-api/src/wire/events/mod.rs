//! Events across the boundary: generic over the fields of an event's struct, so that an event that
//! is declared also crosses.
//!
//! To the plugin go all fields; back come the flow and what a hook may have edited: everything but
//! what the event lends to be read only, of which the marks of a configuration come back.

mod crossing;
mod fields;
mod params;
mod record;

pub use crossing::{Crossing, Listener, Port};
pub(crate) use fields::Field;
use params::Params;
pub use record::known;
#[cfg(not(target_family = "wasm"))]
pub(crate) use record::{put_record, take_record};

use crate::error::{Error, Result};
use crate::events::{CROSSINGS, Event, Flow, HookFn};
use crate::host::Host;
use crate::kinds::decoding_strategy::FinishReason;
use crate::wire::{Reader, Wire};

/// An event whose payload can be taken apart and put together. Written by `crosses!`.
pub(crate) trait Crosses: Event + Sized {
    /// Appends every field. [host]
    fn put(payload: &Self::Payload<'_>, to: &mut Sending<'_>);

    /// Takes over what a hook has edited. [host]
    fn take_back(payload: &mut Self::Payload<'_>, r: &mut Reader<'_>) -> Result<()>;

    /// Calls `hook` with the event; appends its flow and edits. [plugin]
    fn call(
        from: &mut Received<'_>,
        hook: &mut HookFn<Self>,
        host: &Host,
        out: &mut Vec<u8>,
    ) -> Result<()>;
}

/// A payload over fields that are held elsewhere. Written by `crosses!`.
pub(crate) trait Lend<'a>: Sized {
    /// The fields, owned.
    type Held: 'a;

    /// Reads all fields.
    fn take(from: &mut Received<'_>) -> Result<Self::Held>;

    /// The payload over them.
    fn lend(held: &'a mut Self::Held) -> Self;
}

/// An event on its way out.
pub(crate) struct Sending<'a> {
    pub(crate) bytes: &'a mut Vec<u8>,
    pub(crate) params: &'a mut Params,
    /// Whose parameters the event lends.
    pub(crate) request: u64,
}

/// An event that has arrived.
pub(crate) struct Received<'a> {
    pub(crate) r: Reader<'a>,
    pub(crate) params: &'a mut Params,
}

/// Lets an event with these fields cross.
macro_rules! crosses {
    ($event:ident { $($field:ident: $type:ty,)* }) => {
        impl<'a> $crate::wire::events::Lend<'a> for $event<'a> {
            type Held = ($(<$type as $crate::wire::events::Field<'a>>::Held,)*);

            fn take(
                from: &mut $crate::wire::events::Received<'_>,
            ) -> $crate::error::Result<Self::Held> {
                Ok(($(<$type as $crate::wire::events::Field<'a>>::receive(from)?,)*))
            }

            fn lend(held: &'a mut Self::Held) -> Self {
                let ($($field,)*) = held;
                $(let $field = $crate::wire::events::Field::lend($field);)*
                Self { $($field,)* lent: std::marker::PhantomData }
            }
        }

        impl $crate::wire::events::Crosses for $event<'static> {
            fn put(
                payload: &Self::Payload<'_>,
                to: &mut $crate::wire::events::Sending<'_>,
            ) {
                $($crate::wire::events::Field::send(&payload.$field, to);)*
            }

            fn take_back(
                payload: &mut Self::Payload<'_>,
                r: &mut $crate::wire::Reader<'_>,
            ) -> $crate::error::Result<()> {
                $($crate::wire::events::Field::take_back(&mut payload.$field, r)?;)*
                Ok(())
            }

            fn call(
                from: &mut $crate::wire::events::Received<'_>,
                hook: &mut $crate::events::HookFn<Self>,
                host: &$crate::host::Host,
                out: &mut Vec<u8>,
            ) -> $crate::error::Result<()> {
                use $crate::wire::events::{Field, Lend};
                let mut held = <$event<'static> as Lend<'static>>::take(from)?;
                from.r.end()?;
                let mut payload = <$event<'_> as Lend<'_>>::lend(&mut held);
                let flow = hook(&mut payload, host);
                $crate::wire::Wire::put(&flow, out);
                $(Field::put_back(&payload.$field, out);)*
                Ok(())
            }
        }
    };
}
pub(crate) use crosses;

/// How a topic crosses; nothing for topics that this host does not know.
pub fn crossing(topic: &str) -> Option<&'static Crossing> {
    CROSSINGS.iter().find(|crossing| crossing.topic == topic)
}

impl Wire for Flow {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Continue => out.push(0),
            Self::Refuse => out.push(5),
            Self::SkipStep => out.push(6),
            Self::StopRun => out.push(7),
            Self::Finish(reason) => {
                reason.put(out);
                if let Some(code) = out.last_mut() {
                    *code += 1;
                }
            }
        }
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        match u8::take(r)? {
            0 => Ok(Self::Continue),
            5 => Ok(Self::Refuse),
            6 => Ok(Self::SkipStep),
            7 => Ok(Self::StopRun),
            code @ 1..=4 => FinishReason::take(&mut Reader::new(&[code - 1])).map(Self::Finish),
            other => Err(Error::malformed("flow", "0 to 7", other)),
        }
    }
}

crate::wire::wire_enum!(FinishReason, "reason",
    0 => Stop {}, 1 => Length {}, 2 => Refused {}, 3 => Aborted {},
);
