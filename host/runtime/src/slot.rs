//! Slots: places that a plugin fills and a reload refills, and the generations in them.
//!
//! A [`Slot`] belongs to one owner that works with its instance between boundaries; anybody with a
//! [`SlotHandle`] may offer the next generation, which the owner takes in at a boundary. Offering
//! never waits for the owner and the owner never waits for an offer.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::RuntimeError;

/// Names one load of a plugin: `min-p#3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Name of the capability.
    pub name: String,
    /// How often this slot has been filled, from 1.
    pub generation: u32,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.generation)
    }
}

/// One instance with its label.
#[derive(Debug)]
pub struct Generation<T: ?Sized> {
    /// Which load of which plugin this is.
    pub label: Label,
    /// The instance.
    pub instance: Box<T>,
}

struct Mailbox<T: ?Sized> {
    slot: String,
    is_waiting: AtomicBool,
    next: Mutex<Option<(String, Box<T>)>>,
}

/// Offers generations to a slot, from any thread.
pub struct SlotHandle<T: ?Sized> {
    mailbox: Arc<Mailbox<T>>,
}

impl<T: ?Sized> Clone for SlotHandle<T> {
    fn clone(&self) -> Self {
        Self { mailbox: Arc::clone(&self.mailbox) }
    }
}

impl<T: ?Sized> SlotHandle<T> {
    /// Leaves an instance for the next boundary.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::SwapPending`] if an earlier offer has not been taken in yet.
    pub fn offer(&self, name: &str, instance: Box<T>) -> Result<(), RuntimeError> {
        let mut next = self.mailbox.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.is_some() {
            return Err(RuntimeError::SwapPending { slot: self.mailbox.slot.clone() });
        }
        *next = Some((name.to_owned(), instance));
        self.mailbox.is_waiting.store(true, Ordering::Release);
        Ok(())
    }
}

impl<T: ?Sized> Mailbox<T> {
    /// What was offered; one atomic load when nothing was.
    fn take(&self) -> Option<(String, Box<T>)> {
        if !self.is_waiting.load(Ordering::Acquire) {
            return None;
        }
        self.is_waiting.store(false, Ordering::Relaxed);
        self.next.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A slot of an engine kind: one instance, swapped for everybody at a boundary.
pub struct Slot<T: ?Sized> {
    mailbox: Arc<Mailbox<T>>,
    active: Generation<T>,
}

impl<T: ?Sized> Slot<T> {
    /// A slot with its first generation.
    pub fn new(slot: &str, name: &str, instance: Box<T>) -> Self {
        let label = Label { name: name.to_owned(), generation: 1 };
        Self { mailbox: mailbox(slot), active: Generation { label, instance } }
    }

    /// A handle to offer the next generation with.
    pub fn handle(&self) -> SlotHandle<T> {
        SlotHandle { mailbox: Arc::clone(&self.mailbox) }
    }

    /// Which generation is active.
    pub fn label(&self) -> &Label {
        &self.active.label
    }

    /// The active instance.
    pub fn get(&self) -> &T {
        &self.active.instance
    }

    /// The active instance, to work with.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.active.instance
    }

    /// Takes in what was offered, if `accept` agrees to replace the old instance by the new one,
    /// and returns the retired generation. What `accept` refuses is dropped.
    pub fn at_boundary(
        &mut self,
        accept: impl FnOnce(&mut T, &mut T) -> bool,
    ) -> Option<Generation<T>> {
        let (name, mut instance) = self.mailbox.take()?;
        if !accept(&mut self.active.instance, &mut instance) {
            return None;
        }
        let label = Label { name, generation: self.active.label.generation + 1 };
        Some(std::mem::replace(&mut self.active, Generation { label, instance }))
    }
}

/// A slot of a request kind: new requests get the active generation, running ones keep theirs.
pub struct RequestSlot<T: ?Sized> {
    mailbox: Arc<Mailbox<T>>,
    /// Oldest first; the last is active.
    generations: Vec<InFlight<T>>,
}

struct InFlight<T: ?Sized> {
    generation: Generation<T>,
    requests: usize,
}

impl<T: ?Sized> RequestSlot<T> {
    /// Generations that may drain at a time, beside the active one.
    pub const DRAINING_MAX: usize = 3;

    /// A slot with its first generation.
    pub fn new(slot: &str, name: &str, instance: Box<T>) -> Self {
        let label = Label { name: name.to_owned(), generation: 1 };
        let generation = Generation { label, instance };
        Self { mailbox: mailbox(slot), generations: vec![InFlight { generation, requests: 0 }] }
    }

    /// A handle to offer the next generation with.
    pub fn handle(&self) -> SlotHandle<T> {
        SlotHandle { mailbox: Arc::clone(&self.mailbox) }
    }

    /// Pins the active generation for a request and returns its number.
    pub fn open(&mut self) -> u32 {
        let active = self.generations.last_mut().expect("a slot always has an active generation");
        active.requests += 1;
        active.generation.label.generation
    }

    /// The instance of a pinned generation.
    ///
    /// # Panics
    ///
    /// If no request holds this generation.
    pub fn get_mut(&mut self, generation: u32) -> &mut T {
        let held =
            self.generations.iter_mut().find(|g| g.generation.label.generation == generation);
        &mut held.expect("a request holds the generation it asks for").generation.instance
    }

    /// Every live generation with its number, oldest first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        self.generations
            .iter_mut()
            .map(|g| (g.generation.label.generation, &mut *g.generation.instance))
    }

    /// Which generation new requests get.
    pub fn label(&self) -> &Label {
        let active = self.generations.last().expect("a slot always has an active generation");
        &active.generation.label
    }

    /// Lets go of a pinned generation and returns it if it has drained.
    pub fn close(&mut self, generation: u32) -> Option<Generation<T>> {
        let last = self.generations.len() - 1;
        let mut held = self.generations.iter_mut().enumerate();
        let (index, held) = held.find(|(_, g)| g.generation.label.generation == generation)?;
        held.requests -= 1;
        let has_drained = held.requests == 0 && index != last;
        has_drained.then(|| self.generations.remove(index).generation)
    }

    /// Takes in what was offered. An active generation without requests is returned as retired.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::TooManyDraining`]; the offer is dropped and everything stays as it was.
    pub fn at_boundary(&mut self) -> Result<Option<Generation<T>>, RuntimeError> {
        let Some((name, instance)) = self.mailbox.take() else { return Ok(None) };
        let active = self.generations.last().expect("a slot always has an active generation");
        let (number, is_idle) = (active.generation.label.generation, active.requests == 0);
        let draining = self.generations.len() - usize::from(is_idle);
        if draining > Self::DRAINING_MAX {
            return Err(RuntimeError::TooManyDraining {
                slot: self.mailbox.slot.clone(),
                draining,
                draining_max: Self::DRAINING_MAX,
            });
        }
        let retired = if is_idle { self.generations.pop() } else { None };
        let label = Label { name, generation: number + 1 };
        self.generations.push(InFlight { generation: Generation { label, instance }, requests: 0 });
        Ok(retired.map(|g| g.generation))
    }
}

fn mailbox<T: ?Sized>(slot: &str) -> Arc<Mailbox<T>> {
    let is_waiting = AtomicBool::new(false);
    Arc::new(Mailbox { slot: slot.to_owned(), is_waiting, next: Mutex::new(None) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_waits_for_the_boundary_and_a_second_is_refused() {
        let mut slot: Slot<str> = Slot::new("norm", "a", "one".into());
        let handle = slot.handle();
        handle.offer("b", "two".into()).unwrap();
        let error = handle.offer("c", "three".into()).unwrap_err();
        assert_eq!(error, RuntimeError::SwapPending { slot: "norm".to_owned() });
        assert_eq!(slot.get(), "one");
        let retired = slot.at_boundary(|_, _| true).unwrap();
        assert_eq!((retired.label.to_string(), slot.get()), ("a#1".to_owned(), "two"));
        assert_eq!(slot.label().to_string(), "b#2");
        assert!(slot.at_boundary(|_, _| true).is_none());
    }

    #[test]
    fn a_refused_offer_leaves_the_old_generation() {
        let mut slot: Slot<str> = Slot::new("cache", "a", "one".into());
        slot.handle().offer("b", "two".into()).unwrap();
        assert!(slot.at_boundary(|_, _| false).is_none());
        assert_eq!((slot.get(), slot.label().generation), ("one", 1));
    }

    #[test]
    fn requests_keep_their_generation_and_a_fifth_is_refused() {
        let mut slot: RequestSlot<str> = RequestSlot::new("sampler", "s", "1".into());
        let mut pinned = vec![slot.open()];
        for n in 2..=4_u32 {
            slot.handle().offer("s", n.to_string().into()).unwrap();
            assert!(slot.at_boundary().unwrap().is_none());
            pinned.push(slot.open());
        }
        assert_eq!(pinned, [1, 2, 3, 4]);
        slot.handle().offer("s", "5".into()).unwrap();
        assert!(matches!(slot.at_boundary(), Err(RuntimeError::TooManyDraining { .. })));
        for n in 1..=4 {
            assert_eq!(*slot.get_mut(n), *n.to_string());
        }
        assert_eq!(slot.close(2).unwrap().label.generation, 2);
        slot.handle().offer("s", "5".into()).unwrap();
        assert!(slot.at_boundary().unwrap().is_none());
        assert_eq!(slot.open(), 5);
        assert!(slot.close(5).is_none(), "the active generation does not drain");
    }
}
