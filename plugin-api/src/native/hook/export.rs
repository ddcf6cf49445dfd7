//! Hooks on the plugin's side.

use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Instance, PHASES};
use crate::error::{Error, Result};
use crate::events::{HookEntry, ObserverFn, Subscriptions};
use crate::native::abi::hook::{HookV1, SubscriptionsV1};
use crate::native::abi::host::HostV1;
use crate::native::abi::{Code, Out, RSlice};
use crate::native::guard::{self, guard, instance, shared, write};
use crate::native::host::Lent;
use crate::wire::events::{Listener, crossing, take_record};

/// A hook and, once it has subscribed, its closures: each has a lock, since topics are emitted on
/// different threads.
struct Exported {
    hook: Option<Box<Instance>>,
    listeners: Vec<Mutex<Called<Box<dyn Listener>>>>,
    observers: Vec<Mutex<Called<ObserverFn>>>,
}

/// A closure with what it is called with.
struct Called<F> {
    closure: F,
    host: Lent,
    answer: Vec<u8>,
}

impl<F> Called<F> {
    fn new(closure: F) -> Mutex<Self> {
        Mutex::new(Self { closure, host: Lent::default(), answer: Vec::new() })
    }
}

static TABLE: HookV1 = HookV1 {
    size: size_of::<HookV1>() as u32,
    subscribe,
    on,
    observe,
    close: guard::close::<Exported>,
};

pub(in crate::native) fn export(hook: Box<Instance>) -> (*mut c_void, *const c_void) {
    let hook = Some(hook);
    let exported = Exported { hook, listeners: Vec::new(), observers: Vec::new() };
    (guard::export(Box::new(exported)), (&raw const TABLE).cast())
}

unsafe extern "C" fn subscribe(this: *mut c_void, to: SubscriptionsV1, out: *const Out) -> Code {
    let body = || {
        // SAFETY: the host opened this instance here, and calls nothing else of it meanwhile.
        let exported = unsafe { instance::<Exported>(this) };
        let hook = exported.hook.take();
        let hook = hook.ok_or_else(|| Error::unsupported("subscribe", "it is called once"))?;
        let mut on = Subscriptions::new();
        hook.subscribe(&mut on)?;
        for HookEntry { topic, phase, priority, hook } in on.hooks {
            // Nobody emits a topic that no host knows.
            let Some(crossing) = crossing(topic) else { continue };
            let listener = crossing.export(hook);
            let listener = listener.ok_or_else(|| {
                Error::malformed(format!("hook on {topic}"), "a hook of its event", "another's")
            })?;
            let phase = PHASES.iter().position(|&x| x == phase).unwrap_or(1) as u32;
            // SAFETY: `to` is the host's, for this call.
            unsafe { (to.hook)(to.to, topic.into(), phase, priority) };
            exported.listeners.push(Called::new(listener));
        }
        for observer in on.observers {
            // SAFETY: as above.
            unsafe { (to.observer)(to.to) };
            exported.observers.push(Called::new(observer));
        }
        Ok(())
    };
    // SAFETY: `out` is the host's, for this call.
    unsafe { guard(out, body) }
}

unsafe extern "C" fn on(
    this: *mut c_void,
    subscription: u32,
    event: RSlice<'_, u8>,
    host: *const HostV1,
    out: *const Out,
) -> Code {
    // SAFETY: the host opened this instance here, has finished `subscribe`, and lends `event`,
    // `host` and `out` for the call.
    unsafe {
        guard(out, || {
            let mut listener = find(&shared::<Exported>(this).listeners, subscription)?;
            let Called { closure, host: lent, answer } = &mut *listener;
            answer.clear();
            lent.with(host, |host| closure.on(event.as_slice(), host, answer))?;
            write(out, answer);
            Ok(())
        })
    }
}

unsafe extern "C" fn observe(
    this: *mut c_void,
    observer: u32,
    record: RSlice<'_, u8>,
    host: *const HostV1,
    out: *const Out,
) -> Code {
    // SAFETY: as in `on`.
    unsafe {
        guard(out, || {
            let record = take_record(record.as_slice())?;
            let mut observer = find(&shared::<Exported>(this).observers, observer)?;
            let Called { closure, host: lent, .. } = &mut *observer;
            lent.with(host, |host| closure(&record, host));
            Ok(())
        })
    }
}

fn find<F>(all: &[Mutex<Called<F>>], number: u32) -> Result<MutexGuard<'_, Called<F>>> {
    let found = all.get(number as usize);
    let found = found.ok_or_else(|| Error::malformed("subscription", all.len(), number))?;
    Ok(found.lock().unwrap_or_else(PoisonError::into_inner))
}
