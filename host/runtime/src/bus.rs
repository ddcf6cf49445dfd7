//! The event bus: hooks that may answer, observers that only read.
//!
//! Whoever emits owns a [`Topic`] and calls its hooks on its own thread, so that emitting takes no
//! lock; subscriptions made meanwhile are taken in at the next [`Topic::refresh`]. Observers run on
//! one thread behind a bounded queue; what does not fit is counted as lost.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use plugin_api::events::{
    Event, Flow, HookEntry, HookFn, ObserverFn, Phase, Record, Subscriptions,
};
use plugin_api::{Error, Host};

use crate::backstage::Backstage;

/// Records that wait for observers; more are lost.
const QUEUE_RECORDS_MAX: usize = 65_536;

/// Connects emitters with subscribers. A value, not a global: two hosts fit in one process.
#[derive(Clone, Default)]
pub struct Bus {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    topics: Mutex<HashMap<&'static str, Arc<Cell>>>,
    observers: Mutex<Option<Observers>>,
    /// Where hooks are dropped: their plugins may take their time.
    backstage: OnceLock<Backstage>,
    faults: Arc<Faults>,
}

/// A hook that failed in a way that a plugin must not.
#[derive(Debug, Clone, PartialEq)]
pub struct HookFault {
    /// The plugin.
    pub plugin: String,
    /// What happened.
    pub error: Error,
}

/// Faults that nobody has been told of.
#[derive(Default)]
struct Faults {
    has_some: AtomicBool,
    list: Mutex<Vec<HookFault>>,
}

impl Faults {
    fn push(&self, fault: HookFault) {
        lock(&self.list).push(fault);
        self.has_some.store(true, Ordering::Release);
    }
}

/// What emitter and subscribers of one topic share.
#[derive(Default)]
struct Cell {
    /// Hooks plus observers: the one load of a topic without any.
    subscribers: AtomicUsize,
    has_changes: AtomicBool,
    changes: Mutex<Vec<Change>>,
    observer: Mutex<Option<ObserverPort>>,
    faults: AtomicU64,
}

enum Change {
    Add { plugin: Host, entry: HookEntry },
    Remove { plugin: String, backstage: Backstage },
}

#[derive(Clone)]
struct ObserverPort {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

enum Message {
    Record(Record),
    Add(Host, ObserverFn),
    Remove(String),
    Flush(SyncSender<()>),
}

struct Observers {
    port: ObserverPort,
    thread: Option<JoinHandle<()>>,
}

impl Bus {
    /// A bus without subscribers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The emitting end of a topic. One emitter a topic: a later one gets the hooks of an earlier
    /// one only if they are subscribed again.
    pub fn topic<E: Event>(&self) -> Topic<E> {
        let faults = Arc::clone(&self.shared.faults);
        Topic { cell: self.cell(E::NAME), hooks: Vec::new(), observer: None, faults }
    }

    /// Adds everything that `host`'s plugin subscribes to; hooks are called from the emitter's next
    /// refresh on.
    pub fn subscribe(&self, host: &Host, subscriptions: Subscriptions) {
        self.change(None, host, subscriptions);
    }

    /// Puts `subscriptions` in the place of everything that `host`'s plugin subscribed to so far.
    /// A topic changes hands at its emitter's next refresh: no event is seen by both or by neither.
    pub fn replace(&self, host: &Host, subscriptions: Subscriptions) {
        self.change(Some(host.plugin()), host, subscriptions);
    }

    /// Removes everything that a plugin subscribed to, from the emitters' next refresh on.
    pub fn unsubscribe(&self, plugin: &str) {
        for cell in self.cells() {
            cell.change([self.removal(plugin)]);
        }
        if let Some(observers) = &*lock(&self.shared.observers) {
            let _ = observers.port.queue.send(Message::Remove(plugin.to_owned()));
        }
    }

    /// Removes what `old` subscribed to and adds `subscriptions`, in one change of each topic.
    fn change(&self, old: Option<&str>, host: &Host, subscriptions: Subscriptions) {
        let mut added: HashMap<&'static str, Vec<Change>> = HashMap::new();
        for entry in subscriptions.hooks {
            let cell = self.cell(entry.topic);
            cell.subscribers.fetch_add(1, Ordering::Relaxed);
            let changes = added.entry(entry.topic).or_default();
            changes.push(Change::Add { plugin: host.clone(), entry });
        }
        let topics: Vec<&'static str> = lock(&self.shared.topics).keys().copied().collect();
        for topic in topics {
            let removal = old.map(|plugin| self.removal(plugin));
            let changes = removal.into_iter().chain(added.remove(topic).unwrap_or_default());
            self.cell(topic).change(changes);
        }
        if let (Some(old), Some(observers)) = (old, &*lock(&self.shared.observers)) {
            let _ = observers.port.queue.send(Message::Remove(old.to_owned()));
        }
        if !subscriptions.observers.is_empty() {
            self.observe(host, subscriptions.observers);
        }
    }

    fn observe(&self, host: &Host, observers: Vec<ObserverFn>) {
        let port = self.observers();
        for observer in observers {
            let _ = port.queue.send(Message::Add(host.clone(), observer));
        }
        for topic in plugin_api::events::TOPICS {
            let cell = self.cell(topic);
            let mut observer = lock(&cell.observer);
            if observer.is_none() {
                *observer = Some(port.clone());
                cell.subscribers.fetch_add(1, Ordering::Relaxed);
                cell.has_changes.store(true, Ordering::Release);
            }
        }
    }

    fn removal(&self, plugin: &str) -> Change {
        let backstage =
            self.shared.backstage.get_or_init(|| Backstage::start("retired hooks")).clone();
        Change::Remove { plugin: plugin.to_owned(), backstage }
    }

    /// Takes note that a hook failed, for whoever asks for [`faults`](Self::faults).
    pub fn report(&self, fault: HookFault) {
        self.shared.faults.push(fault);
    }

    /// Hooks that have failed since the last call, oldest first: those that panicked, and those
    /// that were reported. One atomic load where there are none.
    pub fn faults(&self) -> Vec<HookFault> {
        if !self.shared.faults.has_some.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut lock(&self.shared.faults.list))
    }

    /// Waits until observers have seen everything that was emitted before.
    pub fn flush(&self) {
        let port = lock(&self.shared.observers).as_ref().map(|o| o.port.clone());
        if let Some(port) = port {
            let (done, wait) = sync_channel(1);
            if port.queue.send(Message::Flush(done)).is_ok() {
                let _ = wait.recv();
            }
        }
    }

    /// Records that observers have missed.
    pub fn lost(&self) -> u64 {
        let observers = lock(&self.shared.observers);
        observers.as_ref().map_or(0, |o| o.port.lost.load(Ordering::Relaxed))
    }

    fn cells(&self) -> Vec<Arc<Cell>> {
        lock(&self.shared.topics).values().map(Arc::clone).collect()
    }

    fn cell(&self, topic: &'static str) -> Arc<Cell> {
        Arc::clone(lock(&self.shared.topics).entry(topic).or_default())
    }

    fn observers(&self) -> ObserverPort {
        let mut observers = lock(&self.shared.observers);
        let observers = observers.get_or_insert_with(|| {
            let (queue, records) = sync_channel(QUEUE_RECORDS_MAX);
            let faults = Arc::clone(&self.shared.faults);
            let thread = thread::Builder::new()
                .name("observers".to_owned())
                .spawn(move || observe(&records, &faults))
                .ok();
            Observers { port: ObserverPort { queue, lost: Arc::default() }, thread }
        });
        observers.port.clone()
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("lost", &self.lost()).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let cells = self.topics.get_mut().unwrap_or_else(PoisonError::into_inner);
        cells.clear();
        let observers = self.observers.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(Observers { port, thread: Some(thread) }) = observers.take() {
            drop(port);
            // Topics that outlive the bus hold senders of their own; a thread that waits for them
            // must not be waited for.
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

impl Cell {
    fn change(&self, changes: impl IntoIterator<Item = Change>) {
        let mut waiting = lock(&self.changes);
        let before = waiting.len();
        waiting.extend(changes);
        if waiting.len() > before {
            self.has_changes.store(true, Ordering::Release);
        }
    }
}

/// The emitting end of a topic.
pub struct Topic<E: Event> {
    cell: Arc<Cell>,
    hooks: Vec<Hook<E>>,
    observer: Option<ObserverPort>,
    faults: Arc<Faults>,
}

struct Hook<E: Event> {
    phase: Phase,
    priority: i32,
    host: Host,
    call: HookFn<E>,
}

impl<E: Event> Topic<E> {
    /// Takes in subscriptions made since the last refresh; one atomic load when there are none.
    pub fn refresh(&mut self) {
        if self.cell.has_changes.load(Ordering::Acquire) {
            self.take_changes();
        }
    }

    fn take_changes(&mut self) {
        self.cell.has_changes.store(false, Ordering::Relaxed);
        self.observer = lock(&self.cell.observer).clone();
        for change in lock(&self.cell.changes).drain(..) {
            match change {
                Change::Add { plugin, entry } => {
                    let call = entry.hook.downcast::<HookFn<E>>();
                    let call = *call.expect("a hook is subscribed under the topic of its event");
                    let (phase, priority) = (entry.phase, entry.priority);
                    self.hooks.push(Hook { phase, priority, host: plugin, call });
                }
                Change::Remove { plugin, backstage } => {
                    let is_theirs = |hook: &mut Hook<E>| hook.host.plugin() == plugin;
                    let removed: Vec<Hook<E>> = self.hooks.extract_if(.., is_theirs).collect();
                    self.cell.subscribers.fetch_sub(removed.len(), Ordering::Relaxed);
                    backstage.dispose(removed);
                }
            }
        }
        self.hooks.sort_by(|a, b| a.order().cmp(&b.order()));
    }

    /// Whether anybody listens: one atomic load.
    pub fn is_empty(&self) -> bool {
        self.cell.subscribers.load(Ordering::Relaxed) == 0
    }

    /// Whether a hook listens, as of the last refresh: for events that are too many for observers.
    pub fn has_hooks(&self) -> bool {
        !self.hooks.is_empty()
    }

    /// Calls every hook in order, hands a record to the observers, and returns the strictest answer.
    ///
    /// A hook that panics is removed and counted; the others and the emitter go on.
    #[inline]
    pub fn emit(&mut self, payload: &mut E::Payload<'_>) -> Flow {
        if self.is_empty() { Flow::Continue } else { self.emit_to_some(payload) }
    }

    #[cold]
    fn emit_to_some(&mut self, payload: &mut E::Payload<'_>) -> Flow {
        let mut flow = Flow::Continue;
        self.call_hooks(|hook| {
            flow = flow.and((hook.call)(payload, &hook.host));
        });
        self.record(payload);
        flow
    }

    /// Calls every hook in order with a payload of its own: `lend` is told whose hook it is and calls it with
    /// what that plugin is lent. Observers get no record: [`record`](Self::record) hands them one.
    pub fn emit_each(
        &mut self,
        mut lend: impl FnMut(&str, &mut dyn FnMut(&mut E::Payload<'_>) -> Flow),
    ) {
        self.call_hooks(|Hook { call, host, .. }| {
            lend(host.plugin(), &mut |payload| call(payload, host));
        });
    }

    /// Those that panic are removed.
    fn call_hooks(&mut self, mut call: impl FnMut(&mut Hook<E>)) {
        let mut broken = Vec::new();
        for (i, hook) in self.hooks.iter_mut().enumerate() {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| call(hook))) {
                broken.push((i, panic));
            }
        }
        // From the last on: the places of the others stay.
        for (i, panic) in broken.into_iter().rev() {
            self.remove_broken(i, &*panic);
            // What was panicked with may panic once more when it is dropped.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
        }
    }

    /// Hands a record to the observers, if there are any.
    pub fn record(&self, payload: &E::Payload<'_>) {
        if let Some(port) = &self.observer
            && let Err(TrySendError::Full(_)) =
                port.queue.try_send(Message::Record(E::record(payload)))
        {
            port.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Removes a hook that panicked, and takes note of it.
    fn remove_broken(&mut self, place: usize, panic: &(dyn Any + Send)) {
        let hook = self.hooks.remove(place);
        self.cell.subscribers.fetch_sub(1, Ordering::Relaxed);
        self.cell.faults.fetch_add(1, Ordering::Relaxed);
        self.faults.push(fault(&hook.host, &format!("hook on {}", E::NAME), panic));
    }

    /// Hooks that were removed because they panicked.
    pub fn faults(&self) -> u64 {
        self.cell.faults.load(Ordering::Relaxed)
    }
}

/// The fault that a panic amounts to; whatever panicked is removed.
fn fault(host: &Host, what: &str, panic: &(dyn Any + Send)) -> HookFault {
    let plugin = host.plugin().to_owned();
    tracing::warn!("plugin `{plugin}`: its {what} panicked and was removed");
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let message = format!("it panicked: {}", text.unwrap_or("a panic"));
    HookFault { error: Error::outside(format!("plugin {plugin}: its {what}"), message), plugin }
}

impl<E: Event> Hook<E> {
    fn order(&self) -> (Phase, i32, &str) {
        (self.phase, self.priority, self.host.plugin())
    }
}

fn observe(messages: &Receiver<Message>, faults: &Faults) {
    let mut observers: Vec<(Host, ObserverFn)> = Vec::new();
    for message in messages {
        match message {
            Message::Add(host, observer) => observers.push((host, observer)),
            Message::Remove(plugin) => observers.retain(|(host, _)| host.plugin() != plugin),
            Message::Flush(done) => drop(done.send(())),
            Message::Record(record) => observers.retain_mut(|(host, observer)| {
                let result = catch_unwind(AssertUnwindSafe(|| observer(&record, host)));
                result.inspect_err(|panic| faults.push(fault(host, "observer", &**panic))).is_ok()
            }),
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
