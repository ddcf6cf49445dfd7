//! Where offers wait for the next boundary: left by any thread, taken by one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Offers that wait. Looking into an empty mailbox costs one atomic load.
#[derive(Debug)]
pub struct Mailbox<T> {
    is_waiting: AtomicBool,
    offers: Mutex<Vec<T>>,
}

impl<T> Mailbox<T> {
    /// An empty mailbox.
    pub fn new() -> Self {
        Self { is_waiting: AtomicBool::new(false), offers: Mutex::new(Vec::new()) }
    }

    /// Leaves an offer.
    pub fn offer(&self, offer: T) {
        let mut offers = self.lock();
        offers.push(offer);
        self.is_waiting.store(true, Ordering::Release);
    }

    /// What was offered, in order; nothing but one atomic load when nothing was.
    pub fn take(&self) -> Vec<T> {
        if !self.is_waiting.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut offers = self.lock();
        self.is_waiting.store(false, Ordering::Relaxed);
        std::mem::take(&mut offers)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_taken_once_and_in_order() {
        let mailbox = Mailbox::new();
        assert!(mailbox.take().is_empty());
        mailbox.offer(1);
        mailbox.offer(2);
        assert_eq!(mailbox.take(), [1, 2]);
        assert!(mailbox.take().is_empty());
    }
}
