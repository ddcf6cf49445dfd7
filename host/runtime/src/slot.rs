//! Slots: places that a plugin fills and a reload refills, and the generations in them.
//!
//! A slot belongs to one owner, which works with its instance and refills it at a boundary.
//! Refilling moves two pointers: the next generation comes ready made, and what it replaces is
//! handed back for somebody else to drop.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Names one load of a plugin: `min-p#3`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Label {
    /// Name of the capability.
    pub name: String,
    /// How often this slot has been filled, from 1.
    pub generation: u32,
}

impl Label {
    /// The label of what fills a slot first.
    pub fn first(name: &str) -> Self {
        Self { name: name.to_owned(), generation: 1 }
    }

    /// The label of what follows in the same slot.
    #[must_use]
    pub fn next(&self, name: &str) -> Self {
        Self { name: name.to_owned(), generation: self.generation + 1 }
    }
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
    /// Requests that are pinned to it; anybody may read it.
    pub requests: Arc<AtomicUsize>,
    /// The instance.
    pub instance: Box<T>,
}

impl<T: ?Sized> Generation<T> {
    /// An instance that nothing is pinned to yet.
    pub fn new(label: Label, instance: Box<T>) -> Self {
        Self { label, requests: Arc::default(), instance }
    }
}

/// A slot of an engine kind: one instance, swapped for everybody at a boundary.
#[derive(Debug)]
pub struct Slot<T: ?Sized> {
    active: Generation<T>,
}

impl<T: ?Sized> Slot<T> {
    /// A slot with its first generation.
    pub fn new(name: &str, instance: Box<T>) -> Self {
        Self { active: Generation::new(Label::first(name), instance) }
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

    /// Puts `next` into the slot and returns what was in it.
    pub fn replace(&mut self, next: Generation<T>) -> Generation<T> {
        std::mem::replace(&mut self.active, next)
    }
}

/// A slot of a request kind: new requests get the active generation, running ones keep theirs.
#[derive(Debug)]
pub struct RequestSlot<T: ?Sized> {
    /// Oldest first; the last is active.
    generations: Vec<Generation<T>>,
}

/// Generations that may drain at a time in one slot, beside the active one.
pub const DRAINING_MAX: usize = 3;

impl<T: ?Sized> RequestSlot<T> {
    /// A slot with its first generation.
    pub fn new(name: &str, instance: Box<T>) -> Self {
        let mut generations = Vec::with_capacity(DRAINING_MAX + 1);
        generations.push(Generation::new(Label::first(name), instance));
        Self { generations }
    }

    /// Pins the active generation for a request and returns its number.
    pub fn open(&mut self) -> u32 {
        let active = self.active();
        active.requests.fetch_add(1, Ordering::Relaxed);
        active.label.generation
    }

    /// The instance of a pinned generation.
    ///
    /// # Panics
    ///
    /// If no request holds this generation.
    pub fn get_mut(&mut self, generation: u32) -> &mut T {
        let held = self.generations.iter_mut().find(|g| g.label.generation == generation);
        &mut held.expect("a request holds the generation it asks for").instance
    }

    /// Every live generation with its number, oldest first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        self.generations.iter_mut().map(|g| (g.label.generation, &mut *g.instance))
    }

    /// The generation that new requests get.
    pub fn active(&self) -> &Generation<T> {
        self.generations.last().expect("a slot always has an active generation")
    }

    /// The generations before the active one that requests still hold, oldest first.
    pub fn earlier(&self) -> &[Generation<T>] {
        &self.generations[..self.generations.len() - 1]
    }

    /// The label of a live generation.
    pub fn label_of(&self, generation: u32) -> Option<&Label> {
        let mut labels = self.generations.iter().map(|g| &g.label);
        labels.find(|label| label.generation == generation)
    }

    /// Lets go of a pinned generation and returns it if it has drained.
    pub fn close(&mut self, generation: u32) -> Option<Generation<T>> {
        let last = self.generations.len() - 1;
        let mut held = self.generations.iter().enumerate();
        let (index, held) = held.find(|(_, g)| g.label.generation == generation)?;
        let has_drained = held.requests.fetch_sub(1, Ordering::Relaxed) == 1 && index != last;
        has_drained.then(|| self.generations.remove(index))
    }

    /// Whether [`replace`](Self::replace) takes another generation.
    pub fn has_room(&self) -> bool {
        self.generations.len() - usize::from(self.is_idle()) <= DRAINING_MAX
    }

    fn is_idle(&self) -> bool {
        self.active().requests.load(Ordering::Relaxed) == 0
    }

    /// Makes `next` the active generation. An earlier one that no request holds is handed back.
    ///
    /// # Errors
    ///
    /// `next` itself if [`DRAINING_MAX`] generations drain already; everything stays as it was.
    pub fn replace(&mut self, next: Generation<T>) -> Result<Option<Generation<T>>, Generation<T>> {
        if !self.has_room() {
            return Err(next);
        }
        let retired = if self.is_idle() { self.generations.pop() } else { None };
        self.generations.push(next);
        Ok(retired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(label: &Label, instance: &str) -> Generation<str> {
        Generation::new(label.next("s"), instance.into())
    }

    #[test]
    fn a_slot_counts_its_generations() {
        let mut slot: Slot<str> = Slot::new("a", "one".into());
        let retired = slot.replace(Generation::new(slot.label().next("b"), "two".into()));
        assert_eq!((retired.label.to_string(), slot.get()), ("a#1".to_owned(), "two"));
        assert_eq!(slot.label().to_string(), "b#2");
    }

    #[test]
    fn requests_keep_their_generation_and_a_fifth_is_refused() {
        let mut slot: RequestSlot<str> = RequestSlot::new("s", "1".into());
        let mut pinned = vec![slot.open()];
        for n in 2..=4_u32 {
            let next = next(&slot.active().label, &n.to_string());
            assert!(slot.replace(next).unwrap().is_none());
            pinned.push(slot.open());
        }
        assert_eq!(pinned, [1, 2, 3, 4]);
        let fifth = next(&slot.active().label, "5");
        let fifth = slot.replace(fifth).unwrap_err();
        for n in 1..=4 {
            assert_eq!(*slot.get_mut(n), *n.to_string());
        }
        assert_eq!(slot.close(2).unwrap().label.generation, 2);
        assert!(slot.replace(fifth).unwrap().is_none());
        assert_eq!(slot.open(), 5);
        assert!(slot.close(5).is_none(), "the active generation does not drain");
        let sixth = next(&slot.active().label, "6");
        let retired = slot.replace(sixth).unwrap().unwrap();
        assert_eq!(&*retired.instance, "5", "nobody held it");
    }
}
