//! Contract suite of curricula: sources of many sizes, and what must hold for every choice; a state that is carried
//! over decides all that follows.

use std::collections::BTreeSet;

use super::random::Random;
use super::{Make, make};
use crate::config::Config;
use crate::error::Error;
use crate::kinds::Capability;
use crate::kinds::curriculum::{Choice, Curriculum, SourceView};

/// Runs the whole suite on curricula made from `config`.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + Curriculum + 'static>(config: &Config) {
    suite_of(&make::<dyn Curriculum, T>, config);
}

/// The same for curricula that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn Curriculum>, config: &Config) {
    let fresh = || make(config).expect("the configuration is the suite's own");
    for sizes in [&[1][..], &[7], &[1, 1], &[8, 9], &[63, 1, 257]] {
        let (mut first, mut second) = (fresh(), fresh());
        let (mut here, mut there) = (Sources::new(sizes), Sources::new(sizes));
        let all: u64 = sizes.iter().sum();
        let mut left = CHOICES_PER_EXAMPLE * all;
        while here.is_new_somewhere() {
            let (choice, other) = (here.choose(&mut *first), there.choose(&mut *second));
            assert_eq!(choice, other, "two that were made alike choose alike");
            left -= 1;
            assert!(left > 0, "sizes {sizes:?}: some example is never chosen: {here:?}");
        }
        hands_over(make, config, sizes);
    }
    for _ in 0..100 {
        drop(fresh());
    }
}

/// Sources as a loader has them, with what was chosen of them.
#[derive(Debug, Clone)]
pub struct Sources {
    views: Vec<SourceView>,
    seen: BTreeSet<(usize, u64)>,
}

impl Sources {
    /// Sources of these sizes at their beginning.
    pub fn new(sizes: &[u64]) -> Self {
        let view = |(source, &num_examples): (usize, &u64)| SourceView {
            num_examples,
            given: 0,
            next: number(source, 0),
        };
        Self { views: sizes.iter().enumerate().map(view).collect(), seen: BTreeSet::new() }
    }

    /// Lets `curriculum` choose, checks the choice and follows it.
    ///
    /// # Panics
    ///
    /// With a sentence that says which promise was broken.
    pub fn choose(&mut self, curriculum: &mut dyn Curriculum) -> Choice {
        let choice =
            curriculum.next(&self.views).expect("sources that a run may have are chosen of");
        let source = choice.source;
        assert!(source < self.views.len(), "{choice:?} of {} sources", self.views.len());
        match choice.again {
            Some(number) => assert!(
                self.seen.contains(&(source, number)),
                "{choice:?}: learnt again before it was new"
            ),
            None => {
                let view = &mut self.views[source];
                self.seen.insert((source, view.next));
                view.given += 1;
                view.next = number(source, view.given % view.num_examples);
            }
        }
        choice
    }

    /// Whether some source has an example that was never chosen.
    pub fn is_new_somewhere(&self) -> bool {
        self.views.iter().any(|view| view.given < view.num_examples)
    }
}

/// Numbers that say nothing about order.
fn number(source: usize, at: u64) -> u64 {
    (at * 7919 + source as u64 * 31) % 1_000_003 + 5
}

/// What one saved another restores, and then both choose alike; what is not such a state is refused and changes
/// nothing.
fn hands_over(make: Make<'_, dyn Curriculum>, config: &Config, sizes: &[u64]) {
    let mut random = Random::new(5);
    let mut old = make(config).expect("the configuration is the suite's own");
    let has_state = old.handover().is_some();
    let mut sources = Sources::new(sizes);
    for round in 0..6 {
        for _ in 0..random.below(40) {
            sources.choose(&mut *old);
        }
        let mut new = make(config).expect("the configuration is the suite's own");
        if has_state {
            let mut bytes = vec![];
            let from = old.handover().expect("a curriculum that hands over always does");
            from.save(&mut bytes).expect("saving reads what is there");
            refuses_other_bytes(&mut *new, &bytes, &mut random);
            let into = new.handover().expect("one instance hands over, so does another");
            into.restore(&bytes).expect("the same curriculum saved it");
            refuses_other_bytes(&mut *new, &bytes, &mut random);
        }
        let (mut here, mut there) = (sources.clone(), sources.clone());
        for _ in 0..60 {
            let (expected, found) = (here.choose(&mut *old), there.choose(&mut *new));
            assert_eq!(found, expected, "round {round}: the restored curriculum chooses otherwise");
        }
        (old, sources) = (new, there);
    }
}

fn refuses_other_bytes(curriculum: &mut dyn Curriculum, bytes: &[u8], random: &mut Random) {
    let mut other_schema = bytes.to_vec();
    *other_schema.first_mut().expect("a state starts with its schema") ^= 0xff;
    let longer = [bytes, &[0]].concat();
    let garbage: Vec<u8> = (0..64).map(|_| random.below(256) as u8).collect();
    for wrong in [&other_schema[..], &longer, &garbage, &[]] {
        let into = curriculum.handover().expect("a curriculum that hands over always does");
        let answer = into.restore(wrong);
        assert!(matches!(answer, Err(Error::Malformed { .. })), "restored from {wrong:?}");
    }
}

/// Choices for each example until every one was new once.
const CHOICES_PER_EXAMPLE: u64 = 200;
