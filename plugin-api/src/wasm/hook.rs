//! Hooks as components of the world `hook-plugin`: closures stay in the guest, and are called by
//! number.

use std::cell::RefCell;

use super::offers::jackfield::plugin::settings::Config as Settings;
use super::offers::jackfield::plugin::types::Error as WireError;
use super::{Plugin, host, make, place};
use crate::error::Error;
use crate::events::{HookEntry, ObserverFn, Phase, Record, Subscriptions};
use crate::host::Host;
use crate::kinds::hook::Hook;
use crate::wire::events::{Listener, crossing, known};
use bindings::exports::jackfield::plugin::hook as wit;

super::world!("hook-plugin");

/// What has been subscribed.
struct Listening {
    hooks: Vec<Box<dyn Listener>>,
    observers: Vec<ObserverFn>,
    host: Host,
}

thread_local! {
    static INSTANCE: RefCell<Option<Box<dyn Hook>>> = const { RefCell::new(None) };
    static LISTENING: RefCell<Option<Listening>> = const { RefCell::new(None) };
}

impl<P: Plugin<Kind = dyn Hook>> wit::Guest for P {
    fn create(settings: &Settings) -> Result<(), WireError> {
        place(&INSTANCE, make::<P>(settings)?)
    }

    fn subscribe() -> Result<wit::Subscriptions, WireError> {
        let hook = INSTANCE.take();
        let hook = hook.ok_or_else(|| Error::unsupported("subscribe", "it is called once"))?;
        let mut on = Subscriptions::new();
        hook.subscribe(&mut on)?;
        let (mut wanted, mut hooks) = (Vec::new(), Vec::new());
        for HookEntry { topic, phase, priority, hook } in on.hooks {
            // Nobody emits a topic that no host knows.
            let Some(crossing) = crossing(topic) else { continue };
            let listener = crossing.export(hook);
            hooks.push(listener.ok_or_else(|| {
                Error::malformed(format!("hook on {topic}"), "a hook of its event", "another's")
            })?);
            let phase = match phase {
                Phase::Early => wit::Phase::Early,
                Phase::Normal => wit::Phase::Normal,
                Phase::Late => wit::Phase::Late,
            };
            wanted.push(wit::Subscription { topic: topic.to_owned(), phase, priority });
        }
        let observers = on.observers.len() as u32;
        LISTENING.set(Some(Listening { hooks, observers: on.observers, host: host::host() }));
        Ok(wit::Subscriptions { hooks: wanted, observers })
    }

    fn on(subscription: u32, event: Vec<u8>) -> Result<Vec<u8>, WireError> {
        LISTENING.with_borrow_mut(|listening| {
            let all = listening.as_mut().ok_or_else(unknown)?;
            let listener = all.hooks.get_mut(subscription as usize).ok_or_else(unknown)?;
            let mut answer = Vec::new();
            listener.on(&event, &all.host, &mut answer)?;
            Ok(answer)
        })
    }

    fn observe(observer: u32, event: wit::Summary) {
        LISTENING.with_borrow_mut(|listening| {
            let Some(all) = listening else { return };
            let Some(observer) = all.observers.get_mut(observer as usize) else { return };
            let values: Vec<_> =
                event.values.iter().map(|(name, value)| (known(name), *value)).collect();
            observer(&Record::new(known(&event.topic), event.request, &values), &all.host);
        });
    }
}

fn unknown() -> Error {
    Error::unsupported("on", "no such subscription")
}
