//! The skeleton card: what every answer of a session is to know, whatever is asked.

use plugin_api::prelude::*;
use serde_json::{Value, json};

use super::kept::Kept;
use super::record::VERSION;

/// What people put on the card.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Card {
    pub(crate) goal: String,
    /// What answers must not say.
    pub(crate) rules: Vec<String>,
    /// Keys, or sentences.
    pub(crate) anchors: Vec<String>,
}

impl Card {
    pub(crate) fn read(value: &Value) -> Self {
        let texts = |name: &str| {
            let list = value.get(name).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let goal = value.get("goal").and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { goal, rules: texts("rules"), anchors: texts("anchors") }
    }

    pub(crate) fn value(&self) -> Value {
        let Self { goal, rules, anchors } = self;
        json!({ "v": VERSION, "goal": goal, "rules": rules, "anchors": anchors })
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds an anchor, the latest first; the oldest goes where there are too many.
    pub(crate) fn anchor(&mut self, text: String) {
        add(&mut self.anchors, text, ANCHORS_MAX);
    }

    /// Adds what answers must not say.
    pub(crate) fn rule(&mut self, text: String) {
        add(&mut self.rules, text, RULES_MAX);
    }

    /// The card as passages, goal first: as many of them as `tokens_max` may have room for. The host counts
    /// exactly; this only keeps the card from taking the room of the details.
    pub(crate) fn passages(&self, kept: &Kept, tokens_max: u32) -> Vec<Passage> {
        let goal = (!self.goal.is_empty()).then(|| line("goal", format!("Goal: {}", self.goal)));
        let rules = self.rules.iter().enumerate();
        let rules =
            rules.map(|(i, rule)| line(&format!("rule {}", i + 1), format!("Never say: {rule}")));
        let anchors = self.anchors.iter().enumerate();
        let anchors =
            anchors.map(|(i, anchor)| line(&format!("anchor {}", i + 1), anchored(kept, anchor)));
        let mut names: Vec<(u64, &str)> = Vec::new();
        for entry in kept.entries.iter().filter(|entry| entry.is_sealed()) {
            names.extend(entry.head().map(|head| (head.turn, entry.name())));
        }
        names.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        let names: Vec<&str> = names.into_iter().map(|(_, name)| name).take(NAMES_MAX).collect();
        let index =
            (!names.is_empty()).then(|| line("index", format!("Kept: {}", names.join(", "))));
        let mut room = tokens_max as usize;
        let all = goal.into_iter().chain(rules).chain(anchors).chain(index);
        let has_room = |passage: &Passage| {
            let needed = about_tokens(&passage.text);
            let fits = needed <= room;
            room -= if fits { needed } else { 0 };
            fits
        };
        all.filter(has_room).collect()
    }
}

fn add(list: &mut Vec<String>, text: String, max: usize) {
    list.retain(|other| *other != text);
    list.insert(0, text);
    list.truncate(max);
}

fn line(source: &str, text: String) -> Passage {
    Passage { source: format!("card: {source}"), text }
}

/// `key(v2,0a1b2c3d): the first 60 characters`, or the sentence that it is.
fn anchored(kept: &Kept, anchor: &str) -> String {
    let entry = kept.entry(anchor);
    let Some(head) = entry.and_then(|entry| entry.head()) else { return anchor.to_owned() };
    let (start, short): (String, String) =
        (head.content.chars().take(60).collect(), head.sha256.chars().take(8).collect());
    format!("{anchor}(v{},{short}): {start}", head.version)
}

/// About how many tokens a text has: four letters of an alphabet, or one other character.
fn about_tokens(text: &str) -> usize {
    let ascii = text.bytes().filter(u8::is_ascii).count();
    ascii.div_ceil(4) + text.chars().filter(|letter| !letter.is_ascii()).count()
}

const NAMES_MAX: usize = 20;
const ANCHORS_MAX: usize = 10;
const RULES_MAX: usize = 5;
