//! A thread for work that must not hold up whoever causes it: dropping plugins, telling listeners.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread;

type Work = Box<dyn FnOnce() + Send>;

/// Runs closures one after the other on a thread of its own, which ends with the last handle.
#[derive(Clone, Debug)]
pub struct Backstage {
    queue: Sender<Work>,
}

impl Backstage {
    /// Starts the thread, called `name`. Where none can be had, work is done by whoever hands it in.
    pub fn start(name: &str) -> Self {
        let (queue, works) = channel();
        let thread = thread::Builder::new().name(name.to_owned());
        if let Err(error) = thread.spawn(move || run(&works)) {
            tracing::warn!("{name}: no thread: {error}");
        }
        Self { queue }
    }

    /// Hands in work without waiting for it.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) {
        if let Err(refused) = self.queue.send(Box::new(work)) {
            (refused.0)();
        }
    }

    /// Drops `thing` later, on the thread.
    pub fn dispose(&self, thing: impl Send + 'static) {
        self.run(move || drop(thing));
    }

    /// Waits until everything handed in before is done.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        self.run(move || _ = done.send(()));
        let _ = wait.recv();
    }
}

fn run(works: &Receiver<Work>) {
    for work in works {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            tracing::warn!("backstage: a plugin panicked while it was dropped or told something");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    struct Dropped(Arc<Mutex<Vec<String>>>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            let thread = thread::current().name().unwrap_or_default().to_owned();
            self.0.lock().unwrap().push(thread);
        }
    }

    #[test]
    fn drops_things_elsewhere_and_survives_panics() {
        let (backstage, seen) = (Backstage::start("backstage"), Arc::default());
        backstage.run(|| panic!("a plugin's mistake"));
        backstage.dispose(Dropped(Arc::clone(&seen)));
        backstage.flush();
        assert_eq!(*seen.lock().unwrap(), ["backstage"]);
    }
}
