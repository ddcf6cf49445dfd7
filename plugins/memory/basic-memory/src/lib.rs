//! Basic memory: sentences that users say, by importance that fades.
//!
//! Source of the ranking: BM25 (see `plugin_api::kinds::memory::Ranking`), times importance, times recency.

mod item;
mod said;

use std::collections::BTreeSet;

use plugin_api::host::Change;
use plugin_api::kinds::memory::{Ranking, terms};
use plugin_api::prelude::*;

use item::{Item, Kept};

/// Keeps sentences of users, and brings back those that a question is about.
#[derive(Debug)]
pub struct BasicMemory {
    /// Most sentences of a session.
    items_max: usize,
    /// Importance from which a sentence is kept.
    save_from: f64,
    /// Turns after which a sentence counts half.
    half_life: f64,
    /// Most sentences that are recalled.
    top_k: usize,
}

impl Capability for BasicMemory {
    const NAME: &'static str = "basic-memory";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self {
            items_max: config.count_or("items", 100, 1..=10_000)? as usize,
            save_from: f64::from(config.unit_interval_or("save_from", 0.5)?),
            half_life: config.number_or("half_life", 50.0, 1.0..=1e9)?,
            top_k: config.count_or("top_k", 5, 1..=100)? as usize,
        })
    }
}

impl Memory for BasicMemory {
    fn recall(&mut self, turn: &Turn, host: &Host) -> Result<Vec<Passage>> {
        let kept = Kept::read(&turn.session, host)?;
        let passage = |&index: &usize| {
            let item = &kept.items[index];
            Passage { source: item.key(), text: item.text.clone() }
        };
        Ok(self.found(&kept, turn.question()).iter().map(passage).collect())
    }

    fn remember(&mut self, turn: &Turn, _answer: &str, host: &Host) -> Result<Vec<String>> {
        let mut kept = Kept::read(&turn.session, host)?;
        let before: BTreeSet<String> = kept.items.iter().map(Item::key).collect();
        kept.turn += 1;
        // What is told, rather than asked, uses nothing.
        if said::is_question(turn.question()) {
            for index in self.found(&kept, turn.question()) {
                kept.items[index].uses += 1;
            }
        }
        for message in turn.latest().iter().filter(|message| message.role == "user") {
            for sentence in said::sentences(&message.content) {
                let importance = said::importance(sentence);
                if importance >= self.save_from && !said::is_question(sentence) {
                    kept.add(sentence, importance);
                }
            }
        }
        self.evict(&mut kept);
        let after: BTreeSet<String> = kept.items.iter().map(Item::key).collect();
        let gone = before.difference(&after).map(|key| Change::Remove(key.clone()));
        host.services()
            .store_change(&turn.session, &gone.chain(kept.rows()).collect::<Vec<_>>())?;
        Ok(Vec::new())
    }
}

impl BasicMemory {
    /// Places of the sentences that a question is about, best first.
    fn found(&self, kept: &Kept, question: &str) -> Vec<usize> {
        let ranking = Ranking::new(kept.items.iter().map(|item| &*item.text));
        let scores = ranking.scores(question).into_iter().zip(&kept.items);
        let scores = scores.map(|(score, item)| score * item.importance * self.recency(kept, item));
        let mut found: Vec<(usize, f64)> = scores.enumerate().filter(|(_, it)| *it > 0.0).collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        found.into_iter().take(self.top_k).map(|(index, _)| index).collect()
    }

    /// From 1 for what was just said towards 0.
    fn recency(&self, kept: &Kept, item: &Item) -> f64 {
        0.5_f64.powf(kept.turn.saturating_sub(item.turn) as f64 / self.half_life)
    }

    /// Lets what is worth least go, until the rest has room.
    fn evict(&self, kept: &mut Kept) {
        while kept.items.len() > self.items_max {
            let worth = |item: &Item| {
                item.importance * self.recency(kept, item) * (1.0 + (item.uses as f64).ln_1p())
            };
            let worths = kept.items.iter().map(worth).enumerate();
            let least = worths.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(index, _)| index);
            kept.items.remove(least);
        }
    }
}

impl Kept {
    /// Adds a sentence, in the place of one that says nearly the same.
    fn add(&mut self, text: &str, importance: f64) {
        let mine: BTreeSet<String> = terms(text).into_iter().collect();
        let alike = |item: &Item| {
            let theirs: BTreeSet<String> = terms(&item.text).into_iter().collect();
            let shared = mine.intersection(&theirs).count();
            let all = mine.len() + theirs.len() - shared;
            item.text == text || shared as f64 >= ALIKE * all as f64 && all > 0
        };
        let old = self.items.iter().position(alike).map(|place| self.items.remove(place));
        let (uses, importance) = match &old {
            Some(old) => (old.uses, importance.max(old.importance)),
            None => (0, importance),
        };
        self.items.push(Item { text: text.to_owned(), importance, turn: self.turn, uses });
    }
}

/// Share of words from which two sentences say the same.
const ALIKE: f64 = 0.9;

export_plugin!(BasicMemory);

#[cfg(test)]
mod tests;
