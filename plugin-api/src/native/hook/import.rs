//! Hooks on the host's side.

use std::ffi::c_void;
use std::sync::Arc;

use super::{Instance, PHASES};
use crate::error::{Error, Result};
use crate::events::{Flow, Phase, Subscriptions};
use crate::host::Host;
use crate::kinds::hook::Hook;
use crate::native::Owner;
use crate::native::abi::hook::{HookV1, SubscriptionsV1};
use crate::native::abi::{Opened, RStr};
use crate::native::call::Remote;
use crate::native::host::Lender;
use crate::wire::events::{Crossing, Port, crossing, put_record};

/// A hook in another library.
struct Adapter {
    shared: Arc<Shared>,
}

/// What all closures of a hook call; the instance lives as long as any of them.
struct Shared {
    remote: Remote,
    table: &'static HookV1,
}

/// # Safety
///
/// `opened` came from `export` of a library that matches and stays mapped.
pub(in crate::native) unsafe fn import(opened: Opened, owner: Arc<dyn Owner>) -> Box<Instance> {
    // SAFETY: as for this function.
    let table = unsafe { &*opened.table.cast::<HookV1>() };
    let remote = Remote::new(opened.this, owner);
    Box::new(Adapter { shared: Arc::new(Shared { remote, table }) })
}

impl Hook for Adapter {
    fn subscribe(self: Box<Self>, on: &mut Subscriptions) -> Result<()> {
        let (Shared { remote, table }, mut wanted) = (&*self.shared, Wanted::default());
        let there = SubscriptionsV1 { to: (&raw mut wanted).cast(), hook, observer };
        // SAFETY: the table belongs to the instance; all pointers live until the call ends.
        remote.call(&mut Vec::new(), |this, out| unsafe { (table.subscribe)(this, there, out) })?;
        if let Some(phase) = wanted.unknown {
            return remote.judged(Err(Error::malformed("hook", "a phase of 0 to 2", phase)));
        }
        for (crossing, phase, number) in wanted.hooks {
            let port = Line { shared: Arc::clone(&self.shared), number };
            crossing.import(on, phase, Box::new(port));
        }
        for number in 0..wanted.num_observers {
            let shared = Arc::clone(&self.shared);
            let (mut bytes, mut answer) = (Vec::new(), Vec::new());
            on.observe(move |record, host| {
                bytes.clear();
                put_record(record, &mut bytes);
                let (table, lender) = (shared.table, Lender::new(host));
                let host = lender.lend();
                // An observer that failed is as none: its owner knows.
                // SAFETY: as above.
                let _ = shared.remote.call(&mut answer, |this, out| unsafe {
                    (table.observe)(this, number, bytes[..].into(), &raw const host, out)
                });
            });
        }
        Ok(())
    }
}

/// What a plugin subscribes to.
#[derive(Default)]
struct Wanted {
    num_hooks: u32,
    /// Those of topics that this host knows, with their numbers.
    hooks: Vec<(&'static Crossing, (Phase, i32), u32)>,
    num_observers: u32,
    unknown: Option<u32>,
}

unsafe extern "C" fn hook(to: *mut c_void, topic: RStr<'_>, phase: u32, priority: i32) -> u32 {
    // SAFETY: `to` is what `subscribe` lends, for the call that this is part of.
    let wanted = unsafe { &mut *to.cast::<Wanted>() };
    let number = wanted.num_hooks;
    wanted.num_hooks += 1;
    match (crossing(topic.as_str()), PHASES.get(phase as usize)) {
        (_, None) => wanted.unknown = Some(phase),
        (None, _) => {}
        (Some(crossing), Some(&phase)) => wanted.hooks.push((crossing, (phase, priority), number)),
    }
    number
}

unsafe extern "C" fn observer(to: *mut c_void) -> u32 {
    // SAFETY: as in `hook`.
    let wanted = unsafe { &mut *to.cast::<Wanted>() };
    wanted.num_observers += 1;
    wanted.num_observers - 1
}

/// One subscription.
struct Line {
    shared: Arc<Shared>,
    number: u32,
}

impl Port for Line {
    fn on(&self, event: &[u8], host: &Host, answer: &mut Vec<u8>) -> Result<()> {
        let (Shared { remote, table }, lender) = (&*self.shared, Lender::new(host));
        let host = lender.lend();
        // SAFETY: the table belongs to the instance; all pointers live until the call ends.
        remote.call(answer, |this, out| unsafe {
            (table.on)(this, self.number, event.into(), &raw const host, out)
        })
    }

    fn judged(&self, found: Result<Flow>) -> Result<Flow> {
        self.shared.remote.judged(found)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let table = self.table;
        // SAFETY: the instance is closed once, here.
        self.remote.tell(|this, out| unsafe { (table.close)(this, out) });
    }
}
