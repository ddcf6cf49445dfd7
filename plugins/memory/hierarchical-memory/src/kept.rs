//! Everything that a session keeps, and what changes in it: new versions are written beside old ones, never over them.

use plugin_api::host::{Change, Row};
use plugin_api::prelude::*;
use serde_json::{Value, json};

use super::card::Card;
use super::directive::Tier;
use super::record::{ENTRY, Entry, Record, SAID, UNSEALED, VERSION, entries, sha256};
use super::said;

/// What a session keeps.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) turn: u64,
    pub(crate) entries: Vec<Entry>,
    pub(crate) card: Card,
    /// Rows that cannot be read: they stay as they are.
    pub(crate) damage: Vec<String>,
    changes: Vec<Change>,
}

/// Something that is to be kept.
pub(crate) struct Written<'a> {
    pub(crate) key: &'a str,
    pub(crate) tier: Tier,
    pub(crate) content: &'a str,
    /// The version that whoever wrote it says it is.
    pub(crate) version: Option<u64>,
    pub(crate) reason: &'a str,
    pub(crate) reference: Option<String>,
}

impl Kept {
    /// Reads a session; one that is not there keeps nothing.
    pub(crate) fn read(session: &str, host: &Host) -> Result<Self> {
        let rows = host.services().store_rows(session, "")?;
        let (entries, mut damage) = entries(&rows);
        let mut of = |name: &str| {
            let row = rows.iter().find(|row| row.key == name)?;
            let value: Option<Value> = serde_json::from_slice(&row.value).ok();
            let value =
                value.filter(|value| value.get("v").and_then(Value::as_u64) == Some(VERSION));
            if value.is_none() {
                damage.push(format!("`{name}` is damaged and set aside"));
            }
            value
        };
        let turn = of(TURN).and_then(|value| value.get("turn")?.as_u64()).unwrap_or(0);
        let card = of(CARD).map(|value| Card::read(&value)).unwrap_or_default();
        Ok(Self { turn, entries, card, damage, changes: Vec::new() })
    }

    /// The entry of a key that counts.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Keeps something as the next version, unless it is what the latest says. Returns the version.
    ///
    /// # Errors
    ///
    /// Why it cannot be: a version that is not the next, or damage under this key.
    pub(crate) fn write(&mut self, it: Written<'_>) -> std::result::Result<u64, String> {
        let is_damaged = |said: &String| said.contains(&format!("`{ENTRY}{}/", it.key));
        if self.damage.iter().any(is_damaged) {
            return Err(format!("{}: what is kept there is damaged", it.key));
        }
        let sha256 = sha256(it.content);
        let last = self.entry(it.key).and_then(|entry| entry.versions.last());
        let (next, prev) =
            last.map_or((1, None), |last| (last.version + 1, Some(last.sha256.clone())));
        if let Some(last) = last.filter(|last| !last.is_end() && last.sha256 == sha256)
            && it.version.is_none_or(|version| version == last.version)
            && it.reason != UNSEALED
        {
            return Ok(last.version);
        }
        if let Some(found) = it.version.filter(|version| *version != next) {
            return Err(format!("{}: expected version {next}, found version {found}", it.key));
        }
        let (tier, content, reason) = (it.tier, it.content.to_owned(), it.reason.to_owned());
        let (turn, reference) = (self.turn, it.reference);
        let record = Record { tier, version: next, content, sha256, prev, turn, reason, reference };
        self.changes.push(Change::Create(record.row(it.key)));
        match self.entries.iter_mut().find(|entry| entry.key == it.key) {
            Some(entry) => entry.versions.push(record),
            None => self.entries.push(Entry { key: it.key.to_owned(), versions: vec![record] }),
        }
        Ok(next)
    }

    /// The key of a statement: that of an earlier one of the subject which says the same of it, or a new one.
    pub(crate) fn key_of(&self, subject: &str, sentence: &str) -> String {
        let first = format!("{SAID}{subject}");
        let mut number = 1;
        loop {
            let key = if number == 1 { first.clone() } else { format!("{first}#{number}") };
            match self.entry(&key).and_then(|entry| entry.versions.last()) {
                Some(last) if !said::is_version(&last.content, sentence) => number += 1,
                _ => return key,
            }
        }
    }

    /// Lets what was said in passing go, least first, until there are at most so many entries. What was sealed stays.
    pub(crate) fn evict(&mut self, entries_max: usize) {
        while self.entries.len() > entries_max {
            let worth = |entry: &Entry| {
                let last = entry.versions.last();
                last.map_or((0, 0), |last| (u8::from(last.tier != Tier::Narrative), last.turn))
            };
            let said = self.entries.iter().enumerate().filter(|(_, entry)| !entry.is_sealed());
            let Some((place, _)) = said.min_by_key(|(_, entry)| worth(entry)) else { return };
            let gone = self.entries.remove(place);
            self.changes
                .retain(|change| !matches!(change, Change::Create(row) if is_of(row, &gone)));
            let rows = gone.versions.iter().map(|record| Change::Remove(record.row(&gone.key).key));
            self.changes.extend(rows);
        }
    }

    /// What is to become of the rows.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let put = |key: &str, value: Value| {
            Change::Put(Row { key: key.to_owned(), value: value.to_string().into_bytes() })
        };
        let mut changes = self.changes.clone();
        changes.push(put(TURN, json!({ "v": VERSION, "turn": self.turn })));
        if !self.card.is_empty() {
            changes.push(put(CARD, self.card.value()));
        }
        changes
    }
}

fn is_of(row: &Row, entry: &Entry) -> bool {
    entry.versions.iter().any(|record| record.row(&entry.key).key == row.key)
}

const TURN: &str = "turn";
const CARD: &str = "card";
