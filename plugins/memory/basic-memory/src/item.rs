//! What a session keeps, and how it lies in the store.

use plugin_api::host::{Change, Row};
use plugin_api::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A sentence that is kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    /// As it was said.
    pub(crate) text: String,
    /// From 0 to 1.
    pub(crate) importance: f64,
    /// The turn in which it was said last.
    pub(crate) turn: u64,
    /// How often it was recalled.
    pub(crate) uses: u64,
}

impl Item {
    /// The key of its row: a sentence that is said again is the same row.
    pub(crate) fn key(&self) -> String {
        let digest = Sha256::digest(self.text.as_bytes());
        let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{ITEM}{hex}")
    }

    fn read(row: &Row) -> Result<Self> {
        let value = json_of(row)?;
        let number = |key: &str| value.get(key).and_then(Value::as_f64).filter(|x| x.is_finite());
        let count = |key: &str| value.get(key).and_then(Value::as_u64);
        let text = value.get("text").and_then(Value::as_str).filter(|text| !text.is_empty());
        let read = || {
            let importance = number("importance")?.clamp(0.0, 1.0);
            Some(Self {
                text: text?.to_owned(),
                importance,
                turn: count("turn")?,
                uses: count("uses")?,
            })
        };
        let item = read().ok_or_else(|| wrong(row, "text, importance, turn and uses", "others"))?;
        // A row that was changed elsewhere, or lost a part, is not what anybody said.
        let found = item.key();
        if found == row.key { Ok(item) } else { Err(wrong(row, "the text of its key", &found)) }
    }
}

/// Everything that a session keeps.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Turns so far.
    pub(crate) turn: u64,
    /// Sentences, those said longest ago first.
    pub(crate) items: Vec<Item>,
}

impl Kept {
    /// Reads a session; one that is not there keeps nothing.
    pub(crate) fn read(session: &str, host: &Host) -> Result<Self> {
        let mut kept = Self::default();
        for row in host.services().store_rows(session, "")? {
            if row.key.starts_with(ITEM) {
                kept.items.push(Item::read(&row)?);
            } else if row.key == TURN {
                let count = json_of(&row)?.get("turn").and_then(Value::as_u64);
                kept.turn = count.ok_or_else(|| wrong(&row, "turn", "none"))?;
            }
        }
        kept.items.sort_by(|a, b| a.turn.cmp(&b.turn).then_with(|| a.text.cmp(&b.text)));
        Ok(kept)
    }

    /// The rows that it is.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Change> {
        let turn = (TURN.to_owned(), json!({ "v": VERSION, "turn": self.turn }));
        let items = self.items.iter().map(|item| {
            let Item { text, importance, turn, uses } = item;
            let value = json!({ "v": VERSION, "text": text, "importance": importance, "turn": turn, "uses": uses });
            (item.key(), value)
        });
        let rows = items
            .chain([turn])
            .map(|(key, value)| Row { key, value: value.to_string().into_bytes() });
        rows.map(Change::Put)
    }
}

/// The document in a row, of the version that is known.
fn json_of(row: &Row) -> Result<Value> {
    let value: Value = serde_json::from_slice(&row.value)
        .map_err(|error| wrong(row, "JSON", &error.to_string()))?;
    match value.get("v").and_then(Value::as_u64) {
        Some(VERSION) => Ok(value),
        other => Err(wrong(row, &format!("version {VERSION}"), &format!("{other:?}"))),
    }
}

fn wrong(row: &Row, expected: &str, found: &str) -> Error {
    Error::malformed(format!("basic memory: row `{}`", row.key), expected, found)
}

const ITEM: &str = "item/";
const TURN: &str = "turn";

/// Of the documents in rows.
const VERSION: u64 = 1;
