//! Which blocks are free: a bit for each, taken and given back without a lock.
//!
//! The lowest free block is taken first, so a pool that is never full touches only the memory that
//! it needs.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Numbers below a limit, each free or taken. Any thread may take and give.
#[derive(Debug, Default)]
pub struct Bitmap {
    /// Bit `i % 64` of word `i / 64` is set while number `i` is free.
    words: Box<[AtomicU64]>,
    /// No word before this one has a free number, but for those that are given back just now.
    first: AtomicUsize,
    num_free: AtomicUsize,
}

impl Bitmap {
    /// The numbers below `len`, all of them free.
    pub fn new(len: usize) -> Self {
        let word = |start: usize| match len - start {
            rest @ 0..64 => AtomicU64::new((1 << rest) - 1),
            _ => AtomicU64::new(u64::MAX),
        };
        let words = (0..len).step_by(64).map(word).collect();
        Self { words, first: AtomicUsize::new(0), num_free: AtomicUsize::new(len) }
    }

    /// The numbers below `len`, of which only `free` are free; those outside are left out.
    pub fn with(len: usize, free: &[u32]) -> Self {
        let words = (0..len).step_by(64).map(|_| AtomicU64::new(0)).collect();
        let bitmap = Self { words, first: AtomicUsize::new(0), num_free: AtomicUsize::new(0) };
        free.iter().filter(|number| (**number as usize) < len).for_each(|n| bitmap.give(*n));
        bitmap
    }

    /// Takes the lowest free number.
    pub fn take(&self) -> Option<u32> {
        let mut start = self.first.load(Ordering::Relaxed);
        loop {
            if let Some(number) = self.take_from(start) {
                return Some(number);
            }
            if self.num_free() == 0 {
                return None;
            }
            // It was given back behind this search.
            start = 0;
        }
    }

    fn take_from(&self, start: usize) -> Option<u32> {
        for (index, word) in self.words.iter().enumerate().skip(start) {
            let mut bits = word.load(Ordering::Relaxed);
            while bits != 0 {
                let bit = bits & bits.wrapping_neg();
                // Whoever clears the bit has the number, and sees what its last owner wrote.
                bits = word.fetch_and(!bit, Ordering::Acquire);
                if bits & bit != 0 {
                    let order = Ordering::Relaxed;
                    self.num_free.fetch_sub(1, order);
                    if index != start {
                        // A lower number that was given back meanwhile stays the first.
                        let _ = self.first.compare_exchange(start, index, order, order);
                    }
                    return Some((index * 64) as u32 + bit.trailing_zeros());
                }
                bits &= !bit;
            }
        }
        None
    }

    /// Gives a number back. One that is free already stays so.
    pub fn give(&self, number: u32) {
        let (index, bit) = (number as usize / 64, 1 << (number % 64));
        let Some(word) = self.words.get(index) else { return };
        // Counted before it can be taken, so that the count never falls below zero.
        self.num_free.fetch_add(1, Ordering::Relaxed);
        if word.fetch_or(bit, Ordering::Release) & bit != 0 {
            self.num_free.fetch_sub(1, Ordering::Relaxed);
        } else if self.first.load(Ordering::Relaxed) > index {
            self.first.fetch_min(index, Ordering::Relaxed);
        }
    }

    /// How many numbers are free.
    pub fn num_free(&self) -> usize {
        self.num_free.load(Ordering::Relaxed)
    }

    /// The free numbers, in order.
    pub fn free(&self) -> impl Iterator<Item = u32> {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let bits = word.load(Ordering::Relaxed);
            let set = (0..64).filter(move |bit| bits >> bit & 1 == 1);
            set.map(move |bit| index as u32 * 64 + bit)
        })
    }
}
