//! One topic: from a closure to bytes and back.

use std::any::Any;

use super::{Crosses, Params, Received, Sending};
use crate::error::Result;
use crate::events::{Flow, HookFn, Phase, Subscriptions};
use crate::host::Host;
use crate::wire::{Reader, Wire};

/// How a topic crosses.
pub struct Crossing {
    pub(crate) topic: &'static str,
    export: ExportFn,
    import: ImportFn,
}

type ExportFn = fn(Box<dyn Any + Send>) -> Option<Box<dyn Listener>>;
type ImportFn = fn(&mut Subscriptions, (Phase, i32), Box<dyn Port>);

impl Crossing {
    /// Something that takes the bytes of events, of a boxed hook of this topic; nothing for a hook
    /// of another. [plugin]
    pub fn export(&self, hook: Box<dyn Any + Send>) -> Option<Box<dyn Listener>> {
        (self.export)(hook)
    }

    /// Subscribes something that takes the bytes of events. [host]
    pub fn import(&self, on: &mut Subscriptions, order: (Phase, i32), port: Box<dyn Port>) {
        (self.import)(on, order, port);
    }

    pub(crate) const fn of<E: Crosses>() -> Self {
        Self { topic: E::NAME, export: export::<E>, import: import::<E> }
    }
}

/// A hook on the plugin's side.
pub trait Listener: Send {
    /// Calls it with an event; appends flow and edits.
    fn on(&mut self, event: &[u8], host: &Host, answer: &mut Vec<u8>) -> Result<()>;
}

struct Listening<E: Crosses> {
    hook: HookFn<E>,
    params: Params,
}

fn export<E: Crosses>(hook: Box<dyn Any + Send>) -> Option<Box<dyn Listener>> {
    let hook = *hook.downcast::<HookFn<E>>().ok()?;
    Some(Box::new(Listening::<E> { hook, params: Params::default() }))
}

impl<E: Crosses> Listener for Listening<E> {
    fn on(&mut self, event: &[u8], host: &Host, answer: &mut Vec<u8>) -> Result<()> {
        let Self { hook, params } = self;
        E::call(&mut Received { r: Reader::new(event), params }, hook, host, answer)
    }
}

/// A hook on the host's side: what calls the plugin.
pub trait Port: Send {
    /// Sends an event; `answer` gets flow and edits.
    fn on(&self, event: &[u8], host: &Host, answer: &mut Vec<u8>) -> Result<()>;

    /// Passes on what was found of the answer.
    fn judged(&self, found: Result<Flow>) -> Result<Flow>;
}

fn import<E: Crosses>(on: &mut Subscriptions, order: (Phase, i32), port: Box<dyn Port>) {
    let (mut params, mut event, mut answer) = (Params::default(), Vec::new(), Vec::new());
    on.order(order.0, order.1).on::<E>(Box::new(
        move |payload: &mut E::Payload<'_>, host: &Host| {
            event.clear();
            let request = E::record(payload).request;
            E::put(payload, &mut Sending { bytes: &mut event, params: &mut params, request });
            let called = port.on(&event, host, &mut answer);
            let flow = called.and_then(|()| port.judged(take::<E>(payload, &answer)));
            // A hook that failed is as none: its owner knows.
            flow.unwrap_or_else(|_| {
                params.clear();
                Flow::Continue
            })
        },
    ));
}

fn take<E: Crosses>(payload: &mut E::Payload<'_>, answer: &[u8]) -> Result<Flow> {
    let mut r = Reader::new(answer);
    let flow = Flow::take(&mut r)?;
    E::take_back(payload, &mut r)?;
    r.end()?;
    Ok(flow)
}
