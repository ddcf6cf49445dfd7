//! Generations: one load of a plugin file, and the instances that were made of it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use plugin_api::Error;
use plugin_api::native::Owner;

use crate::native::{Fate, Mapping};

/// Who is told of faults: whose they are, and what happened.
pub type OnFault = Arc<dyn Fn(&Arc<Generation>, &Error) + Send + Sync>;

/// One load of a plugin. Whoever can make instances of it holds one, and so does each instance.
pub struct Generation {
    label: String,
    instances: AtomicUsize,
    calls: AtomicU64,
    faults: Mutex<Faults>,
    on_fault: Option<OnFault>,
    fate: OnceLock<Fate>,
}

#[derive(Default)]
struct Faults {
    count: usize,
    last: Option<Error>,
}

impl Generation {
    /// The load called `label`, whose faults `on_fault` is told of.
    pub(crate) fn new(label: String, on_fault: OnFault) -> Arc<Self> {
        Arc::new(Self {
            label,
            instances: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
            faults: Mutex::default(),
            on_fault: Some(on_fault),
            fate: OnceLock::new(),
        })
    }

    /// A load that nobody is told of.
    pub(crate) fn unnamed(label: &str) -> Arc<Self> {
        let (label, instances) = (label.to_owned(), AtomicUsize::new(0));
        let (calls, faults) = (AtomicU64::new(0), Mutex::default());
        Arc::new(Self { label, instances, calls, faults, on_fault: None, fate: OnceLock::new() })
    }

    /// The plugin's name with the first digits of its file's hash: `min-p (1f3a90c2)`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Instances that are alive.
    pub fn instances(&self) -> usize {
        self.instances.load(Ordering::Relaxed)
    }

    /// Calls into instances so far, of components: every one goes through here. Calls into libraries
    /// are not counted.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Counts a call.
    pub(crate) fn count_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the plugin failed in a way that a plugin must not, and how the last time.
    pub fn faults(&self) -> (usize, Option<Error>) {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        (faults.count, faults.last.clone())
    }

    /// What became of its library: nothing while it is open, or if nobody asked to unload it.
    pub fn fate(&self) -> Option<&Fate> {
        self.fate.get()
    }

    /// Says what became of its library; the first word is the last.
    pub(crate) fn decide(&self, fate: Fate) {
        let _ = self.fate.set(fate);
    }

    /// Tells of a fault.
    pub(crate) fn fault(self: &Arc<Self>, error: &Error) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.count += 1;
        faults.last = Some(error.clone());
        drop(faults);
        tracing::warn!(plugin = self.label, "fault: {error}");
        if let Some(on_fault) = &self.on_fault {
            on_fault(self, error);
        }
    }

    /// The owner of one more instance, which keeps the library open if it is one to be unloaded.
    pub(crate) fn owner(self: &Arc<Self>, mapping: Option<&Arc<Mapping>>) -> Arc<dyn Owner> {
        self.instances.fetch_add(1, Ordering::Relaxed);
        Arc::new(Instance { of: Arc::clone(self), mapping: mapping.cloned() })
    }
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation").field("label", &self.label).finish_non_exhaustive()
    }
}

/// One instance, for as long as it lives.
struct Instance {
    of: Arc<Generation>,
    mapping: Option<Arc<Mapping>>,
}

impl Owner for Instance {
    fn label(&self) -> String {
        format!("plugin {}", self.of.label)
    }

    fn fault(&self, error: &Error) {
        self.of.fault(error);
    }

    fn run(&self, call: &mut dyn FnMut()) {
        match &self.mapping {
            Some(mapping) => mapping.run(call),
            None => call(),
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.of.instances.fetch_sub(1, Ordering::Relaxed);
    }
}
